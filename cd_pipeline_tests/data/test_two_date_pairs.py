from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cd_pipeline.data.example import Example
from cd_pipeline.data.files import file_digest
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.samples import Roots, load_masks, load_sample
from cd_pipeline.data.settings import InputSettings
from cd_pipeline.data.two_date import TwoDatePair, scan_two_date
from cd_pipeline.data.two_date_pairs import pair_name, two_date_rows


def mask_of(example: Example, roots: Roots) -> Image:
    ((_, mask),) = load_masks([example], roots)
    return mask


SIZES = {
    "train/a": (100, 70),
    "train/b": (64, 64),
    "val/a": (40, 50),
    "test/a": (100, 70),
    "test/b": (30, 20),
}
"""Width and height of each pair."""
TILES = InputSettings(size=32, fit="tile")
RESIZED = InputSettings(size=32)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two_date")
    rng = np.random.default_rng(3)
    for key, (width, height) in SIZES.items():
        split, name = key.split("/")
        label = np.zeros((height, width), np.uint8)
        label[height - 12 :, :20] = 1  # stored as 0 and 1
        for part in ("A", "B"):
            write_png(root / split / part / f"{name}.png", rng.integers(0, 256, (height, width, 3), np.uint8))
        write_png(root / split / "label" / f"{name}.png", label)
    return root


@pytest.fixture(scope="module")
def found(root: Path) -> list[TwoDatePair]:
    return scan_two_date(root).pairs


def of(rows: list[Pair], key: str) -> list[Pair]:
    split, name = key.split("/")
    return [row for row in rows if row.split == split and row.before == f"source:{split}/A/{name}.png"]


def test_train_and_val_pairs_are_cut_into_a_grid_and_test_pairs_stay_whole(
    root: Path, found: list[TwoDatePair]
) -> None:
    rows = two_date_rows(root, found, TILES)
    # the last tile ends where the picture does; a side shorter than a tile has one
    lefts, tops = [0, 32, 64, 68], [0, 32, 38]
    whole = [{"left": x, "top": y, "width": 32, "height": 32} for y in tops for x in lefts]
    assert [row.crop for row in of(rows, "train/a")] == whole
    assert len(of(rows, "train/b")) == 4
    assert [row.crop for row in of(rows, "val/a")] == [
        {"left": x, "top": y, "width": 32, "height": 32} for y in (0, 18) for x in (0, 8)
    ]
    assert [row.crop for key in ("test/a", "test/b") for row in of(rows, key)] == [None, None]
    assert len(rows) == 12 + 4 + 4 + 2
    assert all(row.tiled for row in rows)


def test_resized_pairs_are_a_row_each(root: Path, found: list[TwoDatePair]) -> None:
    rows = two_date_rows(root, found, RESIZED)
    assert sorted((row.split, row.before) for row in rows) == sorted(
        (pair.split, f"source:{pair.before}") for pair in found
    )
    assert not any(row.tiled or row.crop for row in rows)
    assert all(row.changed for row in rows)


@pytest.mark.parametrize("settings", [TILES, RESIZED])
def test_a_row_is_changed_where_its_part_of_the_label_is(
    root: Path, found: list[TwoDatePair], settings: InputSettings
) -> None:
    rows, roots = two_date_rows(root, found, settings), Roots(root, root)
    for row in rows:
        mask = mask_of(row, roots)
        assert row.changed is bool(mask.any())
        assert set(np.unique(mask)) <= {0, 255}
    if settings.fit == "tile":
        assert {row.changed for row in of(rows, "train/a")} == {True, False}


def test_rows_name_their_files_with_the_hashes_they_must_have(root: Path, found: list[TwoDatePair]) -> None:
    roots = Roots(root, root / "none")
    for row in two_date_rows(root, found, TILES):
        width, height = SIZES[f"{row.split}/{Path(row.before).stem}"]
        assert (row.width, row.height, row.photo, row.plan, row.valid) == (width, height, "", None, None)
        for reference, sha256 in (
            (row.before, row.before_sha256),
            (row.after, row.after_sha256),
            (row.mask, row.mask_sha256),
        ):
            assert file_digest(roots.resolve(str(reference))) == sha256
        crop = row.crop or {"width": width, "height": height}
        assert load_sample(row, roots).mask.shape == (crop["height"], crop["width"])


@pytest.mark.parametrize("settings", [TILES, RESIZED])
def test_names_and_seeds_are_unique_and_rows_ordered_by_split_and_name(
    root: Path, found: list[TwoDatePair], settings: InputSettings
) -> None:
    rows = two_date_rows(root, found, settings)
    assert len({row.pair_id for row in rows}) == len({row.seed for row in rows}) == len(rows)
    assert [(row.split, row.pair_id) for row in rows] == sorted((row.split, row.pair_id) for row in rows)
    assert two_date_rows(root, found[::-1], settings) == rows


def test_pairs_that_cannot_be_used_have_no_row(root: Path, found: list[TwoDatePair]) -> None:
    unused = [replace(pair, reason="junk") if pair.split == "val" else pair for pair in found]
    assert {row.split for row in two_date_rows(root, unused, TILES)} == {"train", "test"}


def test_a_label_that_has_changed_since_it_was_read_is_refused(root: Path, found: list[TwoDatePair]) -> None:
    changed = [replace(found[0], label_sha256="0" * 64)]
    with pytest.raises(ValueError, match=r"label/a\.png: the file has changed; materialize all assets again"):
        two_date_rows(root, changed, TILES)
    with pytest.raises(FileNotFoundError, match=r"gone\.png: the mask is not there"):
        two_date_rows(root, [replace(found[0], label="gone.png")], TILES)


PAIR = TwoDatePair("a", "train", before_sha256="1", after_sha256="2", label_sha256="3")


@given(st.text(max_size=200), st.none() | st.integers(0, 999))
def test_any_name_becomes_a_safe_file_name(name: str, tile: int | None) -> None:
    safe = pair_name(replace(PAIR, name=name), tile)
    assert 1 <= len(safe.encode()) <= 120
    assert not safe.startswith(".")
    assert not set(safe) & set('/\\:*?"<>| \n\r\t\0')
    stem, _, tail = safe.rpartition("__")
    assert stem
    assert len(tail) == (8 if tile is None else 12)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("train_77_0512", "train_77_0512"),
        ("방 사진", "방_사진"),
        ("a/b:c", "a_b_c"),
        ("..", "_"),
        ("", "_"),
        ("방" * 80, "방" * 36),  # three bytes each; 10 are the tail's
        ("tile.v2", "tile.v2"),
    ],
)
def test_odd_names_stay_readable(name: str, stem: str) -> None:
    assert pair_name(replace(PAIR, name=name)).rpartition("__")[0] == stem


def test_every_part_of_a_pair_is_in_its_name() -> None:
    others = [
        replace(PAIR, **{field: "other"})
        for field in ("name", "split", "before_sha256", "after_sha256", "label_sha256")
    ]
    tails = {pair_name(pair).rpartition("__")[2] for pair in [PAIR, *others, replace(PAIR, name="A")]}
    assert len(tails) == 7
    assert pair_name(PAIR, 7) == pair_name(PAIR) + "_007"
