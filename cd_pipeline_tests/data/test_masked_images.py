import hashlib
import os
import shutil
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from cd_pipeline.data.files import digest
from cd_pipeline.data.images import Image, encode_jpeg, write_png
from cd_pipeline.data.masked_images import (
    MaskedImage,
    MaskedInventory,
    find_data_sets,
    scan_masked_images,
    split_masked_images,
)
from cd_pipeline.data.settings import SplitSettings

CRACKS = SplitSettings(test_share=0.2, train_share=0.88)
NAMES = ["a", "b", "c", "d"]
SEEDS = {"one": 0, "two": 100}


def picture(seed: int, height: int = 20) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, 24, 3), np.uint8)


def binary(seed: int, height: int = 20) -> Image:
    """A mask of 0 and 1; that of seed 0 is empty."""
    mask = np.zeros((height, 24), np.uint8)
    mask[2:8, 3 : 3 + seed % 20] = 1
    return mask


def draw(folder: Path, name: str, seed: int, height: int = 20) -> None:
    write_png(folder / "images" / f"{name}.png", picture(seed, height))
    write_png(folder / "masks" / f"{name}.png", 255 * binary(seed, height))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One data set, directly in the root."""
    root = tmp_path / "flat"
    for seed, name in enumerate(NAMES):
        draw(root, name, seed)
    return root


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Two data sets of the same names and other pictures."""
    root = tmp_path / "several"
    for dataset, first in SEEDS.items():
        for number, name in enumerate(NAMES):
            draw(root / dataset, name, first + number)
    return root


def faults(inventory: MaskedInventory) -> dict[str, str]:
    return {f"{row.dataset}/{row.name}": str(row.reason) for row in inventory.quarantined}


def usable(inventory: MaskedInventory) -> list[str]:
    return [f"{row.dataset}/{row.name}" for row in inventory.usable]


def test_a_row_says_what_its_files_hold(folder: Path) -> None:
    inventory = scan_masked_images(folder)
    assert inventory.quarantined == []
    assert [row.name for row in inventory.images] == NAMES
    for seed, row in enumerate(inventory.images):
        assert (row.dataset, row.image, row.mask) == ("", f"images/{row.name}.png", f"masks/{row.name}.png")
        for path, sha256 in ((row.image, row.image_sha256), (row.mask, row.mask_sha256)):
            assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == sha256
        assert (row.width, row.height, row.split, row.void_pixels) == (24, 20, "", 0)
        assert dict(row.class_pixels) == Counter(binary(seed).ravel().tolist())
        assert row.positive_share == pytest.approx(6 * seed / 480)
    assert [row.classes for row in inventory.images] == [(0,), (0, 1), (0, 1), (0, 1)]


def test_each_folder_with_images_and_masks_is_a_data_set(several: Path) -> None:
    (several / ".cache").mkdir()
    assert find_data_sets(several) == ["one", "two"]
    inventory = scan_masked_images(several)
    assert usable(inventory) == [f"{dataset}/{name}" for dataset in SEEDS for name in NAMES]
    assert {row.image for row in inventory.images} == {f"{d}/images/{n}.png" for d in SEEDS for n in NAMES}


@pytest.mark.parametrize("image_suffix", [".jpg", ".JPEG", ".png", ".bmp", ".webp", ".tif", ".TIFF"])
@pytest.mark.parametrize("mask_suffix", [".png", ".BMP", ".tif", ".tiff"])
def test_images_and_masks_are_matched_across_extensions(
    tmp_path: Path, image_suffix: str, mask_suffix: str
) -> None:
    for part, suffix, pixels in (
        ("images", image_suffix, picture(1)),
        ("masks", mask_suffix, 255 * binary(1)),
    ):
        (tmp_path / part).mkdir()
        Picture.fromarray(pixels).save(tmp_path / part / f"001.v2{suffix}")
    (row,) = scan_masked_images(tmp_path).images
    assert (row.name, row.image, row.mask) == (
        "001.v2",
        f"images/001.v2{image_suffix}",
        f"masks/001.v2{mask_suffix}",
    )
    assert row.class_pixels == ((0, 474), (1, 6))


@pytest.mark.parametrize(
    "stored",
    [
        binary(9),
        255 * binary(9),
        binary(9).astype(np.uint16) * 65535,
        binary(9).astype(bool),
        np.repeat(255 * binary(9)[..., None], 3, axis=2),
    ],
    ids=["0 and 1", "0 and 255", "16 bits", "1 bit", "three equal channels"],
)
def test_binary_masks_of_any_depth_are_0_and_1(folder: Path, stored: Image) -> None:
    Picture.fromarray(stored).save(folder / "masks" / "a.png")
    row = scan_masked_images(folder).images[0]
    assert row.class_pixels == ((0, 480 - 54), (1, 54))


def test_accents_match_however_the_file_system_stores_them(folder: Path) -> None:
    (folder / "images" / "a.png").rename(folder / "images" / unicodedata.normalize("NFD", "균열é.png"))
    (folder / "masks" / "a.png").rename(folder / "masks" / unicodedata.normalize("NFC", "균열é.png"))
    inventory = scan_masked_images(folder)
    assert inventory.quarantined == []
    (row,) = (row for row in inventory.images if row.name == "균열é")
    assert (folder / row.image).is_file()
    assert (folder / row.mask).is_file()


def test_every_faulty_file_is_listed_with_its_reason_and_nothing_vanishes(folder: Path) -> None:
    rng = np.random.default_rng(9)
    faulty = ["classes", "colour", "junk", "no_image", "no_mask", "size", "small", "torn", "twice", "unlink"]
    for number, name in enumerate(faulty):
        draw(folder, name, 50 + number, height=8 if name == "small" else 20)
    write_png(folder / "masks" / "classes.png", rng.permuted(np.arange(480) % 6).reshape(20, 24).astype("u1"))
    write_png(folder / "masks" / "colour.png", picture(7))
    (folder / "images" / "junk.png").write_bytes(b"")
    (folder / "images" / "no_image.png").unlink()
    (folder / "masks" / "no_mask.png").unlink()
    write_png(folder / "masks" / "size.png", binary(1, 21))
    (folder / "masks" / "torn.png").write_bytes(b"junk")
    shutil.copy(folder / "images" / "twice.png", folder / "images" / "twice.bmp")
    (folder / "masks" / "unlink.png").unlink()
    (folder / "masks" / "unlink.png").symlink_to(folder / "nowhere.png")
    draw(folder, "lossy", 70)
    (folder / "masks" / "lossy.png").rename(folder / "masks" / "lossy.jpg")
    (folder / "images" / "film.gif").write_bytes(b"x")
    (folder / "masks" / "deeper").mkdir()
    (folder / "images" / "readme.txt").write_text("x")
    (folder / "images" / "._a.png").write_bytes(b"x")
    calls: list[int] = []
    inventory = scan_masked_images(folder, threads=3, progress=lambda: calls.append(1))
    assert usable(inventory) == [f"/{name}" for name in NAMES]
    found = faults(inventory)
    assert len(calls) == len(inventory.images) == len(NAMES) + len(found)
    assert found.pop("/images/film.gif").startswith("not read; expected one of .bmp, .jpeg, .jpg, .png")
    assert found == {
        "/classes": "masks/classes.png: label values up to 5; expected 0 and 1, or 0 and 255",
        "/colour": "masks/colour.png: label in colour; expected grey values 0 and 1, or 0 and 255",
        "/junk": "images/junk.png: empty file (0 bytes)",
        "/lossy": "not in masks",
        "/masks/deeper": "a folder; pictures must lie directly in masks/",
        "/masks/lossy.jpg": "a mask must not be compressed with loss; save it as PNG",
        "/no_image": "not in images",
        "/no_mask": "not in masks",
        "/size": "masks/size.png: image and mask must be of one size, found 24x20 and 24x21",
        "/small": "images/small.png: 24x8 px; at least 16 px a side are needed",
        "/torn": "masks/torn.png: cannot be decoded as an image (4 bytes)",
        "/twice": "more than one file in images: twice.bmp, twice.png",
        "/unlink": "masks/unlink.png: cannot be read: No such file or directory",
    }


def test_names_that_are_not_text_are_listed(several: Path) -> None:
    shutil.copy(several / "one" / "images" / "a.png", os.fsencode(several / "one" / "images") + b"/\xc0.png")
    shutil.copytree(os.fsencode(several / "two"), os.fsencode(several) + b"/\xc1")
    inventory = scan_masked_images(several)
    assert faults(inventory) == {
        "one/images/\\xc0.png": "the file name is not UTF-8; rename it",
        "\\xc1/": "the folder name is not UTF-8; rename it",
    }
    assert len(inventory.version) == 64


def test_a_folder_beside_the_data_sets_that_is_none_is_listed(several: Path) -> None:
    (several / "three" / "image").mkdir(parents=True)
    draw(several / "four", "a", 300)
    shutil.rmtree(several / "four" / "masks")
    inventory = scan_masked_images(several)
    assert faults(inventory) == {
        "three/": "a folder without images/ and masks/; not read",
        "four/a": "not in masks",
    }


def test_of_the_same_pictures_the_first_is_kept_in_all_data_sets(several: Path) -> None:
    for source, target in (("one/{}/a", "two/{}/z"), ("two/{}/b", "two/{}/aa")):
        for part in ("images", "masks"):
            content = (several / f"{source.format(part)}.png").read_bytes()
            (several / f"{target.format(part)}.png").write_bytes(content + b"\0")
    inventory = scan_masked_images(several)
    assert faults(inventory) == {"two/z": "same picture as one/a", "two/b": "same picture as two/aa"}
    assert len(inventory.images) == 10


def test_the_result_does_not_depend_on_the_number_of_threads(several: Path) -> None:
    (several / "one" / "masks" / "b.png").write_bytes(b"junk")
    first = scan_masked_images(several)
    assert all(scan_masked_images(several, threads=threads) == first for threads in (2, 5))


def test_the_version_depends_on_content_alone(several: Path, tmp_path: Path) -> None:
    first = scan_masked_images(several).version
    elsewhere = Path(shutil.copytree(several, tmp_path / "elsewhere"))
    for path in elsewhere.rglob("*.png"):
        os.utime(path, (1, 1))
    (elsewhere / "readme.txt").write_text("x")
    assert scan_masked_images(elsewhere).version == first
    mask = elsewhere / "one" / "masks" / "a.png"
    mask.write_bytes(mask.read_bytes() + b"\0")
    changed = scan_masked_images(elsewhere).version
    (elsewhere / "one").rename(elsewhere / "other")
    assert len({first, changed, scan_masked_images(elsewhere).version}) == 3


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("", r"flat: no such folder; set the recipe's source folder"),
        ("masks", r"flat: found images; expected images/ and masks/, directly in it or in each of its data"),
    ],
)
def test_a_missing_folder_is_an_error_with_what_is_there(folder: Path, missing: str, message: str) -> None:
    shutil.rmtree(folder / missing)
    with pytest.raises(FileNotFoundError, match=message):
        scan_masked_images(folder)


def test_an_empty_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found nothing; expected images/ and masks/"):
        scan_masked_images(tmp_path)


def test_both_layouts_at_once_are_an_error(folder: Path) -> None:
    draw(folder / "more", "a", 90)
    with pytest.raises(
        ValueError, match=r"found images/ and masks/ beside data set more; move one elsewhere"
    ):
        scan_masked_images(folder)


def test_nothing_usable_is_one_error_with_the_first_reasons(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        path.write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"none of 4 images can be used; a: masks/a\.png: cannot be decoded"):
        scan_masked_images(folder)
    for path in (*(folder / "masks").iterdir(), *(folder / "images").iterdir()):
        path.unlink()
    with pytest.raises(ValueError, match=r"none of 0 images can be used; the folders are empty"):
        scan_masked_images(folder)


def test_the_59_crack_images_are_read_as_pillow_reads_them(real_data: Path) -> None:
    inventory = scan_masked_images(real_data / "cracks", threads=2)
    assert (len(inventory.images), inventory.quarantined) == (59, [])
    for row in inventory.images[:10]:
        with Picture.open(real_data / "cracks" / row.mask) as mask:
            pixels = np.asarray(mask)
        assert set(np.unique(pixels)) == {0, 255}
        assert (row.width, row.height) == mask.size == (480, 320)
        assert row.class_pixels == ((0, int((pixels == 0).sum())), (1, int((pixels == 255).sum())))
    mean = sum(row.positive_share for row in inventory.images) / 59
    assert mean == pytest.approx(0.0172, abs=1e-4)


@pytest.mark.parametrize(
    ("chosen", "exact"), [(CRACKS, True), (SplitSettings(test_share=0.18, train_share=0.88), False)]
)
def test_the_crack_images_are_divided_into_41_6_and_12(
    real_data: Path, chosen: SplitSettings, exact: bool
) -> None:
    rows = split_masked_images(
        scan_masked_images(real_data / "cracks").images, chosen.model_copy(update={"exact": exact})
    )
    assert Counter(row.split for row in rows) == {"train": 41, "val": 6, "test": 12}


def row_of(name: str, dataset: str = "", split: str = "", reason: str | None = None) -> MaskedImage:
    return MaskedImage(
        name,
        dataset,
        f"{dataset}/images/{name}.png",
        f"{dataset}/masks/{name}.png",
        image_sha256=digest("file", dataset, name),
        mask_sha256=digest("mask", dataset, name),
        pixels_sha256=digest("pixels", dataset, name),
        width=24,
        height=20,
        split=split,
        reason=reason,
    )


def rows_of(count: int, dataset: str = "", split: str = "") -> list[MaskedImage]:
    return [row_of(f"{split}{number}", dataset, split) for number in range(count)]


def counts(rows: list[MaskedImage], dataset: str = "") -> tuple[int, ...]:
    found = Counter(row.split for row in rows if row.dataset == dataset)
    return tuple(found[split] for split in ("train", "val", "test"))


def test_an_exact_split_has_the_counts_of_its_shares_in_every_data_set() -> None:
    rows = [*rows_of(59, "one"), *rows_of(10, "two"), *rows_of(200, "three")]
    assigned = split_masked_images(rows, CRACKS.model_copy(update={"exact": True}))
    assert counts(assigned, "one") == (41, 6, 12)
    assert counts(assigned, "two") == (7, 1, 2)
    assert counts(assigned, "three") == (140, 20, 40)
    assert [replace(row, split="") for row in assigned] == rows


def test_the_exact_test_images_are_those_of_the_smallest_hashes() -> None:
    rows = rows_of(100)
    exact, free = (split_masked_images(rows, SplitSettings(exact=exact)) for exact in (True, False))
    inner, outer = ({row.name for row in part if row.split == "test"} for part in (exact, free))
    assert len(inner) == 18
    assert inner <= outer or outer <= inner


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(40)), st.booleans())
def test_the_split_does_not_depend_on_the_order_of_the_rows(order: list[int], exact: bool) -> None:
    rows = [*rows_of(30, "one"), *rows_of(10, "two")]
    expected = split_masked_images(rows, SplitSettings(exact=exact))
    shuffled = split_masked_images([rows[place] for place in order], SplitSettings(exact=exact))
    assert shuffled == [expected[place] for place in order]


@settings(max_examples=20, deadline=None)
@given(st.integers(20, 60), st.integers(0, 60))
def test_no_image_moves_to_or_from_test_as_a_set_grows(count: int, more: int) -> None:
    rows = rows_of(count + more)
    before, after = (split_masked_images(some, SplitSettings()) for some in (rows[:count], rows))
    assert [row.split == "test" for row in before] == [row.split == "test" for row in after[:count]]


def test_another_seed_gives_another_split_of_the_same_counts() -> None:
    first, second = (
        split_masked_images(rows_of(59), CRACKS.model_copy(update={"seed": seed, "exact": True}))
        for seed in (1, 2)
    )
    assert counts(first) == counts(second) == (41, 6, 12)
    assert first != second


def test_rows_that_are_not_usable_stay_as_they_are() -> None:
    bad = [row_of("x", reason="junk"), MaskedImage("", "other", reason="a folder")]
    rows = split_masked_images([*bad, *rows_of(30)], SplitSettings())
    assert rows[:2] == bad
    assert all(row.split for row in rows[2:])


def test_rows_of_one_picture_are_never_divided() -> None:
    rows = rows_of(40)
    twins = [replace(row, name=f"twin{row.name}", image=f"z{row.image}") for row in rows]
    assigned = split_masked_images([*rows, *twins], SplitSettings())
    assert len([row for row in assigned if row.reason is None and row.split]) == 40
    assert {row.reason for row in assigned if not row.split} == {f"same picture as {r.image}" for r in rows}


def test_splits_from_lists_stay() -> None:
    rows = [*rows_of(9, split="train"), *rows_of(4, split="val"), *rows_of(3, split="test")]
    assert split_masked_images(rows, SplitSettings()) == rows


@pytest.mark.parametrize("exact", [True, False])
def test_without_a_list_of_test_it_is_taken_by_hash_and_the_others_stay(exact: bool) -> None:
    rows = [*rows_of(60, split="train"), *rows_of(40, split="val")]
    assigned = split_masked_images(rows, SplitSettings(exact=exact))
    kept = [(new.split, old.split) for new, old in zip(assigned, rows, strict=True) if new.split != "test"]
    assert all(new == old for new, old in kept)
    assert 100 - len(kept) == 18 if exact else 8 <= 100 - len(kept) <= 30


def test_without_a_list_of_val_it_is_taken_from_train() -> None:
    rows = [*rows_of(50, split="train"), *rows_of(7, split="test")]
    assigned = split_masked_images(rows, SplitSettings())
    assert counts(assigned) == (40, 10, 7)
    assert all(new.split == "test" for new in assigned[50:])


def test_an_empty_part_is_an_error_that_names_the_settings() -> None:
    with pytest.raises(ValueError, match=r"every part needs a photo, found train 0, val 1, test 0"):
        split_masked_images(rows_of(1), SplitSettings(exact=True))


def test_a_jpeg_beside_its_png_is_no_duplicate(folder: Path) -> None:
    (folder / "images" / "e.jpg").write_bytes(encode_jpeg(picture(1), 60))
    shutil.copy(folder / "masks" / "b.png", folder / "masks" / "e.png")
    assert scan_masked_images(folder).quarantined == []
