from pathlib import Path

import numpy as np
import pytest

from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.two_date import scan_pair_folder


def write(folder: Path, part: str, name: str, image: Image) -> None:
    write_png(folder / part / name, image)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.png"):
        write(tmp_path, "A", name, rng.integers(0, 256, (20, 24, 3), np.uint8))
        write(tmp_path, "B", name, rng.integers(0, 256, (20, 24, 3), np.uint8))
        write(tmp_path, "label", name, rng.integers(0, 3, (20, 24)).astype(np.uint8))
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


def test_any_label_above_0_is_change(folder: Path) -> None:
    import cv2

    (first, _) = scan_pair_folder(folder).pairs
    stored = cv2.imread(str(folder / "label" / "a.png"), cv2.IMREAD_GRAYSCALE)
    assert stored is not None
    np.testing.assert_array_equal(first.read().mask == 255, stored > 0)
    assert first.read().valid is None


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
    assert found.problems == ["a: more than one file in A"]


def test_a_picture_of_a_format_that_is_not_read_is_named(folder: Path) -> None:
    (folder / "B" / "c.tif").write_bytes(b"x")
    (problem,) = scan_pair_folder(folder).problems
    assert problem.startswith(f"{folder / 'B' / 'c.tif'}: not read; expected one of .bmp, .jpeg, .jpg, .png")


def test_a_label_compressed_with_loss_is_not_taken_for_truth(folder: Path) -> None:
    (folder / "label" / "b.png").rename(folder / "label" / "b.jpg")
    found = scan_pair_folder(folder)
    assert [pair.name for pair in found.pairs] == ["a"]
    lossy, unpaired = found.problems
    assert lossy == f"{folder / 'label' / 'b.jpg'}: a label must not be compressed with loss; save it as PNG"
    assert unpaired == "b: not in label"


def test_a_label_that_cannot_be_read_is_named_with_what_to_do(folder: Path) -> None:
    (folder / "label" / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"label/a\.png: not a readable image; put a readable PNG there"):
        scan_pair_folder(folder).pairs[0].read()


def test_other_files_are_not_looked_at(folder: Path) -> None:
    (folder / "A" / "readme.txt").write_text("x")
    (folder / "label" / ".hidden.png").write_bytes(b"x")
    assert scan_pair_folder(folder).problems == []


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"A: no such folder; real pairs lie in A/, B/ and label/"):
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
    assert second.read().mask.shape == (20, 24)
