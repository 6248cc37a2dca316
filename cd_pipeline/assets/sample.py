"""Sample data, drawn where no folder is configured."""

from collections.abc import Callable
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TypeAlias

import dagster as dg
from tqdm import tqdm

from cd_pipeline.assets.stage import on_terminal
from cd_pipeline.data.files import write_text

SAMPLE_MARK = "sample.sha256"


Progress: TypeAlias = Callable[[int, int], None]
"""Gets how much is done and how much there is."""


def ensure_sample(
    log: dg.DagsterLogManager,
    folder: Path,
    what: str,
    draw: Callable[[Progress], object],
    version: Callable[[], str],
) -> Path:
    """Draw sample data into a folder unless it is there, whole and unaltered.

    Args:
        log: is told that this is no real data.
        folder: that the asset owns.
        what: the sample is, for the log.
        draw: fills the folder.
        version: content hash of what is in the folder.
    """
    log.warning(f"no folder is configured: this run uses SAMPLE DATA, {what}")
    if _is_whole(folder, version):
        log.info(f"the sample is already in {folder}")
        return folder
    with tqdm(desc="drawing the sample", leave=False, disable=not on_terminal()) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        draw(progress)
    log.info(f"drew the sample to {folder}")
    return folder


def mark_sample(folder: Path, version: str) -> None:
    """Say that the sample in a folder is whole."""
    write_text(folder / SAMPLE_MARK, _mark(version))


def _is_whole(folder: Path, version: Callable[[], str]) -> bool:
    mark = folder / SAMPLE_MARK
    try:
        return mark.is_file() and mark.read_text() == _mark(version())
    except (FileNotFoundError, ValueError):
        return False


def _mark(version: str) -> str:
    # Another release may draw something else.
    return f"cd_pipeline {package_version('cd_pipeline')}: {version}\n"
