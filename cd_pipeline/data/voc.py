"""The reader of Pascal VOC trees: `JPEGImages/` and `SegmentationClass/`, divided by lists or not at all.

The lists, `ImageSets/Segmentation/{train,val,test}.txt`, hold a name a line; any of them may be missing. A
mask is a palette PNG, or a grey one: what counts is each pixel's index, never its colour.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile

from cd_pipeline.data.classes import VOID
from cd_pipeline.data.files import bytes_digest
from cd_pipeline.data.header import BROKEN
from cd_pipeline.data.images import Image, PhotoError, too_large
from cd_pipeline.data.listing import absent, contents, folders_in, printable, read_names, require_source
from cd_pipeline.data.masked_images import (
    MaskedImage,
    MaskedInventory,
    label_of,
    list_images,
    read_images,
)
from cd_pipeline.data.palette import VOC_PALETTE, Palette, colour_indices
from cd_pipeline.data.split import SPLITS

PARTS = ("JPEGImages", "SegmentationClass")
LISTS = "ImageSets/Segmentation"
DEPTH = 3
"""Folders below the root in which a tree is looked for: `VOCdevkit/VOC2012` and one more."""
PACKED = {"L;2": 85, "L;4": 17}
"""The factor by which Pillow scales the values of grey PNGs of 2 and 4 bits."""


def scan_voc(
    root: Path,
    *,
    classes: int | None = None,
    void: int | None = VOID,
    palette: Palette | None = VOC_PALETTE,
    threads: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> MaskedInventory:
    """Read every image and mask of the VOC trees in `root`; each tree is a data set.

    Args:
        root: a tree, or a folder that holds trees, such as `VOCdevkit`.
        classes: how many there are, void not counted; a mask with a higher index is refused. None: any.
        void: the index that is no class; None: there is none.
        palette: the colours that used indices must have; None: any. Grey masks have no colours.
        threads: images decoded at a time; the result does not depend on it.
        progress: called once a row.

    Returns:
        The inventory; `split` is what the lists say, "" in a tree without lists.

    Raises:
        FileNotFoundError: the folder is missing or holds no tree.
        ValueError: no image can be used, a list is not text, or no mask has a class beside background.
    """
    candidates = [row for tree in find_trees(root) for row in _candidates(root, tree)]

    def decode(content: bytes) -> Image:
        mask = decode_indices(content, palette=palette, void=void)
        if problem := class_problem(mask, classes, void):
            raise PhotoError(problem)
        return mask

    inventory = read_images(root, candidates, decode, void=void, threads=threads, progress=progress)
    if not any(index for row in inventory.usable for index in row.classes):
        raise ValueError(
            f"{root}: the masks hold nothing but index 0 and void ({void}), the first: "
            f"{label_of(inventory.usable[0])}; binary masks of 0 and 255 belong into images/ and masks/"
        )
    return inventory


def find_trees(root: Path) -> list[str]:
    """Return the folders, relative to `root`, that hold `JPEGImages/` or `SegmentationClass/`, sorted.

    Raises:
        FileNotFoundError: none holds both; naming what is there and what was expected.
    """
    require_source(root, "VOC tree")
    trees = sorted(_walk(root, DEPTH, set()))
    if not any(all((tree / part).is_dir() for part in PARTS) for tree in trees):
        raise FileNotFoundError(
            f"{root}: found {contents(root)}; expected {PARTS[0]}/ and {PARTS[1]}/, "
            f"in it or up to {DEPTH} folders deeper"
        )
    return ["" if tree == root else tree.relative_to(root).as_posix() for tree in trees]


def decode_indices(
    content: bytes, *, palette: Palette | None = VOC_PALETTE, void: int | None = VOID
) -> Image:
    """Decode a mask of class indices; colours serve as a check alone.

    Masks in colour are refused, even in the colours of the palette: a resized or compressed one would have
    blends of them. `colour_indices` and `write_palette_png` turn a good one into a palette PNG.

    Args:
        content: the bytes of a palette or grey PNG.
        palette: the colours that used indices, other than void, must have; None: any.
        void: the index that is no class.

    Returns:
        HW uint8, as stored.

    Raises:
        PhotoError: not an image, in colour, of other colours than the palette's or of indices above 255.
    """
    picture, scale = _open(content)
    stored = np.asarray(picture) // scale
    if picture.mode in ("RGB", "RGBA", "LA"):
        raise PhotoError(_colour_problem(np.asarray(picture.convert("RGB")), palette))
    if picture.mode not in ("1", "L", "P", "I;16"):
        raise PhotoError(f"pixels of form {picture.mode}; expected class indices as palette or 8-bit grey")
    if stored.max() > 255:
        raise PhotoError(f"index {stored.max()}; expected 0..255")
    if picture.mode == "P" and palette is not None:
        own = np.reshape(np.asarray(picture.getpalette("RGB"), np.uint8), (-1, 3))
        _refuse_palette(np.unique(stored), own, palette, void)
    return stored.astype(np.uint8)


def read_indices(
    path: Path,
    sha256: str | None = None,
    *,
    palette: Palette | None = VOC_PALETTE,
    void: int | None = VOID,
) -> Image:
    """Read a mask of class indices: HW uint8, as stored.

    Args:
        path: of the mask.
        sha256: of the content it must have; None: any.
        palette: the colours that used indices, other than void, must have; None: any.
        void: the index that is no class.

    Raises:
        FileNotFoundError, PhotoError: with the path in the message.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the mask is not there; put it back, or materialize its asset again")
    content = path.read_bytes()
    if sha256 is not None and bytes_digest(content) != sha256:
        raise PhotoError(f"{path}: the file has changed; materialize all assets again, from the first one on")
    try:
        return decode_indices(content, palette=palette, void=void)
    except PhotoError as error:
        raise PhotoError(f"{path}: {error}") from None


def class_indices(
    mask: Image, classes: int, void: int | None = VOID, *, void_as_class: bool = False
) -> tuple[Image, npt.NDArray[np.bool_]]:
    """Turn a mask as stored into the indices that a network learns.

    Args:
        mask: HW uint8.
        classes: how many there are, void not counted; 255 at most.
        void: the index that is no class; None: there is none.
        void_as_class: void becomes class `classes`, one more. Otherwise its pixels are not valid and have
            index 0: loss and metrics must leave them out.

    Returns:
        Indices, HW uint8, all below `classes` (+ 1 with `void_as_class`), and the pixels that count, HW bool.

    Raises:
        ValueError: an index is neither a class nor void.
    """
    if problem := class_problem(mask, classes, void):
        raise ValueError(problem)
    is_void = np.zeros(mask.shape, np.bool_) if void is None else mask == void
    indices = np.where(is_void, np.uint8(classes if void_as_class else 0), mask).astype(np.uint8, copy=False)
    return indices, np.ones(mask.shape, np.bool_) if void_as_class else ~is_void


def class_problem(mask: Image, classes: int | None, void: int | None) -> str:
    """Return what is wrong with the indices of a mask; "" if nothing is."""
    if classes is None:
        return ""
    allowed = np.arange(256) < classes
    if void is not None:
        allowed[void] = True
    counts = np.bincount(mask.ravel(), minlength=256)
    wrong = np.flatnonzero((counts > 0) & ~allowed)
    if not wrong.size:
        return ""
    also = "" if void is None else f" and void, {void}"
    return (
        f"index {wrong[0]} at {counts[wrong[0]]} px; {classes} classes have indices 0..{classes - 1}{also}. "
        "Set the number of classes, or mend the mask"
    )


def _candidates(root: Path, tree: str) -> Iterator[MaskedImage]:
    rows = list_images(root, tree, PARTS)
    lists = {split: read_names(root / tree / LISTS / f"{split}.txt") for split in SPLITS}
    if all(names is None for names in lists.values()):
        yield from rows
        return
    by_name = {row.name: row for row in rows}
    for split, names in lists.items():
        for name in sorted(set(names or ())):
            row = by_name.get(name, MaskedImage(name, printable(tree), reason=absent(PARTS)))
            yield replace(row, split=split)
    listed_anywhere = {name for names in lists.values() for name in names or ()}
    for name in sorted(by_name.keys() - listed_anywhere):
        row = by_name[name]
        yield replace(row, reason=row.reason or f"in no list of {LISTS}/")


def _walk(folder: Path, depth: int, seen: set[tuple[Path, int]]) -> Iterator[Path]:
    # `seen` stops links from leading to one folder on ever more paths; of those the first by name counts
    if any((folder / part).is_dir() for part in PARTS):
        yield folder
    elif depth and (place := (folder.resolve(), depth)) not in seen:
        seen.add(place)
        for path in folders_in(folder):
            yield from _walk(path, depth - 1, seen)


def _open(content: bytes) -> tuple[ImageFile, int]:
    if not content:
        raise PhotoError("empty file (0 bytes)")
    try:
        picture = PngImageFile(BytesIO(content))
        scale = PACKED.get(str(picture.tile[0].args), 1)
        problem = too_large(picture.size)
        if not problem:
            picture.load()
    except BROKEN:
        raise PhotoError(
            f"cannot be decoded as PNG ({len(content)} bytes): cut short or another format"
        ) from None
    if problem:
        raise PhotoError(problem)
    return picture, scale


def _colour_problem(colours: Image, palette: Palette | None) -> str:
    try:
        colour_indices(colours, VOC_PALETTE if palette is None else palette)
    except ValueError as error:
        return (
            f"a picture in colour ({error}); save the class indices as palette PNG, or as grey of one channel"
        )
    return (
        "a picture in the palette's colours that has lost the indices; turn it into a palette PNG with "
        "colour_indices and write_palette_png of cd_pipeline.data.palette"
    )


def _refuse_palette(used: npt.NDArray[np.uint8], own: Palette, expected: Palette, void: int | None) -> None:
    for index in used.tolist():
        if index == void or index >= len(expected):
            continue
        if index >= len(own):
            raise PhotoError(f"index {index} is not in the file's own palette of {len(own)} colours")
        if (own[index] != expected[index]).any():
            raise PhotoError(
                f"wrong palette: index {index} has colour {tuple(own[index].tolist())}, expected "
                f"{tuple(expected[index].tolist())}; if its indices are the classes, allow any palette"
            )
