from dataclasses import replace
from pathlib import Path

import numpy as np
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
    for reference, image in zip((PAIR.before, PAIR.after, PAIR.mask), arrays, strict=True):
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
    for loaded, written in zip(load_pair(PAIR, roots), arrays, strict=True):
        np.testing.assert_array_equal(loaded, written)


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
    assert [image.shape for image in sized] == [(32, 32, 3), (32, 32, 3), (32, 32)]
    assert set(np.unique(sized.mask)) == {0, 255}


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
