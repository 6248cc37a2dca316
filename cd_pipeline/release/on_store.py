"""A recipe's releases on an object store, which knows no links: `current.json` alone says there what is shipped.

A version's `release.json` is sent when all its other files are there, and `current.json` when all versions are: a
version without its record, of a run that was stopped, counts as not there.
"""

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from cd_pipeline.data.files import atomic_path, write_text
from cd_pipeline.release.records import CURRENT, RECORD, Current, read_model
from cd_pipeline.release.store import LINK, ReleaseStore
from cd_pipeline.remote.lease import Lease
from cd_pipeline.remote.mirror import fetch_listed, push_listed
from cd_pipeline.remote.object_folder import ObjectFolder

VERSIONS = "versions"


def fetch_releases(remote: ObjectFolder, folder: Path) -> None:
    """Make a folder of releases the same as that on the store, with the link to what is shipped.

    Args:
        remote: the releases on the store.
        folder: the releases here.

    Raises:
        StoreError: the store fails.
        ReleaseError: `current.json` cannot be read.
    """
    fetch_listed(remote, folder, _is_complete)
    link, told = folder / LINK, folder / CURRENT
    if not told.is_file():
        link.unlink(missing_ok=True)
        return
    current = read_model(
        told, Current, f"delete {remote.uri}/{CURRENT}: what was shipped before is forgotten"
    )
    target = Path(VERSIONS) / current.version
    if not link.is_symlink() or link.readlink() != target:
        with atomic_path(link) as temporary:
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(target, target_is_directory=True)


def push_releases(remote: ObjectFolder, store: ReleaseStore, lease: Lease) -> None:
    """Make the releases on the store the same as those here.

    Args:
        remote: the releases on the store.
        store: the releases here.
        lease: of the recipe, which this process holds.

    Raises:
        LeaseLostError: another machine writes to the recipe.
        StoreError: the store fails.
        ReleaseError: what is shipped here cannot be told.
    """
    shipments = store.shipments
    if shipments:  # `current.json` can tell of a shipment that did not happen
        text = Current.of(shipments).model_dump_json(indent=2) + "\n"
        if (store.folder / CURRENT).read_text() != text:
            write_text(store.folder / CURRENT, text)
    lease.require()
    push_listed(remote, store.folder, _rank)


def _is_complete(name: str, names: Collection[str]) -> bool:
    parts = PurePosixPath(name).parts
    return parts[0] != VERSIONS or (len(parts) > 2 and f"{VERSIONS}/{parts[1]}/{RECORD}" in names)


def _rank(name: str) -> int:
    path = PurePosixPath(name)
    return 2 if name == CURRENT else int(path.name == RECORD and len(path.parts) == 3)
