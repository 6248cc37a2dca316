"""The command `cd-pipeline release`: what is shipped, and how to go back."""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cd_pipeline.data.places import MATERIALIZE, data_place, data_root, is_remote, with_addresses

if TYPE_CHECKING:
    from cd_pipeline.release.store import ReleaseStore

RECIPE = re.compile(r"[a-z][a-z0-9_]*")
DESCRIPTION = """\
Show which versions of a recipe's model are kept, or ship an earlier one again.

  cd-pipeline release list
  cd-pipeline release rollback
  cd-pipeline release rollback 3f9a0c21b7de --recipe cracks

A new model is shipped by the asset `release` if it is not worse than the shipped one on the test set. A rollback
stays until a later model proves itself against what was gone back to; the one gone back from is not shipped again
but by another rollback. What is shipped lies in <data root>/<recipe>/release/current."""
EXIT_CODES = "exit codes: 0 done; 2 wrong usage, or a version that cannot be shipped"


def add_release(commands: Any) -> None:  # noqa: ANN401 - argparse keeps its type to itself
    """Add the command to those of `cd-pipeline`."""
    release = commands.add_parser(
        "release",
        help="what is shipped, and going back to an earlier version",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = release.add_subparsers(dest="action", required=True, metavar="{list,rollback}")
    listing = actions.add_parser("list", help="the kept versions, the newest first", epilog=EXIT_CODES)
    listing.set_defaults(run=list_versions)
    back = actions.add_parser("rollback", help="ship a kept version again", epilog=EXIT_CODES)
    back.add_argument(
        "version", nargs="?", metavar="VERSION", help="as list shows it; default: the one shipped before"
    )
    back.set_defaults(run=roll_back)
    for action in (listing, back):
        action.add_argument("--recipe", default="rooms", help="name of the recipe; default: rooms")


def list_versions(given: argparse.Namespace) -> int:
    """Print the kept versions.

    Raises:
        FileNotFoundError: nothing has been released.
        ValueError: the recipe's name cannot be one, or what is shipped cannot be told.
    """
    with _store(given) as store:
        return _print_versions(store)


def _print_versions(store: "ReleaseStore") -> int:
    from cd_pipeline.release.store import states_of

    records, problems = store.records()
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    shipped, states = store.shipped, states_of(store, records)
    print(f"{store.folder / 'current'} leads to {shipped or 'nothing'}")
    for record in records:
        mark = "*" if record.version == shipped else " "
        print(f"{mark} {record.version}  {states[record.version]:<9}  {record.decision.why}")
    for last in store.shipments[-1:]:
        print(f"shipped since {last.since}, by a {last.by}: {last.why}")
    return 0


def roll_back(given: argparse.Namespace) -> int:
    """Ship a kept version again.

    Raises:
        FileNotFoundError: nothing has been released, or the version is not kept.
        ValueError: no version, a damaged one, or the one that is shipped.
    """
    with _store(given, change=True) as store:
        version: str | None = given.version or store.shipped_before()
        if version is None:
            raise ValueError(
                f"{store.folder}: no kept version was shipped before {store.shipped}; give one that "
                f"`cd-pipeline release list --recipe {given.recipe}` shows"
            )
        record = store.verified(version)
        before = store.restore(version, "asked for by `cd-pipeline release rollback`")
    rejected = "" if record.decision.released else "; it had been rejected"
    print(f"shipped: {version}, instead of {before or 'nothing'}{rejected}")
    return 0


@contextmanager
def _store(given: argparse.Namespace, *, change: bool = False) -> "Iterator[ReleaseStore]":
    # on an object store: fetched before, and with `change` sent afterwards, while no other machine writes there
    from cd_pipeline.release.store import ReleaseStore

    recipe: str = given.recipe
    if not RECIPE.fullmatch(recipe):
        raise ValueError(f"--recipe {recipe!r}: expected a name of small letters, digits and _")
    folder = data_root() / recipe / "release"
    with _fetched(recipe, folder, change=change) as send:
        if not (folder / "versions").is_dir():
            remedy = MATERIALIZE.format(key="release" if recipe == "rooms" else f"{recipe}/release")
            raise FileNotFoundError(f"{with_addresses(str(folder / 'versions'))} is not there: run {remedy}")
        store = ReleaseStore(folder)
        yield store
        send(store)


@contextmanager
def _fetched(recipe: str, folder: Path, *, change: bool) -> "Iterator[Callable[[ReleaseStore], None]]":
    if not is_remote(data_place()):
        yield lambda store: None
        return
    from cd_pipeline.release.on_store import fetch_releases, push_releases
    from cd_pipeline.remote.lease import leased
    from cd_pipeline.remote.object_folder import ObjectFolder

    remote = ObjectFolder(data_place()) / recipe
    if not change:
        fetch_releases(remote / "release", folder)
        yield lambda store: None
        return
    with leased(remote, f"changing what is shipped of {recipe}", logging.getLogger(__name__)) as lease:

        def send(store: "ReleaseStore") -> None:
            push_releases(remote / "release", store, lease)

        fetch_releases(remote / "release", folder)
        yield send
