"""The reader of images with a mask each: `images/` and `masks/`, files matched by stem.

The two folders lie directly in the root, or in each of several data sets: `<dataset>/{images,masks}/`. Masks
are binary. Every picture is either part of a usable row or listed with a reason.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cd_pipeline.data.ahead import mapped
from cd_pipeline.data.files import bytes_digest, digest, read_regular
from cd_pipeline.data.images import Image, PhotoError, decode_label, decode_photo
from cd_pipeline.data.listing import contents, match_files, one_line, printable, require_source
from cd_pipeline.data.photos import Photo
from cd_pipeline.data.same_pictures import in_several_splits, with_kept
from cd_pipeline.data.settings import SplitSettings
from cd_pipeline.data.split import assign_splits

PARTS = ("images", "masks")


@dataclass(frozen=True, slots=True)
class MaskedImage:
    """One image with its mask, as found.

    `dataset` is its data set's folder, "" for the root; `image` and `mask` are relative to the root, in POSIX
    form. The hashes are of the files' bytes and of the decoded picture. `class_pixels` pairs each index in
    the mask with its count of pixels, void left out; in a binary mask 1 is positive. `split` is "" until it
    is known. `reason` says why the row is not used; None: it is.
    """

    name: str
    dataset: str
    image: str = ""
    mask: str = ""
    image_sha256: str = ""
    mask_sha256: str = ""
    pixels_sha256: str = ""
    width: int = 0
    height: int = 0
    class_pixels: tuple[tuple[int, int], ...] = ()
    void_pixels: int = 0
    split: str = ""
    reason: str | None = None

    @property
    def classes(self) -> tuple[int, ...]:
        """The indices in the mask, ascending, without void."""
        return tuple(index for index, _ in self.class_pixels)

    @property
    def positive_share(self) -> float:
        """The share of pixels of a class other than 0."""
        return sum(pixels for index, pixels in self.class_pixels if index) / max(self.width * self.height, 1)


@dataclass(frozen=True, slots=True)
class MaskedInventory:
    """All rows of a source, by data set, name and split."""

    images: list[MaskedImage]

    @property
    def version(self) -> str:
        """Content hash; the same for any listing order or file time."""
        return digest(*((i.dataset, i.split, i.name, i.image_sha256, i.mask_sha256) for i in self.images))

    @property
    def usable(self) -> list[MaskedImage]:
        """The images that can be used."""
        return [image for image in self.images if image.reason is None]

    @property
    def quarantined(self) -> list[MaskedImage]:
        """What cannot be used, each with its reason."""
        return [image for image in self.images if image.reason is not None]


def scan_masked_images(
    root: Path, *, threads: int = 1, progress: Callable[[], object] = lambda: None
) -> MaskedInventory:
    """Read every image and its binary mask: 0/1, 0/255 or 0/65535.

    Args:
        root: holds `images/` and `masks/`, or data sets that do.
        threads: images decoded at a time; the result does not depend on it.
        progress: called once a row.

    Raises:
        FileNotFoundError: the folder is missing or has neither layout.
        ValueError: both layouts at once, or no image can be used.
    """
    candidates: list[MaskedImage] = []
    for dataset in find_data_sets(root):
        candidates += list_images(root, dataset, PARTS)
    return read_images(root, candidates, _binary_indices, threads=threads, progress=progress)


def find_data_sets(root: Path) -> list[str]:
    """Return the names of the data sets in `root`, sorted; [""] when its own folders are the only ones.

    Every folder counts that is not hidden: one without images or masks is worth a reason.

    Raises:
        FileNotFoundError: naming what is there and what was expected.
        ValueError: both layouts at once.
    """
    require_source(root, "images")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    inner = [path.name for path in folders if all((path / part).is_dir() for part in PARTS)]
    if all((root / part).is_dir() for part in PARTS):
        if inner:
            raise ValueError(
                f"{root}: found images/ and masks/ beside data set {one_line(inner[0])}; move one elsewhere"
            )
        return [""]
    if not inner:
        raise FileNotFoundError(
            f"{root}: found {contents(root)}; expected images/ and masks/, "
            "directly in it or in each of its data sets"
        )
    return [path.name for path in folders]


def list_images(root: Path, dataset: str, parts: tuple[str, str]) -> list[MaskedImage]:
    """List the images of a data set, unread, and each file that belongs to none of them with a reason.

    Args:
        root: the source.
        dataset: a folder in it, "" for the root itself.
        parts: names of the folder of images and of that of masks.
    """
    folder, shown = root / dataset, printable(dataset)
    if shown != dataset:
        return [MaskedImage("", shown, reason="the folder name is not UTF-8; rename it")]
    if not any((folder / part).is_dir() for part in parts):
        return [MaskedImage("", shown, reason=f"a folder without {parts[0]}/ and {parts[1]}/; not read")]
    matches, faults = match_files(folder, parts, truth="mask")
    rows = [MaskedImage(name, shown, reason=reason) for name, reason in faults]
    for match in matches:
        image, mask = (path[0].relative_to(root).as_posix() if path else "" for path in match.files)
        rows.append(MaskedImage(match.name, shown, image, mask, reason=match.problem or None))
    return rows


def read_images(
    root: Path,
    candidates: Sequence[MaskedImage],
    decode_mask: Callable[[bytes], Image],
    *,
    void: int | None = None,
    threads: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> MaskedInventory:
    """Fill in what the files of each row hold, or the reason for not using it.

    Of images with the same pixels one is kept: that of test, then of val, then the first by name.

    Args:
        root: the source.
        candidates: as listed; those with a reason are left as they are.
        decode_mask: from a file's bytes to indices, HW uint8; raises PhotoError.
        void: the index that is no class.
        threads: images decoded at a time.
        progress: called once a row.

    Raises:
        ValueError: no image can be used.
    """

    def read(candidate: MaskedImage) -> MaskedImage:
        found = candidate if candidate.reason else _read_candidate(root, candidate, decode_mask, void)
        progress()
        return found

    inventory = MaskedInventory(_without_duplicates(list(mapped(read, candidates, threads))))
    if not inventory.usable:
        shown = "; ".join(f"{label_of(row)}: {row.reason}" for row in inventory.quarantined[:3])
        raise ValueError(
            f"{root}: none of {len(inventory.images)} images can be used; {shown or 'the folders are empty'}"
        )
    return inventory


def split_masked_images(rows: Sequence[MaskedImage], settings: SplitSettings) -> list[MaskedImage]:
    """Give every usable row its split by the hash of its image file, within each data set.

    The rules are those of `assign_splits`. An image is in test when its hash falls under the test share: it
    never moves as the set grows, and the count is near the share, not exact. With `settings.exact`, the images of a
    data set are ranked by the same hash and the first round(test_share * n) are test: the count is sure, but
    images near the limit can move as the set grows. Splits from lists stay; a part that no list gives is
    taken by these rules, test from all listed images and val from those of train.

    Args:
        rows: usable or not.
        settings: shares, seed, and whether test has an exact count.

    Returns:
        All rows in their order; those that are not usable have no new split.

    Raises:
        ValueError: a split would be empty.
    """
    datasets: dict[str, list[MaskedImage]] = defaultdict(list)
    for row in rows:
        if row.reason is None:
            datasets[row.dataset].append(row)
    photos: list[Photo] = []
    for members in datasets.values():
        trees = _trees(members, settings)
        photos += [_as_photo(row, tree) for row, tree in zip(members, trees, strict=True)]
    assigned = {photo.path: photo for photo in assign_splits(photos, settings)}
    listed = {dataset: {row.split for row in members} for dataset, members in datasets.items()}
    return [row if row.reason else _with_split(row, assigned[row.image], listed[row.dataset]) for row in rows]


def leaking_images(images: Sequence[MaskedImage]) -> list[list[str]]:
    """Return the images, by their paths, whose pixels are in more than one split."""
    return in_several_splits(
        (row.pixels_sha256, row.split, row.image) for row in images if row.reason is None
    )


def label_of(row: MaskedImage) -> str:
    """Name a row for a message: split, data set and name, as far as it has them."""
    return "/".join(one_line(part) for part in (row.split, row.dataset, row.name) if part)


def _binary_indices(content: bytes) -> Image:
    return (decode_label(content) > 0).astype(np.uint8)


def _read_candidate(
    root: Path, row: MaskedImage, decode_mask: Callable[[bytes], Image], void: int | None
) -> MaskedImage:
    paths, contents, decoded = (row.image, row.mask), [], []
    for path in paths:
        try:
            contents.append(read_regular(root / path))
        except OSError as error:
            return replace(row, reason=f"{one_line(path)}: cannot be read: {error.strerror}")
    row = replace(row, image_sha256=bytes_digest(contents[0]), mask_sha256=bytes_digest(contents[1]))
    for path, decode, content in zip(paths, (decode_photo, decode_mask), contents, strict=True):
        try:
            decoded.append(decode(content))
        except PhotoError as error:
            return replace(row, reason=f"{one_line(path)}: {error}")
    image, mask = decoded
    height, width = image.shape[:2]
    row = replace(row, width=width, height=height, pixels_sha256=digest(image.shape, image.tobytes()))
    if mask.shape != (height, width):
        sizes = f"{width}x{height} and {mask.shape[1]}x{mask.shape[0]}"
        return replace(row, reason=f"{one_line(row.mask)}: image and mask must be of one size, found {sizes}")
    counts = [int(count) for count in np.bincount(mask.ravel())]
    present = tuple((index, count) for index, count in enumerate(counts) if count and index != void)
    return replace(row, class_pixels=present, void_pixels=mask.size - sum(count for _, count in present))


def _without_duplicates(rows: Sequence[MaskedImage]) -> list[MaskedImage]:
    result = (
        row if kept is row else replace(row, reason=f"same picture as {label_of(kept)}")
        for row, kept in with_kept(rows, lambda row: row.pixels_sha256, lambda row: (row.dataset, row.name))
    )
    return sorted(result, key=lambda row: (row.dataset, row.name, row.split))


def _trees(members: Sequence[MaskedImage], settings: SplitSettings) -> Iterator[str]:
    # what assign_splits divides by: a folder of its own for test, or "" for each image's own hash
    test = {row.image for row in members if row.split == "test"}
    if not test and not settings.exact:
        yield from ("" for _ in members)
        return
    if not test:
        ranked = sorted(members, key=lambda row: digest(settings.seed, "test", row.image_sha256))
        test = {row.image for row in ranked[: int(settings.test_share * len(ranked) + 0.5)]}
    yield from ("test" if row.image in test else "trainval" for row in members)


def _as_photo(row: MaskedImage, tree: str) -> Photo:
    return Photo(
        path=row.image,
        tree=tree,
        class_name=row.dataset,
        label_path=row.mask,
        sha256=row.image_sha256,
        label_sha256=row.mask_sha256,
        pixels_sha256=row.pixels_sha256,
        width=row.width,
        height=row.height,
        boxes=(),
        dropped_labels=(),
        reason=None,
    )


def _with_split(row: MaskedImage, photo: Photo, listed: set[str]) -> MaskedImage:
    stays = photo.split != "test" and {"train", "val"} <= listed
    return replace(row, split=row.split if stays else photo.split, reason=photo.reason)
