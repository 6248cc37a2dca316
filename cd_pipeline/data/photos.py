"""The reader of labelled photos: every file is either usable or listed with a reason.

Layout: `images/<class>/<stem>.<ext>` beside `labels/<class>/<stem>.txt`, either directly in the root
(a single tree, split three ways) or in `trainval/` and `test/`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cd_pipeline.data.ahead import mapped
from cd_pipeline.data.files import MAX_TEXT_BYTES, bytes_digest, digest, read_regular
from cd_pipeline.data.images import PHOTO_SUFFIXES, PhotoError, decode_photo
from cd_pipeline.data.labels import Box, parse_labels
from cd_pipeline.data.listing import composed, contents, is_folder, one_line, printable, visible_files
from cd_pipeline.data.near_identical import perceptual_hash

TREES = ("trainval", "test")


@dataclass(frozen=True, slots=True)
class Photo:
    """One file found under `images/`.

    `path` and `label_path` are relative to the root, in POSIX form; `sha256` is the file's, and
    `pixels_sha256` that of the decoded picture. `reason` says why the file is not used; None: it is.
    `split` is "" until the split has been made, `perceptual_hash` where there is no picture.
    """

    path: str
    tree: str
    class_name: str
    label_path: str
    sha256: str
    label_sha256: str
    pixels_sha256: str
    width: int
    height: int
    boxes: tuple[Box, ...]
    dropped_labels: tuple[str, ...]
    reason: str | None
    split: str = ""
    perceptual_hash: str = ""


@dataclass(frozen=True, slots=True)
class Inventory:
    """All files of a photo folder, in path order, and the label files that belong to none of them."""

    photos: list[Photo]
    orphan_labels: list[str]

    @property
    def version(self) -> str:
        """Content hash over names, photos and labels; the same for any listing order or file time."""
        rows = [(photo.path, photo.sha256, photo.label_path, photo.label_sha256) for photo in self.photos]
        return digest(*rows)

    @property
    def usable(self) -> list[Photo]:
        """The photos that can be used."""
        return [photo for photo in self.photos if photo.reason is None]

    @property
    def quarantined(self) -> list[Photo]:
        """The files that cannot be used, each with its reason."""
        return [photo for photo in self.photos if photo.reason is not None]


def scan_photos(root: Path, *, threads: int = 1, progress: Callable[[], object] = lambda: None) -> Inventory:
    """Read every photo and label under `root`.

    Args:
        root: folder with `images/` and `labels/`, or with `trainval/` and `test/` that hold them.
        threads: files decoded at a time; the result does not depend on it.
        progress: called once a file.

    Raises:
        FileNotFoundError: the folder is missing or has neither layout.
        ValueError: no photo in it can be used.
    """
    candidates = [found for tree in find_trees(root) for found in _list_photos(root, tree)]

    def read(candidate: Photo) -> Photo:
        photo = read_candidate(root, candidate)
        progress()
        return photo

    photos = sorted(mapped(read, candidates, threads), key=lambda photo: photo.path)
    inventory = Inventory(photos, _orphan_labels(root, photos))
    if not inventory.usable:
        raise ValueError(_nothing_usable(root, inventory))
    return inventory


def find_trees(root: Path) -> tuple[str, ...]:
    """Return the photo trees in `root`: ("trainval", "test") or ("",) for a single tree.

    Raises:
        FileNotFoundError: naming what is there and what was expected.
        ValueError: both layouts at once.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; set the recipe's source folder to your photos")
    if all((root / tree / "images").is_dir() for tree in TREES):
        if (root / "images").is_dir():
            raise ValueError(f"{root}: found images/ beside trainval/ and test/; move one of them elsewhere")
        return TREES
    if (root / "images").is_dir():
        return ("",)
    raise FileNotFoundError(
        f"{root}: found {contents(root)}; expected images/<class>/ and labels/<class>/, "
        "directly in it or inside both trainval/ and test/"
    )


def read_candidate(root: Path, candidate: Photo) -> Photo:
    """Fill in what the files of one photo hold: hashes, size, boxes, or the reason for not using it."""
    if candidate.reason is not None:
        return candidate
    try:
        content = read_regular(root / candidate.path)
    except OSError as error:
        return replace(candidate, reason=f"cannot be read: {error.strerror}")
    photo = replace(candidate, sha256=bytes_digest(content))
    try:
        image = decode_photo(content)
    except PhotoError as error:
        return replace(photo, reason=str(error))
    height, width = image.shape[:2]
    photo = replace(
        photo,
        width=width,
        height=height,
        pixels_sha256=digest(image.shape, image.tobytes()),
        perceptual_hash=perceptual_hash(image),
    )
    return _with_labels(root, photo)


def _with_labels(root: Path, photo: Photo) -> Photo:
    if not photo.label_path:
        expected = PurePosixPath("labels", photo.class_name, PurePosixPath(photo.path).stem + ".txt")
        return replace(photo, reason=f"no label file {one_line(str(PurePosixPath(photo.tree, expected)))}")
    try:
        content = read_regular(root / photo.label_path, MAX_TEXT_BYTES)
    except OSError as error:
        return replace(photo, reason=f"label file cannot be read: {error.strerror}")
    boxes, dropped = parse_labels(content.decode("utf-8-sig", errors="replace"))
    return replace(
        photo, label_sha256=bytes_digest(content), boxes=tuple(boxes), dropped_labels=tuple(dropped)
    )


def _list_photos(root: Path, tree: str) -> Iterator[Photo]:
    images = root / tree / "images"
    labels = {
        _label_key(root / tree / "labels", path): path for path in visible_files(root / tree / "labels")
    }
    for path in visible_files(images):
        inner = path.relative_to(images)
        class_name = composed(printable(inner.parts[0])) if len(inner.parts) > 1 else ""
        label = labels.get(composed(str(inner.with_suffix("")))) if path.suffix else None
        yield Photo(
            path=printable(path.relative_to(root).as_posix()),
            tree=tree,
            class_name=class_name,
            label_path=printable(label.relative_to(root).as_posix()) if label else "",
            sha256="",
            label_sha256="",
            pixels_sha256="",
            width=0,
            height=0,
            boxes=(),
            dropped_labels=(),
            reason=_layout_fault(path, inner),
        )


def _layout_fault(path: Path, inner: Path) -> str | None:
    if printable(str(inner)) != str(inner):
        return "the name is not UTF-8 text; rename the file"
    if is_folder(path):
        return (
            "a folder that is not looked into: it cannot be read, is too deep, or a link below a class folder"
        )
    if inner.suffix.lower() not in PHOTO_SUFFIXES:
        return f"unsupported file type {one_line(inner.suffix) or '(none)'}; use {', '.join(sorted(PHOTO_SUFFIXES))}"
    if len(inner.parts) != 2:
        return "not directly in a class folder; expected images/<class>/<photo>"
    return None


def _label_key(labels: Path, path: Path) -> str:
    return composed(str(path.relative_to(labels).with_suffix(""))) if path.suffix.lower() == ".txt" else ""


def _orphan_labels(root: Path, photos: list[Photo]) -> list[str]:
    used = {photo.label_path for photo in photos}
    trees = {photo.tree for photo in photos}
    found = (
        printable(path.relative_to(root).as_posix())
        for tree in trees
        for path in visible_files(root / tree / "labels")
    )
    return sorted(path for path in found if path not in used)


def _nothing_usable(root: Path, inventory: Inventory) -> str:
    if not inventory.photos:
        return f"{root}: no photos in images/<class>/; add {', '.join(sorted(PHOTO_SUFFIXES))} files"
    first = inventory.photos[0]
    return (
        f"{root}: none of {len(inventory.photos)} files can be used; "
        f"the first: {one_line(first.path)}: {first.reason}"
    )
