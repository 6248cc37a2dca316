"""Which folders of a raw folder its reader looks into; it can lie in a larger tree."""

from collections.abc import Sequence
from pathlib import Path

from cd_pipeline.data import masked_images, photos, two_date, voc
from cd_pipeline.data.split import SPLITS

PHOTO_PARTS = ("images", "labels")


def reader_folders(layout: str, root: Path) -> list[str]:
    """Return the folders, relative to `root`, that the reader of a layout looks into.

    Raises:
        FileNotFoundError, ValueError: the reader finds no layout of its own.
    """
    match layout:
        case "labelled_photos":
            outer: Sequence[str] = photos.find_trees(root)
        case "two_date":
            outer = ("", *SPLITS)
        case "masked_images":
            outer = masked_images.find_data_sets(root)
        case "voc":
            outer = voc.find_trees(root)
        case _:
            raise ValueError(f"layout {layout!r}: expected labelled_photos, two_date, masked_images or voc")
    return [f"{one}/{part}" if one else part for one in outer for part in inner_folders(layout)]


def inner_folders(layout: str) -> tuple[str, ...]:
    """Return the names of the folders that hold files, of which a reader looks for nothing further by name."""
    match layout:
        case "labelled_photos":
            return PHOTO_PARTS
        case "two_date":
            return (*two_date.PARTS, two_date.LISTS)
        case "masked_images":
            return masked_images.PARTS
        case _:
            return (*voc.PARTS, voc.LISTS)


def layout_depth(layout: str) -> int:
    """Return how many folders below the raw folder the inner ones can lie, themselves counted."""
    return voc.DEPTH + 1 if layout == "voc" else 2
