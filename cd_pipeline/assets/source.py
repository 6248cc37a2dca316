"""Reading a recipe's raw folder: the user's own, or sample data drawn where none is configured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import dagster as dg
from tqdm import tqdm

from cd_pipeline.assets.stage import on_terminal
from cd_pipeline.data.files import write_text
from cd_pipeline.data.places import is_remote
from cd_pipeline.metadata import table
from cd_pipeline.recipe import Recipe
from cd_pipeline.remote.step import current_step
from cd_pipeline.resources import Workspace

SAMPLE_MARK = "sample.sha256"


class Inventory(Protocol):
    """All that a reader found."""

    @property
    def version(self) -> str:
        """Content hash."""


Found = TypeVar("Found", bound=Inventory)
FoundByReader = TypeVar("FoundByReader", bound=Inventory, covariant=True)


class Scan(Protocol[FoundByReader]):
    """Reads every file of a folder."""

    def __call__(self, root: Path, *, threads: int, progress: Callable[[], object]) -> FoundByReader:
        """Read with so many threads; `progress` is called once a file or pair."""


class DrawSample(Protocol):
    """Fills a folder with sample data."""

    def __call__(self, folder: Path, /, *, workers: int, progress: Callable[[int, int], None]) -> object:
        """Draw with so many processes; `progress` gets how much is done and how much there is."""


@dataclass(frozen=True, slots=True)
class Source(Generic[Found]):
    """A raw folder and what is in it.

    Attributes:
        root: the folder, or its mirror on this machine.
        sample: it was drawn.
        inventory: what is in it.
        address: of one on an object store; "": it is a local folder.
        refused: objects on the store that cannot be files here, with the reason.
    """

    root: Path
    sample: bool
    inventory: Found
    address: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """Return where the data is from."""
        found: dict[str, Any] = {
            "sample_data": self.sample,
            "folder": dg.MetadataValue.path(self.address or self.root.absolute()),
        }
        if self.refused:
            found["refused_objects"] = table([{"object": n, "reason": r} for n, r in self.refused.items()])
        return found


def observe(
    log: dg.DagsterLogManager,
    workspace: Workspace,
    recipe: Recipe,
    cores: int,
    *,
    scan: Scan[Found],
    draw: DrawSample,
    sample: str,
) -> Source[Found]:
    """Read the configured folder, or sample data in the asset's own.

    Args:
        log: is told where the data is, and that a sample is no real data.
        workspace: says where folders are.
        recipe: whose source is read.
        cores: threads and processes.
        scan: reads a folder.
        draw: makes the sample.
        sample: what it is, for the log.
    """
    own = workspace.folder(recipe, recipe.raw_asset)
    configured = workspace.configured_source(recipe)

    def read(root: Path) -> Found:
        with tqdm(desc="reading", unit=" files", leave=False, disable=not on_terminal()) as bar:
            return scan(root, threads=cores, progress=bar.update)

    if configured is not None:
        place = workspace.source_place(recipe) or ""
        address = place if is_remote(place) else ""
        return Source(configured, False, read(configured), address, current_step().refused.get(place, {}))
    log.warning(f"no folder is configured: this run uses SAMPLE DATA, {sample}")
    whole = _whole_sample(own, read)
    if whole is not None:
        log.info(f"the sample is already in {own}")
        return Source(own, True, whole)
    with tqdm(desc="drawing the sample", leave=False, disable=not on_terminal()) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        draw(own, workers=cores, progress=progress)
    log.info(f"drew the sample to {own}")
    drawn = read(own)
    write_text(own / SAMPLE_MARK, _mark(drawn.version))
    return Source(own, True, drawn)


def _whole_sample(folder: Path, read: Callable[[Path], Found]) -> Found | None:
    # what is there, if it is whole and unaltered
    mark = folder / SAMPLE_MARK
    if not mark.is_file():
        return None
    try:
        found = read(folder)
    except (FileNotFoundError, ValueError):
        return None
    return found if mark.read_text() == _mark(found.version) else None


def _mark(version: str) -> str:
    # Another release may draw something else.
    return f"cd_pipeline {package_version('cd_pipeline')}: {version}\n"
