from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.data.example import Example
from cd_pipeline.data.files import file_digest
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.samples import (
    Roots,
    Sample,
    at_input_size,
    input_samples,
    load_masks,
    load_sample,
    load_whole,
    network_view,
    network_windows,
    padded_sample,
    spread,
)
from cd_pipeline.data.tiles import Window
from cd_pipeline_tests.drawn import draw_photo


def mask_of(example: Example, roots: Roots) -> Image:
    ((_, mask),) = load_masks([example], roots)
    return mask


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
def arrays() -> Sample:
    rng = np.random.default_rng(1)
    before, after = (draw_photo(rng, (60, 40))[0] for _ in range(2))
    mask = np.zeros((40, 60), np.uint8)
    mask[5:20, 8:30] = 255
    return Sample.of_pair(before, after, mask)


@pytest.fixture
def roots(tmp_path: Path, arrays: Sample) -> Roots:
    roots = Roots(tmp_path / "photos", tmp_path / "data")
    for reference, image in zip((PAIR.before, PAIR.after, PAIR.mask), arrays.arrays, strict=True):
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


def test_a_pair_reads_back_as_written(roots: Roots, arrays: Sample) -> None:
    loaded = load_sample(PAIR, roots)
    for read, written in zip(loaded.arrays, arrays.arrays, strict=True):
        np.testing.assert_array_equal(read, written)
    assert loaded.valid is None


def test_a_pair_that_is_drawn_each_epoch_cannot_be_loaded(roots: Roots) -> None:
    with pytest.raises(ValueError, match=r"^a: drawn anew each epoch"):
        load_sample(replace(PAIR, after=None, mask=None), roots)


@pytest.mark.parametrize("part", ["before", "after", "mask"])
def test_different_sizes_are_an_error_with_the_sizes(roots: Roots, arrays: Sample, part: str) -> None:
    write_png(roots.resolve(getattr(PAIR, part)), getattr(arrays, part)[:-1])
    sizes = ["60x39" if name == part else "60x40" for name in ("before", "after", "mask")]
    with pytest.raises(ValueError, match=rf"^a: .* not of one size: {', '.join(sizes)}; materialize all"):
        load_sample(PAIR, roots)


@pytest.mark.parametrize("part", ["before", "after", "mask"])
def test_a_missing_picture_is_an_error_with_its_path(roots: Roots, part: str) -> None:
    path = roots.resolve(getattr(PAIR, part))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=str(path)):
        load_sample(PAIR, roots)


def test_all_three_pictures_are_brought_to_the_input_size(arrays: Sample) -> None:
    sized = at_input_size(arrays, 32)
    assert [image.shape for image in sized.arrays] == [(32, 32, 3), (32, 32, 3), (32, 32)]
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
    roots: Roots, arrays: Sample, valid: npt.NDArray[np.uint8]
) -> None:
    loaded = load_sample(PART_COUNTS, roots)
    assert loaded.valid is not None
    np.testing.assert_array_equal(loaded.valid, valid)
    np.testing.assert_array_equal(loaded.mask, arrays.mask)


def test_what_counts_is_brought_to_the_input_size_with_the_pair(
    arrays: Sample, valid: npt.NDArray[np.uint8]
) -> None:
    sized = at_input_size(arrays._replace(valid=valid), 20)
    assert sized.valid is not None
    np.testing.assert_array_equal(
        sized.valid, valid[::2, ::3]
    )  # 40x60 to 20x20: nearest takes every 2nd, 3rd
    np.testing.assert_array_equal(sized.mask, arrays.mask[::2, ::3])


def test_a_pair_of_the_input_size_stays_as_it_is(arrays: Sample) -> None:
    square = Sample.of_pair(
        arrays.before[:, :40], arrays.after[:, :40], arrays.mask[:, :40], arrays.mask[:, :40]
    )
    for sized, image in zip(at_input_size(square, 40).arrays, square.arrays, strict=True):
        assert sized is image


def test_what_counts_must_have_the_pairs_size_and_be_there(
    roots: Roots, valid: npt.NDArray[np.uint8]
) -> None:
    path = roots.resolve("workspace:valid/a.png")
    write_png(path, valid[:, 1:])
    with pytest.raises(
        ValueError, match=r"^a: .* not of one size: 60x40, 60x40, 60x40, 59x40; materialize all"
    ):
        load_sample(PART_COUNTS, roots)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=str(path)):
        load_sample(PART_COUNTS, roots)


def test_pairs_come_one_at_a_time_in_order(roots: Roots, arrays: Sample) -> None:
    missing = replace(PAIR, after="workspace:after/none.png")
    stream = input_samples([PAIR, missing], roots, 32)
    np.testing.assert_array_equal(next(stream).after, at_input_size(arrays, 32).after)
    with pytest.raises(FileNotFoundError):
        next(stream)


def test_a_photo_that_is_no_longer_the_planned_one_is_refused(roots: Roots) -> None:
    path = roots.resolve(PAIR.before)
    planned = replace(PAIR, before_sha256=file_digest(path))
    load_sample(planned, roots)
    path.write_bytes(roots.resolve(str(PAIR.after)).read_bytes())
    with pytest.raises(ValueError, match=r"a\.png: the file has changed; materialize all assets again"):
        load_sample(planned, roots)


@pytest.mark.parametrize("part", ["before", "after", "mask"])
def test_every_picture_must_be_the_one_of_the_manifest(roots: Roots, part: str) -> None:
    path = roots.resolve(getattr(PAIR, part))
    planned = replace(PAIR, **{f"{part}_sha256": file_digest(path)})
    load_sample(planned, roots)
    path.write_bytes(path.read_bytes() + b"\0")
    load_sample(PAIR, roots)  # without a hash any content will do
    with pytest.raises(ValueError, match=rf"{part}/a\.png|방 1/a\.png: the file has changed"):
        load_sample(planned, roots)


def test_a_changed_mask_is_refused_where_it_is_read_alone(roots: Roots) -> None:
    path = roots.resolve(str(PAIR.mask))
    planned = replace(PAIR, mask_sha256=file_digest(path))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"mask/a\.png: the file has changed"):
        mask_of(planned, roots)


CROP = {"left": 7, "top": 11, "width": 40, "height": 20}
CROPPED = replace(PART_COUNTS, crop=CROP, tiled=True)


def test_a_pair_with_a_crop_is_that_part_of_its_pictures(
    roots: Roots, arrays: Sample, valid: npt.NDArray[np.uint8]
) -> None:
    for cropped, whole in zip(
        load_sample(CROPPED, roots).arrays, arrays._replace(valid=valid).arrays, strict=True
    ):
        np.testing.assert_array_equal(cropped, whole[11:31, 7:47])
    for loaded, whole in zip(load_whole(CROPPED, roots).arrays[:3], arrays.arrays, strict=True):
        np.testing.assert_array_equal(loaded, whole)


@pytest.mark.parametrize("crop", [None, CROP, {"left": 0, "top": 39, "width": 60, "height": 1}])
def test_the_mask_alone_is_that_of_the_pair(roots: Roots, crop: dict[str, int] | None) -> None:
    pair = replace(PAIR, crop=crop)
    np.testing.assert_array_equal(mask_of(pair, roots), load_sample(pair, roots).mask)


def test_a_mask_stored_as_0_and_1_is_read_as_0_and_255(roots: Roots, arrays: Sample) -> None:
    write_png(roots.resolve(str(PAIR.mask)), arrays.mask // 255)
    np.testing.assert_array_equal(load_sample(PAIR, roots).mask, arrays.mask)
    np.testing.assert_array_equal(mask_of(PAIR, roots), arrays.mask)


@pytest.mark.parametrize("partly", [False, True])
def test_mirrored_pixels_do_not_count(arrays: Sample, partly: bool) -> None:
    counted = np.full_like(arrays.mask, 255)
    counted[:, :5] = 0 if partly else 255
    enlarged = padded_sample(arrays._replace(valid=counted if partly else None), 64)
    assert enlarged.valid is not None
    for image in enlarged.arrays:
        assert image.shape[:2] == (64, 64)
    for image, original in zip(enlarged.arrays[:3], arrays.arrays, strict=True):
        np.testing.assert_array_equal(image[:40, :60], original)
    np.testing.assert_array_equal(enlarged.valid, np.pad(counted, ((0, 24), (0, 4))))
    assert not enlarged.mask[40:].any() and not enlarged.mask[:, 60:].any()
    np.testing.assert_array_equal(enlarged.after[40:, :60], arrays.after[:15:-1])


def test_a_pair_that_is_large_enough_is_not_padded(arrays: Sample) -> None:
    assert padded_sample(arrays, 40) is arrays


def test_a_pair_that_is_resized_is_seen_whole() -> None:
    assert network_windows(PAIR, 32) == network_windows(replace(PAIR, crop=CROP), 32) == [None]


@settings(max_examples=60, deadline=None)
@given(st.integers(16, 90), st.integers(16, 90), st.sampled_from([32, 64]), st.booleans())
def test_the_windows_of_a_tiled_pair_cover_it(width: int, height: int, size: int, cropped: bool) -> None:
    crop = {"left": 3, "top": 4, "width": width, "height": height}
    sides = {"width": 200, "height": 200, "crop": crop} if cropped else {"width": width, "height": height}
    seen = np.zeros((height, width), int)
    for window in network_windows(replace(PAIR, tiled=True, **sides), size):
        assert window is not None
        part = seen[window.rows, window.columns]
        assert part.shape == (min(size, height), min(size, width))
        part += 1
    assert seen.min() >= 1


def test_a_tiled_pair_is_seen_at_its_own_scale_in_full_tiles(roots: Roots, arrays: Sample) -> None:
    views = list(input_samples([replace(PAIR, tiled=True)], roots, 32))
    corners = [(top, left) for top in (0, 8) for left in (0, 28)]  # 40 px high, 60 px wide
    for view, (top, left) in zip(views, corners, strict=True):
        for image, whole in zip(view.arrays, arrays.arrays, strict=True):
            np.testing.assert_array_equal(image, whole[top : top + 32, left : left + 32])
        assert view.valid is None


def test_a_tile_that_is_too_small_is_padded_and_the_padding_does_not_count(arrays: Sample) -> None:
    view = network_view(arrays, Window(30, 0, 30, 40), 64)
    assert view.valid is not None
    assert (view.valid > 0).sum() == 30 * 40
    np.testing.assert_array_equal(view.before[:40, :30], arrays.before[:, 30:])


def test_resized_views_are_those_of_the_input_size(roots: Roots, arrays: Sample) -> None:
    (view,) = input_samples([PAIR], roots, 32)
    for image, expected in zip(view.arrays, at_input_size(arrays, 32).arrays, strict=True):
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(("limit", "expected"), [(1, [0]), (3, [0, 3, 6]), (4, [0, 2, 4, 6]), (8, range(8))])
def test_limited_views_are_evenly_spaced_over_all_tiles_of_all_pairs(
    roots: Roots, limit: int, expected: list[int]
) -> None:
    pairs = [replace(PAIR, tiled=True), replace(PAIR, pair_id="b", tiled=True)]  # four tiles each
    views = list(input_samples(pairs, roots, 32))
    assert len(views) == 8
    limited = list(input_samples(pairs, roots, 32, limit))
    assert len(limited) == len(expected)
    for view, index in zip(limited, expected, strict=True):
        np.testing.assert_array_equal(view.before, views[index].before)


@given(st.integers(0, 200), st.integers(1, 50))
def test_spread_items_are_evenly_spaced_and_no_more_than_asked(length: int, count: int) -> None:
    chosen = spread(range(length), count)
    assert min(length, count) / 2 <= len(chosen) <= count
    assert chosen[:1] == list(range(min(1, length)))
    assert len({b - a for a, b in pairwise(chosen)}) <= 1


@pytest.mark.parametrize("scheme", ["source", "workspace"])
@pytest.mark.parametrize("path", ["", ".", "/etc/passwd", "../a.png", "a/../../b.png", "..", "a\0.png"])
def test_a_reference_that_leads_out_of_its_root_is_refused_by_name(scheme: str, path: str) -> None:
    roots = Roots(Path("/photos"), Path("/data"))
    with pytest.raises(
        ValueError, match=r"^reference .*expected a path below /.*materialize all assets"
    ) as caught:
        roots.resolve(f"{scheme}:{path}")
    assert repr(f"{scheme}:{path}") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("path", ["a..b.png", "..a/b.png", "a/.../b.png", "~/a.png", "방 1/a.png"])
def test_dots_in_names_lead_nowhere_else(path: str) -> None:
    assert Roots(Path("/photos"), Path("/data")).resolve(f"source:{path}") == Path("/photos") / path


def test_a_link_that_the_user_put_into_their_folder_is_followed(roots: Roots, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    write_png(tmp_path / "elsewhere" / "b.png", np.zeros((20, 20, 3), np.uint8))
    (roots.source / "linked").symlink_to(tmp_path / "elsewhere")
    assert roots.resolve("source:linked/b.png").is_file()
