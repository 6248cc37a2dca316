from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from cd_pipeline.data.files import file_digest
from cd_pipeline.data.images import write_png
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.pairs import PairArrays, Roots, at_input_size, input_pairs, load_pair
from cd_pipeline_tests.drawn import draw_photo

PAIR = Pair(
    pair_id="a",
    split="val",
    class_name="A",
    before="source:방 1/a.png",
    after="workspace:after/a.png",
    mask="workspace:mask/a.png",
    photo="",
    photo_sha256="",
    width=60,
    height=40,
    boxes=(),
    seed=1,
    changed=True,
    plan=None,
)


@pytest.fixture
def arrays() -> PairArrays:
    rng = np.random.default_rng(1)
    before, after = (draw_photo(rng, (60, 40))[0] for _ in range(2))
    mask = np.zeros((40, 60), np.uint8)
    mask[5:20, 8:30] = 255
    return PairArrays(before, after, mask)


@pytest.fixture
def roots(tmp_path: Path, arrays: PairArrays) -> Roots:
    roots = Roots(tmp_path / "photos", tmp_path / "data")
    for reference, image in zip((PAIR.before, PAIR.after, PAIR.mask), arrays[:3], strict=True):
        write_png(roots.resolve(str(reference)), image)
    return roots


def test_references_lead_into_the_two_roots() -> None:
    roots = Roots(Path("photos"), Path("data"))
    assert roots.resolve("source:images/A/방: 1.jpg") == Path("photos/images/A/방: 1.jpg")
    assert roots.resolve("workspace:change_masks/a.png") == Path("data/change_masks/a.png")


@pytest.mark.parametrize("reference", ["images/a.jpg", "C:/photos/a.jpg", "", "http://x/a.jpg"])
def test_another_scheme_is_refused(reference: str) -> None:
    with pytest.raises(ValueError, match="expected source:<path> or workspace:<path>"):
        Roots(Path("a"), Path("b")).resolve(reference)


def test_a_pair_reads_back_as_written(roots: Roots, arrays: PairArrays) -> None:
    loaded = load_pair(PAIR, roots)
    for read, written in zip(loaded[:3], arrays[:3], strict=True):
        np.testing.assert_array_equal(read, written)
    assert loaded.valid is None


def test_a_pair_that_is_drawn_each_epoch_cannot_be_loaded(roots: Roots) -> None:
    with pytest.raises(ValueError, match="pair a: drawn anew each epoch"):
        load_pair(replace(PAIR, after=None, mask=None), roots)


@pytest.mark.parametrize("part", ["before", "after", "mask"])
def test_different_sizes_are_an_error_with_the_sizes(roots: Roots, arrays: PairArrays, part: str) -> None:
    write_png(roots.resolve(getattr(PAIR, part)), getattr(arrays, part)[:-1])
    with pytest.raises(ValueError, match=rf"pair a: sizes differ.*{part} \(39, 60\)"):
        load_pair(PAIR, roots)


@pytest.mark.parametrize("part", ["before", "after", "mask"])
def test_a_missing_picture_is_an_error_with_its_path(roots: Roots, part: str) -> None:
    path = roots.resolve(getattr(PAIR, part))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=str(path)):
        load_pair(PAIR, roots)


def test_all_three_pictures_are_brought_to_the_input_size(arrays: PairArrays) -> None:
    sized = at_input_size(arrays, 32)
    assert [image.shape for image in sized[:3]] == [(32, 32, 3), (32, 32, 3), (32, 32)]
    assert set(np.unique(sized.mask)) == {0, 255}
    assert sized.valid is None


@pytest.fixture
def valid(roots: Roots) -> npt.NDArray[np.uint8]:
    """The pixels of the pair that count, on disk."""
    valid = np.full((40, 60), 255, np.uint8)
    valid[:4], valid[:, -10:] = 0, 0
    write_png(roots.resolve("workspace:valid/a.png"), valid)
    return valid


PART_COUNTS = replace(PAIR, valid="workspace:valid/a.png")


def test_a_pair_of_which_part_counts_reads_back_as_written(
    roots: Roots, arrays: PairArrays, valid: npt.NDArray[np.uint8]
) -> None:
    loaded = load_pair(PART_COUNTS, roots)
    assert loaded.valid is not None
    np.testing.assert_array_equal(loaded.valid, valid)
    np.testing.assert_array_equal(loaded.mask, arrays.mask)


def test_what_counts_is_brought_to_the_input_size_with_the_pair(
    arrays: PairArrays, valid: npt.NDArray[np.uint8]
) -> None:
    sized = at_input_size(arrays._replace(valid=valid), 20)
    assert sized.valid is not None
    np.testing.assert_array_equal(
        sized.valid, valid[::2, ::3]
    )  # 40x60 to 20x20: nearest takes every 2nd, 3rd
    np.testing.assert_array_equal(sized.mask, arrays.mask[::2, ::3])


def test_a_pair_of_the_input_size_stays_as_it_is(arrays: PairArrays) -> None:
    square = PairArrays(arrays.before[:, :40], arrays.after[:, :40], arrays.mask[:, :40], arrays.mask[:, :40])
    for sized, image in zip(at_input_size(square, 40), square, strict=True):
        assert sized is image


def test_what_counts_must_have_the_pairs_size_and_be_there(
    roots: Roots, valid: npt.NDArray[np.uint8]
) -> None:
    path = roots.resolve("workspace:valid/a.png")
    write_png(path, valid[:, 1:])
    with pytest.raises(ValueError, match=r"pair a: sizes differ.*valid \(40, 59\)"):
        load_pair(PART_COUNTS, roots)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=str(path)):
        load_pair(PART_COUNTS, roots)


def test_pairs_come_one_at_a_time_in_order(roots: Roots, arrays: PairArrays) -> None:
    missing = replace(PAIR, after="workspace:after/none.png")
    stream = input_pairs([PAIR, missing], roots, 32)
    np.testing.assert_array_equal(next(stream).after, at_input_size(arrays, 32).after)
    with pytest.raises(FileNotFoundError):
        next(stream)


def test_a_photo_that_is_no_longer_the_planned_one_is_refused(roots: Roots) -> None:
    path = roots.resolve(PAIR.before)
    planned = replace(PAIR, photo=PAIR.before, photo_sha256=file_digest(path))
    load_pair(planned, roots)
    path.write_bytes(roots.resolve(str(PAIR.after)).read_bytes())
    with pytest.raises(ValueError, match=r"a\.png: the photo has changed; materialize raw_photos"):
        load_pair(planned, roots)
