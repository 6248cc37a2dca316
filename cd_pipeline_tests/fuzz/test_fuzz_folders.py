"""Folders of hostile names, links, pipes and endless devices: every file is used or listed with a reason."""

import os
import random
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cd_pipeline.data.files import MAX_BYTES, MAX_TEXT_BYTES
from cd_pipeline.data.image_manifest import read_masked_images, write_masked_images
from cd_pipeline.data.images import encode_png
from cd_pipeline.data.manifest import read_photos, read_two_date, write_photos, write_two_date
from cd_pipeline.data.masked_images import scan_masked_images
from cd_pipeline.data.names import NAME_BYTES, safe_name
from cd_pipeline.data.palette import VOC_PALETTE, encode_palette_png
from cd_pipeline.data.photos import scan_photos
from cd_pipeline.data.two_date import scan_two_date
from cd_pipeline.data.voc import scan_voc
from cd_pipeline_tests.fuzz.mutations import assert_one_line, names, outcomes

Writer = Callable[[str, int], None]


def place(path: Path, content: bytes | str) -> bool:
    """Write a file if the file system can hold its name."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except (OSError, ValueError):
        return False
    return True


def picture(seed: int) -> bytes:
    return encode_png(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8))


def label(seed: int) -> bytes:
    return encode_png(np.where(np.random.default_rng(seed).random((16, 16)) < 0.5, 255, 0).astype(np.uint8))


def indices(seed: int) -> bytes:
    return encode_palette_png(np.random.default_rng(seed).integers(0, 3, (16, 16), np.uint8), VOC_PALETTE)


def as_photos(root: Path) -> Writer:
    def write(name: str, seed: int) -> None:
        place(root / "images" / "a" / f"{name}.png", picture(seed))
        place(root / "labels" / "a" / f"{name}.txt", "0 .5 .5 .5 .5\n")

    return write


def as_pairs(root: Path) -> Writer:
    for seed, split in ((1, "val"), (4, "test")):
        for part, content in (("A", picture(seed)), ("B", picture(seed + 1)), ("label", label(seed))):
            place(root / split / part / f"{split}.png", content)

    def write(name: str, seed: int) -> None:
        for part, content in (("A", picture(seed)), ("B", picture(seed + 1)), ("label", label(seed))):
            place(root / "train" / part / f"{name}.png", content)

    return write


def as_images(root: Path) -> Writer:
    def write(name: str, seed: int) -> None:
        place(root / "images" / f"{name}.png", picture(seed))
        place(root / "masks" / f"{name}.png", label(seed))

    return write


def as_voc(root: Path) -> Writer:
    def write(name: str, seed: int) -> None:
        place(root / "JPEGImages" / f"{name}.png", picture(seed))
        place(root / "SegmentationClass" / f"{name}.png", indices(seed))

    return write


def check_reasons(root: Path, reasons: Iterable[str | None]) -> None:
    for reason in reasons:
        if reason is not None:
            assert_one_line(reason, str(root))


def check_photos(root: Path, table: Path) -> int:
    inventory = scan_photos(root)
    write_photos(table, inventory.photos)
    assert read_photos(table) == inventory.photos
    check_reasons(root, (photo.reason for photo in inventory.photos))
    return len(inventory.usable)


def check_pairs(root: Path, table: Path) -> int:
    inventory = scan_two_date(root)
    write_two_date(table, inventory.pairs)
    assert read_two_date(table) == inventory.pairs
    check_reasons(root, (pair.reason for pair in inventory.pairs))
    return len(inventory.usable)


def check_images(root: Path, table: Path) -> int:
    inventory = scan_voc(root) if (root / "JPEGImages").is_dir() else scan_masked_images(root)
    write_masked_images(table, inventory.images)
    assert read_masked_images(table) == inventory.images
    check_reasons(root, (image.reason for image in inventory.images))
    return len(inventory.usable)


READERS = {
    "photos": (as_photos, check_photos, "images/a/{}.png"),
    "pairs": (as_pairs, check_pairs, "train/B/{}.png"),
    "images": (as_images, check_images, "masks/{}.png"),
    "voc": (as_voc, check_images, "JPEGImages/{}.png"),
}


@pytest.mark.parametrize("folders", [3, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", READERS)
def test_files_of_hostile_names_are_used_or_listed(tmp_path: Path, kind: str, folders: int) -> None:
    layout, check, _ = READERS[kind]
    for number in range(folders):
        root = tmp_path / str(number)
        write = layout(root)
        write("good", 7)
        for seed, name in enumerate(names(12, seed=number)):
            write(name.replace("..", "_.."), 100 * number + 2 * seed + 10)
        assert check(root, root / "table.parquet") >= 1


def make_pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/zero")


def make_linked_pipe(path: Path, outside: Path) -> None:
    os.mkfifo(outside / "pipe")
    path.symlink_to(outside / "pipe")


def make_loop(path: Path, outside: Path) -> None:
    path.symlink_to(path.name)


def make_endless(path: Path, outside: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_pipe, "no regular file"),
        (make_linked_pipe, "no regular file"),
        (make_device, "no regular file"),
        (make_loop, "symbolic link"),
        (make_endless, "4294967297 bytes, at most 4294967296 are read"),
    ],
)
def test_what_never_ends_is_listed_and_not_read(
    tmp_path: Path, kind: str, make: Callable[[Path, Path], None], reason: str
) -> None:
    layout, check, where = READERS[kind]
    root = tmp_path / "root"
    write = layout(root)
    write("good", 7)
    write("trap", 20)
    (tmp_path / "outside").mkdir()
    trap = root / where.format("trap")
    trap.unlink()
    make(trap, tmp_path / "outside")
    assert check(root, tmp_path / "table.parquet") == (3 if kind == "pairs" else 1)
    table = {"photos": read_photos, "pairs": read_two_date}.get(kind, read_masked_images)
    assert [reason in str(row.reason) for row in table(tmp_path / "table.parquet") if row.reason] == [True]


def test_a_label_file_of_gigabytes_is_a_reason(tmp_path: Path) -> None:
    as_photos(tmp_path)("good", 7)
    as_photos(tmp_path)("large", 8)
    with (tmp_path / "labels" / "a" / "large.txt").open("wb") as stream:
        stream.truncate(1 << 40)
    (listed,) = scan_photos(tmp_path).quarantined
    assert listed.reason == (f"label file cannot be read: {1 << 40} bytes, at most {MAX_TEXT_BYTES} are read")


def test_links_that_double_the_paths_at_every_level_are_not_followed(tmp_path: Path) -> None:
    as_photos(tmp_path)("good", 7)
    folders = [tmp_path / "images" / "a", *(tmp_path / "chain" / str(number) for number in range(40))]
    for folder in folders[1:]:
        folder.mkdir(parents=True)
    for folder, following in pairwise(folders):
        for name in ("x", "y"):
            (folder / name).symlink_to(following)
    inventory = scan_photos(tmp_path)
    assert [photo.path for photo in inventory.usable] == ["images/a/good.png"]
    assert {photo.path for photo in inventory.quarantined} == {"images/a/x", "images/a/y"}
    assert all("a folder that is not looked into" in str(photo.reason) for photo in inventory.quarantined)


def test_a_tree_is_found_once_whatever_the_number_of_links_that_lead_to_it(tmp_path: Path) -> None:
    as_voc(tmp_path / "one" / "two")("good", 7)
    for number in range(300):
        (tmp_path / "one" / f"z{number}").symlink_to(tmp_path / "one")
    inventory = scan_voc(tmp_path)
    assert [image.dataset for image in inventory.usable] == ["one/two"]


def test_folders_in_folders_beyond_any_path_are_listed(tmp_path: Path) -> None:
    as_photos(tmp_path)("good", 7)
    deep = tmp_path / "images" / "a" / "/".join("d" for _ in range(400))
    place(deep / "lost.png", picture(8))
    (listed,) = scan_photos(tmp_path).quarantined
    assert "too deep" in str(listed.reason)


@pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_every_name_becomes_one_that_every_file_system_holds(count: int) -> None:
    rng = random.Random(count)

    def name(content: bytes) -> None:
        made = safe_name(content.decode(errors="surrogateescape"), "0123456789abcdef", rng.choice((None, 7)))
        assert len(made.encode()) <= NAME_BYTES
        assert made not in (".", "..") and not made.startswith((".", "-."))
        assert not set(made) & set('/\\:*?"<>|\0\n\r\t')

    stems = (stem.encode(errors="surrogateescape") for stem in names(count, seed=count))
    assert outcomes(name, stems, ValueError)["refused"] == 0
