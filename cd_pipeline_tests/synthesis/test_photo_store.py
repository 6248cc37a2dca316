import hashlib
import shutil
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cd_pipeline.data.images import PhotoError
from cd_pipeline.data.samples import Roots
from cd_pipeline.synthesis.geometry import Rect
from cd_pipeline.synthesis.photo_store import PhotoStore, patch_rect
from cd_pipeline.synthesis.realistic_plan import Patch
from cd_pipeline.synthesis.regions import object_outline
from cd_pipeline_tests.drawn import Pixels, draw_photo

PHOTO = "source:a.png"


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Roots, str, Pixels]:
    """A photo of 120x80 px on disk: its roots, hash and pixels."""
    pixels = draw_photo(np.random.default_rng(0), (120, 80))[0]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return Roots(tmp_path, tmp_path), hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest(), pixels


def test_a_photo_comes_at_its_own_size(saved: tuple[Roots, str, Pixels]) -> None:
    roots, sha256, pixels = saved
    np.testing.assert_array_equal(PhotoStore(roots).photo(PHOTO, sha256), pixels)


def test_a_reduced_photo_has_the_shorter_side_asked_for(saved: tuple[Roots, str, Pixels]) -> None:
    roots, sha256, pixels = saved
    reduced = PhotoStore(roots).reduced(PHOTO, sha256, 40)
    assert (reduced.shape, reduced.dtype) == ((40, 60, 3), np.uint8)
    blocks = pixels.reshape(40, 2, 60, 2, 3).mean((1, 3))  # half the size: the mean of 2x2 px
    np.testing.assert_allclose(reduced, blocks, rtol=0, atol=0.51)


@pytest.mark.parametrize("side", [80, 81, 500])
def test_a_photo_is_never_enlarged(saved: tuple[Roots, str, Pixels], side: int) -> None:
    roots, sha256, pixels = saved
    np.testing.assert_array_equal(PhotoStore(roots).reduced(PHOTO, sha256, side), pixels)


def test_sizes_and_outlines_of_one_photo_are_kept_apart(saved: tuple[Roots, str, Pixels]) -> None:
    roots, sha256, _ = saved
    photos, patch = PhotoStore(roots), Patch(PHOTO, sha256, 0.25, 0.25, 0.5, 0.5)
    for _ in range(2):
        assert photos.reduced(PHOTO, sha256, 40).shape == (40, 60, 3)
        assert photos.reduced(PHOTO, sha256, 20).shape == (20, 30, 3)
        assert photos.photo(PHOTO, sha256).shape == (80, 120, 3)
        for side, shape in ((40, (20, 30)), (20, (10, 15))):
            outline = photos.outline(patch, side)
            assert outline.shape == shape
            expected = object_outline(
                photos.reduced(PHOTO, sha256, side), Rect(shape[1] // 2, shape[0] // 2, shape[1], shape[0])
            )
            np.testing.assert_array_equal(outline, expected)


def test_what_is_kept_is_not_read_again(saved: tuple[Roots, str, Pixels]) -> None:
    roots, sha256, pixels = saved
    photos = PhotoStore(roots)
    photos.photo(PHOTO, sha256)
    shutil.rmtree(roots.source)
    np.testing.assert_array_equal(photos.photo(PHOTO, sha256), pixels)


@pytest.mark.parametrize(
    ("cache_bytes", "kept"), [(0, []), (80 * 120 * 3 - 1, [1]), (80 * 120 * 3, [0]), (40_000, [0, 1])]
)
def test_no_more_than_its_bytes_are_kept(
    saved: tuple[Roots, str, Pixels], cache_bytes: int, kept: list[int]
) -> None:
    roots, sha256, _ = saved
    photos = PhotoStore(roots, cache_bytes)
    first, second = (
        [photos.photo(PHOTO, sha256), photos.reduced(PHOTO, sha256, 40)]  # 28,800 and 7,200 bytes
        for _ in range(2)
    )
    assert [number for number in range(2) if first[number] is second[number]] == kept
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_photo_under_the_name_is_refused_with_the_remedy(saved: tuple[Roots, str, Pixels]) -> None:
    roots, _, _ = saved
    with pytest.raises(PhotoError, match=r"a\.png: the file has changed; materialize all assets again"):
        PhotoStore(roots).photo(PHOTO, "0" * 64)
    with pytest.raises(PhotoError, match=r"a\.png: the file has changed; materialize all assets again"):
        PhotoStore(roots).reduced(PHOTO, "0" * 64, 40)


def refuse_to_make(*_: object) -> NoReturn:
    raise AssertionError("made again")


def test_photos_and_outlines_are_made_once_for_all_stores(
    saved: tuple[Roots, str, Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    roots, sha256, pixels = saved
    patch = Patch(PHOTO, sha256, 0.25, 0.25, 0.5, 0.5)

    def read() -> list[Pixels]:
        photos = PhotoStore(roots)
        whole, reduced = photos.photo(PHOTO, sha256), photos.reduced(PHOTO, sha256, 40)
        return [whole, reduced, photos.outline(patch, 40), photos.outline(patch, 20)]

    first = read()
    for name in ("decode_content", "object_outline"):
        monkeypatch.setattr(f"cd_pipeline.synthesis.photo_store.{name}", refuse_to_make)
    for one, other in zip(first, read(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first[0], pixels)


def test_a_photo_that_has_changed_is_refused_by_a_new_store_although_its_pixels_are_kept(
    saved: tuple[Roots, str, Pixels],
) -> None:
    roots, sha256, pixels = saved
    patch = Patch(PHOTO, sha256, 0.25, 0.25, 0.5, 0.5)
    PhotoStore(roots).outline(patch, 40)
    Image.fromarray(255 - pixels).save(roots.source / "a.png")
    for read in (
        lambda: PhotoStore(roots).photo(PHOTO, sha256),
        lambda: PhotoStore(roots).reduced(PHOTO, sha256, 40),
        lambda: PhotoStore(roots).outline(patch, 40),
    ):
        with pytest.raises(PhotoError, match="the file has changed"):
            read()


def test_the_same_photo_under_another_name_needs_no_decoding(
    saved: tuple[Roots, str, Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    roots, sha256, pixels = saved
    PhotoStore(roots).photo(PHOTO, sha256)
    (roots.source / "a.png").rename(roots.source / "b.png")
    monkeypatch.setattr("cd_pipeline.synthesis.photo_store.decode_content", refuse_to_make)
    np.testing.assert_array_equal(PhotoStore(roots).photo("source:b.png", sha256), pixels)


def test_what_is_kept_on_disk_is_hidden_below_the_workspace_and_nothing_with_no_bytes_to_keep(
    saved: tuple[Roots, str, Pixels], tmp_path: Path
) -> None:
    roots, sha256, _ = saved
    roots = Roots(roots.source, tmp_path / "workspace")
    PhotoStore(roots, cache_bytes=0).photo(PHOTO, sha256)
    assert not roots.workspace.exists()
    PhotoStore(roots).photo(PHOTO, sha256)
    assert [path.name for path in roots.workspace.iterdir()] == [".cache"]
    assert sorted(path.name for path in roots.source.iterdir()) == ["a.png", "workspace"]


def test_a_patch_is_its_share_of_the_pixels() -> None:
    photo = np.zeros((80, 120, 3), np.uint8)
    assert patch_rect(Patch("", "", 0.25, 0.5, 0.5, 0.125), photo) == Rect(30, 40, 60, 10)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(16, 200),
    st.integers(16, 200),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_patch_lies_in_the_photo_with_two_pixels_a_side(
    height: int, width: int, left: float, top: float, right: float, bottom: float
) -> None:
    patch = Patch("", "", left, top, (1 - left) * right, (1 - top) * bottom)
    rect = patch_rect(patch, np.zeros((height, width, 3), np.uint8))
    assert min(rect.x, rect.y) >= 0
    assert min(rect.width, rect.height) >= 2
    assert rect.x + rect.width <= width
    assert rect.y + rect.height <= height
