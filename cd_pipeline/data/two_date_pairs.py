"""From the pairs of a two-date data set to rows of the pair manifest."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from cd_pipeline.data.files import digest, seed_of
from cd_pipeline.data.images import read_label
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.names import safe_name
from cd_pipeline.data.settings import InputSettings
from cd_pipeline.data.tiles import Window, grid
from cd_pipeline.data.two_date import TwoDatePair

CLASS = "all"
"""Two-date data sets have no classes of pictures."""


def two_date_rows(
    root: Path, pairs: Iterable[TwoDatePair], settings: InputSettings, bits: int = 16
) -> list[Pair]:
    """Return the manifest rows of the usable pairs, ordered by split and name; their labels are read.

    With `fit: tile`, train and val pairs are cut into the tiles of a grid, a row each, and test pairs stay
    whole; with `resize` every pair is one row.

    Args:
        root: the data set's folder.
        pairs: as read from it.
        settings: size and fit of the network's input.
        bits: significant bits of 16-bit pictures.

    Raises:
        FileNotFoundError, ValueError: a label is gone or has changed since it was read.
    """
    usable = (pair for pair in pairs if pair.reason is None)
    rows = [replace(row, bits=bits) for pair in usable for row in _rows(root, pair, settings)]
    return sorted(rows, key=lambda row: (row.split, row.pair_id))


def pair_name(pair: TwoDatePair, tile: int | None = None) -> str:
    """Name a pair, or a tile of it, by its stem and content."""
    content = digest(pair.split, pair.name, pair.before_sha256, pair.after_sha256, pair.label_sha256)
    return safe_name(pair.name, content, tile)


def _rows(root: Path, pair: TwoDatePair, settings: InputSettings) -> Iterator[Pair]:
    tiled = settings.fit == "tile"
    label = read_label(root / pair.label, pair.label_sha256)
    if not tiled or pair.split == "test":
        yield _row(pair, None, None, bool(label.any()), tiled=tiled)
        return
    for number, window in enumerate(grid(pair.width, pair.height, settings.size)):
        changed = bool(label[window.rows, window.columns].any())
        yield _row(pair, number, window, changed, tiled=tiled)


def _row(pair: TwoDatePair, number: int | None, window: Window | None, changed: bool, *, tiled: bool) -> Pair:
    name = pair_name(pair, number)
    return Pair(
        pair_id=name,
        split=pair.split,
        class_name=CLASS,
        before=f"source:{pair.before}",
        after=f"source:{pair.after}",
        mask=f"source:{pair.label}",
        before_sha256=pair.before_sha256,
        after_sha256=pair.after_sha256,
        mask_sha256=pair.label_sha256,
        crop=None if window is None else window._asdict(),
        tiled=tiled,
        own_size=True,
        photo="",
        photo_sha256="",
        width=pair.width,
        height=pair.height,
        boxes=(),
        seed=seed_of(name),
        changed=changed,
        plan=None,
    )
