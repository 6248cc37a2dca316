"""Registration against transforms that are known, in px of the first photo's corners."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from cd_pipeline.data.images import Image, read_photo
from cd_pipeline.prediction.registration import Method, RegistrationError, register

Transform = npt.NDArray[np.float64]
METHODS: tuple[Method, ...] = ("ecc", "features")


def draw_scene(rng: np.random.Generator, width: int = 420, height: int = 320) -> Image:
    """Draw shapes of all sizes on soft noise: HWC uint8 RGB."""
    noise = rng.normal(0, 1, (height // 8, width // 8, 3)).astype(np.float32)
    scene = np.clip(128 + 40 * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), 0, 255)
    scene = np.ascontiguousarray(scene.astype(np.uint8))
    for _ in range(60):
        centre = int(rng.integers(0, width)), int(rng.integers(0, height))
        axes = int(rng.integers(3, 40)), int(rng.integers(3, 40))
        colour = [int(value) for value in rng.integers(0, 256, 3)]
        cv2.ellipse(scene, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(scene, (0, 0), 0.8), np.uint8)


def draw_transform(
    rng: np.random.Generator, width: int, height: int, *, shift: float, turn: float, scale: float, tilt: float
) -> Transform:
    """Draw a homography of pixels: shift and tilt as shares of the longer side, turn in degrees."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    middle, angle = np.array([width / 2, height / 2]), np.deg2rad(rng.uniform(-turn, turn))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    longest = max(width, height)
    moved = (corners - middle) @ rotation.T * np.exp(rng.uniform(-scale, scale)) + middle
    moved += rng.uniform(-shift, shift, 2) * longest + rng.uniform(-tilt, tilt, (4, 2)) * longest
    return np.asarray(
        cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32)), np.float64
    )


def two_views(scene: Image, transform: Transform, margin: int) -> tuple[Image, Image, Transform]:
    """Cut the middle of a scene, and of the scene seen otherwise; return both and their transform."""
    height, width = scene.shape[:2]
    moved = cv2.warpPerspective(
        scene, transform, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    origin = np.array([[1, 0, margin], [0, 1, margin], [0, 0, 1]], np.float64)
    part = slice(margin, height - margin), slice(margin, width - margin)
    return scene[part].copy(), np.asarray(moved, np.uint8)[part], np.linalg.inv(origin) @ transform @ origin


def largest_error(found: Transform, truth: Transform, picture: Image) -> float:
    height, width = picture.shape[:2]
    corners = np.array([[[0, 0]], [[width, 0]], [[width, height]], [[0, height]]], np.float64)
    moved = [cv2.perspectiveTransform(corners, transform) for transform in (found, truth)]
    return float(np.linalg.norm(moved[0] - moved[1], axis=2).max())


def in_other_light(rng: np.random.Generator, picture: Image) -> Image:
    changed = picture * rng.uniform(0.8, 1.15) + rng.uniform(-12, 12) + rng.normal(0, 3, picture.shape)
    return np.clip(changed, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("method", METHODS)
def test_a_known_movement_is_found_to_a_pixel_under_other_light(method: Method, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng)
    moved = draw_transform(rng, 420, 320, shift=0.03, turn=3, scale=0.04, tilt=0.008)
    before, after, truth = two_views(scene, moved, margin=40)
    found = register(before, in_other_light(rng, after), method)
    assert largest_error(found.transform, truth, before) < 1.0


@pytest.mark.parametrize("method", METHODS)
def test_what_changed_does_not_mislead(method: Method) -> None:
    rng = np.random.default_rng(20)
    scene = draw_scene(rng)
    moved = draw_transform(rng, 420, 320, shift=0.02, turn=2, scale=0.02, tilt=0.005)
    before, after, truth = two_views(scene, moved, margin=40)
    cv2.rectangle(after, (90, 60), (200, 180), (250, 240, 10), -1)  # a sixth of the view
    found = register(before, after, method)
    assert largest_error(found.transform, truth, before) < 1.5


@pytest.mark.parametrize("method", METHODS)
def test_an_unmoved_photo_stays_where_it_is(method: Method) -> None:
    scene = draw_scene(np.random.default_rng(3))
    found = register(scene, scene, method)
    assert largest_error(found.transform, np.eye(3), scene) < 0.1
    assert found.covered.all()
    assert np.abs(found.picture.astype(int) - scene).mean() < 1


@pytest.mark.parametrize("method", METHODS)
def test_a_photo_of_more_pixels_is_scaled_to_the_first_one(method: Method) -> None:
    rng = np.random.default_rng(5)
    scene = draw_scene(rng)
    shift = np.array([[1, 0, 6.5], [0, 1, -4.25], [0, 0, 1]])
    before, after, truth = two_views(scene, shift, margin=30)
    height, width = after.shape[:2]
    larger = np.asarray(cv2.resize(after, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC), np.uint8)
    found = register(before, larger, method)
    doubled = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]]) @ truth  # centre to centre
    assert largest_error(found.transform, doubled, before) < 1.0
    assert found.picture.shape == before.shape
    inner = found.covered & (np.abs(found.picture.astype(int) - before).max(axis=2) < 60)
    assert inner.mean() > 0.93


def test_what_the_second_photo_does_not_show_is_not_covered() -> None:
    scene = draw_scene(np.random.default_rng(8))
    before, after = scene[:, :360], scene[:, 60:]  # seen 60 px farther to the right
    found = register(before, after, "features")
    assert not found.covered[:, :57].any()
    assert found.covered[5:-5, 63:].all()


@pytest.mark.parametrize("method", METHODS)
def test_photos_of_two_views_are_refused(method: Method) -> None:
    first, second = (draw_scene(np.random.default_rng(seed)) for seed in (11, 12))
    with pytest.raises(RegistrationError, match=f"could not be registered by {method}: .*of one view"):
        register(first, second, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0, 128])
def test_photos_without_any_texture_are_refused(method: Method, value: int) -> None:
    blank = np.full((120, 160, 3), value, np.uint8)
    with pytest.raises(RegistrationError, match="could not be registered"):
        register(blank, blank, method)


def test_the_same_photos_give_the_same_transform() -> None:
    rng = np.random.default_rng(9)
    scene = draw_scene(rng)
    moved = draw_transform(rng, 420, 320, shift=0.02, turn=2, scale=0.02, tilt=0.005)
    before, after, _ = two_views(scene, moved, margin=30)
    for method in METHODS:
        first, second = (register(before, after, method) for _ in range(2))
        assert first.transform.tobytes() == second.transform.tobytes()
        assert first.picture.tobytes() == second.picture.tobytes()


@pytest.mark.parametrize("method", METHODS)
def test_real_photos_with_people_in_the_second_are_registered(real_data: Path, method: Method) -> None:
    rng = np.random.default_rng(1)
    errors = []
    for path in sorted((real_data / "real_pairs/office/A").iterdir())[:12]:
        before, after = read_photo(path), read_photo(path.parents[1] / "B" / path.name)
        height, width = before.shape[:2]
        moved = draw_transform(rng, width, height, shift=0.02, turn=2, scale=0.02, tilt=0.005)
        margin = height // 16
        view, other, truth = two_views(after, moved, margin)
        first = before[margin : height - margin, margin : width - margin]
        assert first.shape == view.shape
        found = register(first, in_other_light(rng, other), method)
        errors.append(largest_error(found.transform, truth, first))
    assert np.median(errors) < 1.0
    assert max(errors) < 4.0
