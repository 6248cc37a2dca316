"""The manifest of images with a mask each: one row an image, or one row a tile of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cd_pipeline.data.example import PictureFile
from cd_pipeline.data.files import digest, seed_of
from cd_pipeline.data.manifest import CROP, PLAN_VERSION, each_row, write_rows
from cd_pipeline.data.masked_images import MaskedImage
from cd_pipeline.data.names import safe_name
from cd_pipeline.data.samples import Roots, read_truth
from cd_pipeline.data.settings import InputSettings
from cd_pipeline.data.task import MaskForm
from cd_pipeline.data.tiles import Window, grid

Row = dict[str, Any]

CLASS_PIXELS = pa.list_(pa.struct([("index", pa.int32()), ("pixels", pa.int64())]))

MASKED_IMAGES = pa.schema(
    [
        ("name", pa.string()),
        ("dataset", pa.string()),
        ("image", pa.string()),
        ("mask", pa.string()),
        ("image_sha256", pa.string()),
        ("mask_sha256", pa.string()),
        ("pixels_sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("class_pixels", CLASS_PIXELS),
        ("void_pixels", pa.int64()),
        ("split", pa.string()),
        ("reason", pa.string()),
    ]
)

IMAGES = pa.schema(
    [
        ("image_id", pa.string()),
        ("split", pa.string()),
        ("dataset", pa.string()),
        ("image", pa.string()),
        ("mask", pa.string()),
        ("image_sha256", pa.string()),
        ("mask_sha256", pa.string()),
        ("classes", pa.int32()),
        ("void", pa.int32()),
        ("void_as_class", pa.bool_()),
        ("crop", CROP),
        ("tiled", pa.bool_()),
        ("clahe", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("seed", pa.int64()),
        ("class_pixels", pa.list_(pa.int64())),
    ]
)


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image and its mask, or a tile of them.

    `image` and `mask` are references, the hashes those that the files must have. `classes`, `void` and
    `void_as_class` say how the mask holds its classes, as in `MaskForm`. `crop` is the part of the image that the
    row is, in px (None: all of it); `tiled` says how a network sees it: in tiles at its own scale, or resized.
    `width` and `height` are the whole image's. `class_pixels` counts the pixels of each class that a network
    tells apart, background first; of a binary mask unmarked and marked ones.
    """

    image_id: str
    split: str
    dataset: str
    image: str
    mask: str
    image_sha256: str
    mask_sha256: str
    classes: int
    void: int | None
    void_as_class: bool
    crop: Row | None
    tiled: bool
    clahe: float | None
    width: int
    height: int
    seed: int
    class_pixels: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """As every `Example` has it."""
        return self.image_id

    @property
    def class_name(self) -> str:
        """Its data set."""
        return self.dataset or "all"

    @property
    def pictures(self) -> tuple[PictureFile, ...]:
        """The image."""
        return (PictureFile(self.image, self.image_sha256),)

    @property
    def mask_form(self) -> MaskForm:
        """How the mask holds its classes."""
        return MaskForm(self.classes, self.void, self.void_as_class)

    @property
    def valid(self) -> None:
        """Nothing beside the mask says what counts."""
        return

    @property
    def own_size(self) -> bool:
        """Images are scored at their own size."""
        return True

    @property
    def bits(self) -> int:
        """All bits of 16-bit pictures count."""
        return 16


def image_rows(
    root: Path, images: Iterable[MaskedImage], settings: InputSettings, form: MaskForm
) -> list[LabelledImage]:
    """Return the manifest rows of the usable images, ordered by split and name; their masks are read.

    With `fit: tile`, train and val images are cut into the tiles of a grid, a row each, and test images stay
    whole; with `resize` every image is one row.

    Args:
        root: the data set's folder.
        images: as read from it, with their splits.
        settings: size and fit of the network's input, and CLAHE.
        form: of the masks.

    Raises:
        FileNotFoundError, ValueError: a mask is gone or has changed since it was read.
    """
    roots = Roots(root, root)
    usable = (image for image in images if image.reason is None)
    rows = [row for image in usable for row in _rows(roots, image, settings, form)]
    return sorted(rows, key=lambda row: (row.split, row.image_id))


def write_masked_images(path: Path, images: Iterable[MaskedImage], plan_version: str = "") -> None:
    """Write images as a table with the schema `MASKED_IMAGES`, and the hash of the settings they were found with."""
    rows = (
        {
            **{name: getattr(image, name) for name in MASKED_IMAGES.names},
            "class_pixels": [{"index": index, "pixels": pixels} for index, pixels in image.class_pixels],
        }
        for image in images
    )
    write_rows(path, rows, MASKED_IMAGES.with_metadata({PLAN_VERSION: plan_version}))


def read_masked_images(path: Path) -> list[MaskedImage]:
    """Read a table written by `write_masked_images`."""
    return [
        MaskedImage(
            **{**row, "class_pixels": tuple((item["index"], item["pixels"]) for item in row["class_pixels"])}
        )
        for row in each_row(path, MASKED_IMAGES, MaskedImage)
    ]


def write_labelled_images(path: Path, rows: Iterable[LabelledImage], plan_version: str = "") -> None:
    """Write rows as a table with the schema `IMAGES`, and the hash of the settings they were made with."""
    schema = IMAGES.with_metadata({PLAN_VERSION: plan_version})
    write_rows(path, ({name: getattr(row, name) for name in IMAGES.names} for row in rows), schema)


def read_labelled_images(path: Path, split: str | None = None) -> list[LabelledImage]:
    """Read the rows of a manifest, or those of one split, in the manifest's order."""
    return [
        LabelledImage(**{**row, "class_pixels": tuple(row["class_pixels"])})
        for row in each_row(path, IMAGES, LabelledImage, split)
    ]


def _rows(
    roots: Roots, image: MaskedImage, settings: InputSettings, form: MaskForm
) -> Iterator[LabelledImage]:
    tiled = settings.fit == "tile"
    whole = _row(image, None, None, settings, form)
    mask, valid = read_truth(whole, roots)
    counted = np.ones(mask.shape, bool) if valid is None else valid > 0
    windows: list[Window | None] = [None]
    if tiled and image.split != "test":
        windows = list(grid(image.width, image.height, settings.size))
    for number, window in enumerate(windows):
        part = (slice(None), slice(None)) if window is None else (window.rows, window.columns)
        indices = mask[part] if form.outputs > 1 else mask[part] > 0
        pixels = np.bincount(indices[counted[part]].astype(np.uint8), minlength=max(2, form.outputs))
        row = _row(image, None if window is None else number, window, settings, form)
        yield replace(row, class_pixels=tuple(pixels.tolist()))


def _row(
    image: MaskedImage, number: int | None, window: Window | None, settings: InputSettings, form: MaskForm
) -> LabelledImage:
    content = digest(image.split, image.dataset, image.name, image.image_sha256, image.mask_sha256)
    name = safe_name(image.name, content, number)
    return LabelledImage(
        image_id=name,
        split=image.split,
        dataset=image.dataset,
        image=f"source:{image.image}",
        mask=f"source:{image.mask}",
        image_sha256=image.image_sha256,
        mask_sha256=image.mask_sha256,
        classes=form.classes,
        void=form.void,
        void_as_class=form.void_as_class,
        crop=None if window is None else window._asdict(),
        tiled=settings.fit == "tile",
        clahe=settings.clahe,
        width=image.width,
        height=image.height,
        seed=seed_of(name),
    )
