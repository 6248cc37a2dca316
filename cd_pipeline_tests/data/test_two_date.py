import hashlib
import os
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.two_date import TwoDateInventory, leaking_pictures, scan_pair_folder, scan_two_date


def write(folder: Path, part: str, name: str, image: Image) -> None:
    write_png(folder / part / name, image)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.png"):
        write(tmp_path, "A", name, rng.integers(0, 256, (20, 24, 3), np.uint8))
        write(tmp_path, "B", name, rng.integers(0, 256, (20, 24, 3), np.uint8))
        write(tmp_path, "label", name, 255 * rng.integers(0, 2, (20, 24)).astype(np.uint8))
    return tmp_path


def test_files_are_paired_by_name_in_the_order_of_their_names(folder: Path) -> None:
    found = scan_pair_folder(folder)
    assert [pair.name for pair in found.pairs] == ["a", "b"]
    assert found.problems == []
    assert {
        path.parent.name for path in (found.pairs[0].before, found.pairs[0].after, found.pairs[0].label)
    } == {
        "A",
        "B",
        "label",
    }


def test_labels_are_read_as_0_and_255(folder: Path) -> None:
    import cv2

    (first, _) = scan_pair_folder(folder).pairs
    stored = cv2.imread(str(folder / "label" / "a.png"), cv2.IMREAD_GRAYSCALE)
    assert stored is not None
    np.testing.assert_array_equal(first.read()[2], stored)


def test_a_file_without_its_partners_is_named_and_left_out(folder: Path) -> None:
    (folder / "B" / "a.png").unlink()
    (folder / "label" / "a.png").unlink()
    found = scan_pair_folder(folder)
    assert [pair.name for pair in found.pairs] == ["b"]
    assert found.problems == ["a: not in B, label"]


def test_two_files_of_one_name_are_ambiguous(folder: Path) -> None:
    write(folder, "A", "a.bmp.png", np.zeros((20, 24, 3), np.uint8))
    (folder / "A" / "a.bmp.png").rename(folder / "A" / "a.bmp")
    found = scan_pair_folder(folder)
    assert found.problems == ["a: more than one file in A: a.bmp, a.png"]


def test_a_picture_of_a_format_that_is_not_read_is_named(folder: Path) -> None:
    (folder / "B" / "c.gif").write_bytes(b"x")
    (problem,) = scan_pair_folder(folder).problems
    assert problem.startswith("B/c.gif: not read; expected one of .bmp, .jpeg, .jpg, .png")


def test_a_label_compressed_with_loss_is_not_taken_for_truth(folder: Path) -> None:
    (folder / "label" / "b.png").rename(folder / "label" / "b.jpg")
    found = scan_pair_folder(folder)
    assert [pair.name for pair in found.pairs] == ["a"]
    lossy, unpaired = found.problems
    assert lossy == "label/b.jpg: a label must not be compressed with loss; save it as PNG"
    assert unpaired == "b: not in label"


def test_a_label_that_cannot_be_read_is_named_with_what_to_do(folder: Path) -> None:
    (folder / "label" / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"label/a\.png: cannot be decoded as an image"):
        scan_pair_folder(folder).pairs[0].read()


def test_other_files_are_not_looked_at(folder: Path) -> None:
    (folder / "A" / "readme.txt").write_text("x")
    (folder / "label" / ".hidden.png").write_bytes(b"x")
    assert scan_pair_folder(folder).problems == []


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"A: no such folder; pairs lie in A/, B/ and label/"):
        scan_pair_folder(tmp_path)


def test_a_folder_without_a_pair_is_an_error(folder: Path) -> None:
    for path in (folder / "B").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"no file name is in all of A/, B/ and label/; a: not in B"):
        scan_pair_folder(folder)


def test_pictures_of_different_sizes_are_an_error_that_gives_them(folder: Path) -> None:
    write(folder, "B", "a.png", np.zeros((30, 24, 3), np.uint8))
    first, second = scan_pair_folder(folder).pairs
    with pytest.raises(
        ValueError, match=r"a\.png: A, B and label must be of one size, found 24x20, 24x30, 24x20"
    ):
        first.read()
    assert second.read()[2].shape == (20, 24)


PARTS = ("A", "B", "label")
NAMES = {"train": ["t1", "t2", "t3"], "val": ["v1", "v2"], "test": ["x1", "x2"]}


def draw(folder: Path, name: str, seed: int, height: int = 20) -> None:
    """Write a pair whose pictures depend on the seed alone; the odd seeds are changed."""
    rng = np.random.default_rng(seed)
    for part in PARTS[:2]:
        write(folder, part, f"{name}.png", rng.integers(0, 256, (height, 24, 3), np.uint8))
    label = np.zeros((height, 24), np.uint8)
    label[2:8, 3 : 3 + 4 * (seed % 2)] = 255
    write(folder, "label", f"{name}.png", label)


@pytest.fixture(scope="module")
def divided_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("divided")
    members = [(split, name) for split, listed in NAMES.items() for name in listed]
    for number, (split, name) in enumerate(members):
        draw(root / split, name, number)
    return root


@pytest.fixture
def divided(divided_once: Path, tmp_path: Path) -> Path:
    """Pairs in {train,val,test}/{A,B,label}."""
    return Path(shutil.copytree(divided_once, tmp_path / "divided"))


def list_names(root: Path, **names: list[str]) -> None:
    for split, content in {**NAMES, **names}.items():
        path = root / "list" / f"{split}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in content), encoding="utf-8")


@pytest.fixture
def listed(divided_once: Path, tmp_path: Path) -> Path:
    """The same pairs in {A,B,label}, divided by list/{train,val,test}.txt."""
    root = tmp_path / "listed"
    for split in NAMES:
        shutil.copytree(divided_once / split, root, dirs_exist_ok=True)
    list_names(root)
    return root


def faults(inventory: TwoDateInventory) -> dict[str, str]:
    return {f"{pair.split}/{pair.name}": str(pair.reason) for pair in inventory.quarantined}


def names(inventory: TwoDateInventory) -> dict[str, list[str]]:
    return {split: [p.name for p in inventory.usable if p.split == split] for split in NAMES}


def test_a_divided_folder_is_read_by_its_splits(divided: Path) -> None:
    inventory = scan_two_date(divided)
    assert inventory.quarantined == []
    assert names(inventory) == NAMES
    assert [(p.split, p.name) for p in inventory.pairs] == sorted((p.split, p.name) for p in inventory.pairs)
    for pair in inventory.pairs:
        assert (pair.before, pair.after, pair.label) == tuple(
            f"{pair.split}/{part}/{pair.name}.png" for part in PARTS
        )
        for path, sha256 in (
            (pair.before, pair.before_sha256),
            (pair.after, pair.after_sha256),
            (pair.label, pair.label_sha256),
        ):
            assert hashlib.sha256((divided / path).read_bytes()).hexdigest() == sha256
        assert (pair.width, pair.height) == (24, 20)
    shares = {pair.name: pair.changed_share for pair in inventory.pairs}
    assert shares["t1"] == 0
    assert shares["t2"] == pytest.approx(6 * 4 / (20 * 24))


def test_a_listed_folder_is_read_by_its_lists(listed: Path, divided: Path) -> None:
    inventory = scan_two_date(listed)
    assert inventory.quarantined == []
    assert names(inventory) == NAMES
    assert {pair.before for pair in inventory.pairs} == {f"A/{n}.png" for s in NAMES.values() for n in s}
    assert inventory.version == scan_two_date(divided).version


@pytest.mark.parametrize("form", ["{}", "{}.png", "  {}.PNG \r", "{}.tif\n"])
def test_a_list_may_have_extensions_spaces_and_blank_lines(listed: Path, form: str) -> None:
    path = listed / "list" / "train.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(form.format(name) for name in NAMES["train"]).encode())
    assert names(scan_two_date(listed)) == NAMES


def test_a_name_with_a_dot_is_no_extension(listed: Path) -> None:
    draw(listed, "tile.v2", 50)
    list_names(listed, val=["v1", "v2", "tile.v2"])
    assert "tile.v2" in names(scan_two_date(listed))["val"]


def test_accents_match_however_the_file_system_stores_them(listed: Path) -> None:
    decomposed, name = (unicodedata.normalize(form, "방é") for form in ("NFD", "NFC"))
    draw(listed, name, 50)
    (listed / "A" / f"{name}.png").rename(listed / "A" / f"{decomposed}.png")
    list_names(listed, val=["v1", "v2", decomposed])
    inventory = scan_two_date(listed)
    assert inventory.quarantined == []
    (pair,) = (pair for pair in inventory.pairs if pair.name == name)
    assert (pair.split, pair.before) == ("val", f"A/{decomposed}.png")


def test_names_that_are_not_text_are_listed(divided: Path) -> None:
    shutil.copy(divided / "val" / "A" / "v1.png", os.fsencode(divided / "val" / "A") + b"/\xc0.png")
    assert faults(scan_two_date(divided)) == {"val/A/\\xc0.png": "the file name is not UTF-8; rename it"}


def test_the_real_tiles_are_all_usable(real_data: Path) -> None:
    inventory = scan_two_date(real_data / "levir", threads=2)
    assert inventory.quarantined == []
    assert {split: len(found) for split, found in names(inventory).items()} == {
        "train": 6,
        "val": 2,
        "test": 3,
    }
    assert {(pair.width, pair.height) for pair in inventory.pairs} == {(256, 256)}


def damage(folder: Path, part: str, name: str, content: bytes) -> None:
    (folder / part / f"{name}.png").write_bytes(content)


def test_every_faulty_file_is_listed_with_its_reason_and_nothing_vanishes(divided: Path) -> None:
    train = divided / "train"
    rng = np.random.default_rng(9)
    faulty = ["colour", "classes", "junk_a", "junk_b", "junk_label", "partner", "sizes", "small", "twice"]
    for number, name in enumerate(faulty):
        draw(train, name, 100 + number)
    write(train, "label", "classes.png", rng.permuted(np.arange(480) % 6).reshape(20, 24).astype(np.uint8))
    write(train, "label", "colour.png", rng.integers(0, 256, (20, 24, 3), np.uint8))
    damage(train, "A", "junk_a", b"")
    damage(train, "B", "junk_b", b"junk")
    damage(train, "label", "junk_label", b"junk")
    (train / "B" / "partner.png").unlink()
    (train / "label" / "partner.png").unlink()
    write(train, "B", "sizes.png", rng.integers(0, 256, (21, 24, 3), np.uint8))
    draw(train, "small", 120, height=8)
    shutil.copy(train / "A" / "twice.png", train / "A" / "twice.bmp")
    (train / "B" / "film.gif").write_bytes(b"x")
    (train / "label" / "lossy.jpg").write_bytes(b"x")
    inventory = scan_two_date(divided, threads=3)
    assert names(inventory) == NAMES
    found = faults(inventory)
    assert found.pop("train/B/film.gif").startswith("not read; expected one of .bmp, .jpeg, .jpg, .png")
    assert found == {
        "train/classes": "label: label values up to 5; expected 0 and 1, or 0 and 255",
        "train/colour": "label: label in colour; expected grey values 0 and 1, or 0 and 255",
        "train/junk_a": "A: empty file (0 bytes)",
        "train/junk_b": "B: cannot be decoded as an image (4 bytes): cut short or another format",
        "train/junk_label": "label: cannot be decoded as an image (4 bytes)",
        "train/label/lossy.jpg": "a label must not be compressed with loss; save it as PNG",
        "train/partner": "not in B, label",
        "train/sizes": "A, B and label must be of one size, found 24x20, 24x21, 24x20",
        "train/small": "A: 24x8 px; at least 16 px a side are needed",
        "train/twice": "more than one file in A: twice.bmp, twice.png",
    }


def test_a_file_that_cannot_be_opened_is_listed(divided: Path) -> None:
    draw(divided / "val", "gone", 60)
    (divided / "val" / "B" / "gone.png").unlink()
    (divided / "val" / "B" / "gone.png").symlink_to("nowhere.png")
    (reason,) = faults(scan_two_date(divided)).values()
    assert reason.endswith("gone.png: cannot be read: No such file or directory")


def test_pictures_in_a_folder_of_their_own_are_named(divided: Path) -> None:
    for part in ("A", "B", "label"):
        (divided / "train" / part / "city").mkdir()
    found = faults(scan_two_date(divided))
    assert found["train/A/city"] == "a folder; pictures must lie directly in A/"
    assert len(found) == 3


def test_the_bits_that_16_bit_pictures_use_are_told(divided: Path) -> None:
    for part in ("A", "B"):
        deep = np.random.default_rng(3).integers(0, 2000, (20, 24, 3)).astype(np.uint16)
        cv2.imwrite(str(divided / "test" / part / "x1.png"), deep)
    assert max(pair.bits for pair in scan_two_date(divided).pairs) == 11


def test_what_is_listed_but_absent_and_what_is_in_no_list_is_named(listed: Path) -> None:
    draw(listed, "extra", 70)
    draw(listed, "half", 71)
    (listed / "B" / "half.png").unlink()
    (listed / "A" / "film.gif").write_bytes(b"x")
    list_names(listed, train=[*NAMES["train"], "gone"], val=[*NAMES["val"], "half"])
    inventory = scan_two_date(listed)
    assert names(inventory) == NAMES
    found = faults(inventory)
    assert found.pop("/A/film.gif").startswith("not read; expected one of")
    assert found == {
        "/extra": "in no file of list/",
        "train/gone": "listed, but there is no such file in A, B, label",
        "val/half": "not in B",
    }


def test_a_name_listed_twice_is_one_pair(listed: Path) -> None:
    list_names(listed, val=["v1", "v2", "v1.png"])
    inventory = scan_two_date(listed)
    assert (names(inventory), inventory.quarantined) == (NAMES, [])


def test_a_pair_in_two_lists_stays_in_test(listed: Path) -> None:
    list_names(listed, train=[*NAMES["train"], "x1"])
    inventory = scan_two_date(listed)
    assert names(inventory) == NAMES
    assert faults(inventory) == {"train/x1": "same pictures as test/x1"}


def test_lists_beside_a_divided_folder_hide_nothing(divided: Path) -> None:
    list_names(divided, train=["t1", "t3"])
    inventory = scan_two_date(divided)
    assert names(inventory) == {**NAMES, "train": ["t1", "t3"]}
    assert faults(inventory) == {"train/t2": "not in list/train.txt"}


def test_a_list_in_another_encoding_is_an_error_that_names_it(listed: Path) -> None:
    (listed / "list" / "val.txt").write_bytes("방\n".encode("cp949"))
    with pytest.raises(ValueError, match=r"list/val\.txt: not UTF-8; save it as UTF-8"):
        scan_two_date(listed)


def copy(root: Path, source: str, target: str) -> None:
    """Copy a pair, given as split/name; its bytes differ, its pixels do not."""
    (from_split, from_name), (to_split, to_name) = source.split("/"), target.split("/")
    for part in PARTS:
        content = (root / from_split / part / f"{from_name}.png").read_bytes()
        (root / to_split / part / f"{to_name}.png").write_bytes(content + b"\0")


def test_of_the_same_pictures_those_of_test_are_kept_then_those_of_val(divided: Path) -> None:
    copy(divided, "train/t1", "test/zz")
    copy(divided, "train/t2", "val/zz")
    copy(divided, "val/v1", "test/yy")
    copy(divided, "train/t3", "train/t4")
    found = faults(scan_two_date(divided))
    assert found == {
        "train/t1": "same pictures as test/zz",
        "train/t2": "same pictures as val/zz",
        "val/v1": "same pictures as test/yy",
        "train/t4": "same pictures as train/t3",
    }


def test_a_pair_that_shares_one_picture_is_no_duplicate_but_leaks(divided: Path) -> None:
    assert leaking_pictures(scan_two_date(divided).pairs) == []
    shutil.copy(divided / "test" / "A" / "x1.png", divided / "train" / "B" / "t1.png")
    inventory = scan_two_date(divided)
    assert inventory.quarantined == []
    assert leaking_pictures(inventory.pairs) == [["test/A/x1.png", "train/B/t1.png"]]
    unused = [replace(pair, reason="x") if pair.name == "t1" else pair for pair in inventory.pairs]
    assert leaking_pictures(unused) == []


def test_a_picture_shared_within_a_split_does_not_leak(divided: Path) -> None:
    shutil.copy(divided / "train" / "A" / "t2.png", divided / "train" / "B" / "t1.png")
    assert leaking_pictures(scan_two_date(divided).pairs) == []


def test_the_result_does_not_depend_on_the_number_of_threads(divided: Path) -> None:
    copy(divided, "train/t1", "test/zz")
    (divided / "train" / "B" / "t2.png").unlink()
    calls: list[int] = []
    first = scan_two_date(divided, threads=1)
    for threads in (2, 5):
        assert scan_two_date(divided, threads=threads, progress=lambda: calls.append(1)) == first
    assert len(calls) == 2 * len(first.pairs)


def test_the_version_depends_on_content_alone(divided: Path, tmp_path: Path) -> None:
    first = scan_two_date(divided).version
    elsewhere = Path(shutil.copytree(divided, tmp_path / "elsewhere"))
    for path in elsewhere.rglob("*.png"):
        os.utime(path, (1, 1))
    assert scan_two_date(elsewhere).version == first
    (elsewhere / "readme.txt").write_text("x")
    assert scan_two_date(elsewhere).version == first
    label = elsewhere / "val" / "label" / "v1.png"
    label.write_bytes(label.read_bytes() + b"\0")
    versions = {first, scan_two_date(elsewhere).version}
    for part in PARTS:
        (elsewhere / "val" / part / "v1.png").rename(elsewhere / "val" / part / "v9.png")
    versions.add(scan_two_date(elsewhere).version)
    for part in PARTS:
        (elsewhere / "val" / part / "v9.png").rename(elsewhere / "train" / part / "v9.png")
    versions.add(scan_two_date(elsewhere).version)
    assert len(versions) == 4


def test_a_split_without_a_usable_pair_is_one_error_with_counts_and_reasons(divided: Path) -> None:
    for name in NAMES["val"]:
        damage(divided / "val", "A", name, b"junk")
    with pytest.raises(
        ValueError,
        match=r"every part needs a usable pair, found train 3, val 0, test 2; val/v1: A: cannot be decoded",
    ):
        scan_two_date(divided)


def test_a_split_without_a_whole_pair_is_an_error_that_names_it(divided: Path) -> None:
    for path in (divided / "test" / "B").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"test: no file name is in all of A/, B/ and label/; x1: not in B"):
        scan_two_date(divided)


def test_an_empty_list_is_an_error_with_the_counts(listed: Path) -> None:
    list_names(listed, val=[])
    with pytest.raises(ValueError, match=r"found train 3, val 0, test 2; /v1: in no file of list/"):
        scan_two_date(listed)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("", r"divided: no such folder; set the recipe's source folder"),
        ("train", r"divided: found test, val; expected train/, val/ and test/, each with A/, B/ and label/"),
        ("val/B", r"val/B: no such folder; pairs lie in A/, B/ and label/"),
        ("test/label", r"test/label: no such folder; pairs lie in"),
    ],
)
def test_a_missing_folder_of_a_divided_set_is_named(divided: Path, missing: str, message: str) -> None:
    shutil.rmtree(divided / missing)
    with pytest.raises(FileNotFoundError, match=message):
        scan_two_date(divided)


def test_a_missing_list_is_named_with_what_it_holds(listed: Path) -> None:
    (listed / "list" / "val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"val\.txt: no such file; it lists the pairs of val"):
        scan_two_date(listed)


def test_an_empty_folder_is_an_error_with_both_layouts(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found nothing; expected train/.*list/\{train,val,test\}"):
        scan_two_date(tmp_path)


def test_a_pair_with_its_dates_exchanged_is_the_same_pair(divided: Path) -> None:
    for ours, other in (("A", "B"), ("B", "A"), ("label", "label")):
        twin = sorted((divided / "test" / other).iterdir())[0]
        shutil.copyfile(twin, divided / "train" / ours / "turned.png")
    turned = next(pair for pair in scan_two_date(divided).pairs if pair.name == "turned")
    assert str(turned.reason).startswith("same pictures as test/")
