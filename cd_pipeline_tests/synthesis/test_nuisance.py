from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.synthesis.nuisance import Nuisance, apply_nuisance, draw_nuisance
from cd_pipeline.synthesis.settings import NuisanceSettings
from cd_pipeline_tests.drawn import Pixels

NOTHING = Nuisance(
    gains=(1.0, 1.0, 1.0),
    offset=0.0,
    contrast=1.0,
    gamma=1.0,
    gradient=(0.0, 0.0),
    vignette=0.0,
    shadow=0.0,
    shadow_outline=(0.2, 0.2, 0.8, 0.2, 0.8, 0.8, 0.2, 0.8),
    blur=0.0,
    noise=0.0,
    shot_noise=0.0,
    noise_seed=5,
    jpeg_quality=None,
    corners=(0.0,) * 8,
)
SETTINGS = NuisanceSettings()
SIDE = 64
seeds = st.integers(0, 2**32 - 1)


def noise_photo(seed: int = 0, side: int = SIDE) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def grey(value: int, side: int = SIDE) -> Pixels:
    return np.full((side, side, 3), value, np.uint8)


def applied(photo: Pixels, **values: object) -> Pixels:
    """Apply one effect alone; the whole result must show the photo."""
    image, shown = apply_nuisance(photo, replace(NOTHING, **values))  # type: ignore[arg-type]
    assert (image.shape, image.dtype, shown.shape, shown.dtype) == (
        photo.shape,
        np.uint8,
        photo.shape[:2],
        np.uint8,
    )
    assert (shown == 255).all()
    return image


def assert_within_rounding(image: Pixels, expected: np.ndarray) -> None:
    np.testing.assert_allclose(image, np.clip(expected, 0, 255), rtol=0, atol=0.501)


def test_a_draw_of_nothing_returns_the_photo_itself() -> None:
    photo = noise_photo()
    kept = photo.copy()
    np.testing.assert_array_equal(applied(photo), photo)
    np.testing.assert_array_equal(photo, kept)


def test_gains_and_offset_follow_their_formula_a_channel() -> None:
    photo = noise_photo()
    expected = photo * np.array([0.8, 1.1, 1.3]) + 7.5
    assert_within_rounding(applied(photo, gains=(0.8, 1.1, 1.3), offset=7.5), expected)


@pytest.mark.parametrize("contrast", [0.6, 1.4])
def test_contrast_stretches_values_about_the_mean_of_the_photo(contrast: float) -> None:
    photo = noise_photo()
    mean = photo.mean(dtype=np.float64)
    assert_within_rounding(applied(photo, contrast=contrast), (photo - mean) * contrast + mean)


@pytest.mark.parametrize("gamma", [0.7, 1.5])
def test_gamma_is_an_exponent_on_values_between_0_and_1(gamma: float) -> None:
    photo = noise_photo()
    assert_within_rounding(applied(photo, gamma=gamma), 255 * (photo / 255.0) ** gamma)


def test_gamma_comes_before_contrast_and_contrast_before_gains() -> None:
    photo = noise_photo()
    mean = photo.mean(dtype=np.float64)
    curved = 255 * (photo / 255.0) ** 1.2
    expected = ((curved - mean) * 0.9 + mean) * np.array([1.1, 0.9, 1.05]) - 4
    image = applied(photo, gamma=1.2, contrast=0.9, gains=(1.1, 0.9, 1.05), offset=-4.0)
    assert_within_rounding(image, expected)


def test_a_gradient_lights_one_side_and_darkens_the_other() -> None:
    image = applied(grey(120, 128), gradient=(0.25, 0.0))
    rows = image[..., 0].astype(float)
    assert (rows == rows[:1]).all()
    assert (np.diff(rows[0]) >= 0).all()
    # 1 - 0.25 on the left and 1 + 0.25 on the right: a ratio of 5 / 3
    assert rows[0, -2:].mean() / rows[0, :2].mean() == pytest.approx(5 / 3, rel=0.03)
    assert rows[0, 63:65].mean() == pytest.approx(120, abs=1)
    down = applied(grey(120, 128), gradient=(0.0, 0.25))
    np.testing.assert_array_equal(down[..., 0], image[..., 0].T)


def test_a_vignette_darkens_the_corners_and_leaves_the_middle() -> None:
    image = applied(grey(200, 128), vignette=0.4)[..., 0].astype(float)
    assert image[64, 64] == pytest.approx(200, abs=1)
    for corner in (image[0, 0], image[0, -1], image[-1, 0], image[-1, -1]):
        assert corner == pytest.approx(200 * 0.6, abs=3)
    # half the loss in the middle of a side, where the distance squared is half that of a corner
    assert image[0, 64] == pytest.approx(200 * 0.8, abs=3)


def test_a_shadow_darkens_inside_its_outline_alone() -> None:
    outline = (0.0, 0.0, 0.5, 0.0, 0.5, 1.0, 0.0, 1.0)  # the left half
    image = applied(grey(200, 128), shadow=0.3, shadow_outline=outline)[..., 0]
    np.testing.assert_allclose(image[:, :32], 200 * 0.7, atol=2)
    np.testing.assert_allclose(image[:, 96:], 200, atol=1)
    assert (np.diff(image[64].astype(int)) >= 0).all()


def test_a_blur_is_opencvs_gaussian() -> None:
    photo = noise_photo()
    expected = cv2.GaussianBlur(photo.astype(np.float64), (0, 0), 0.7)
    np.testing.assert_allclose(applied(photo, blur=0.7), expected, rtol=0, atol=0.51)


@pytest.mark.parametrize("sigma", [2.0, 8.0])
def test_noise_has_its_sigma_and_no_mean(sigma: float) -> None:
    differs = applied(grey(128, 200), noise=sigma).astype(float) - 128
    assert differs.std() == pytest.approx(np.sqrt(sigma**2 + 1 / 12), rel=0.03)  # rounding has variance 1/12
    assert differs.mean() == pytest.approx(0, abs=0.03 * sigma)
    channels = np.corrcoef(differs.reshape(-1, 3).T)
    assert np.abs(channels - np.eye(3)).max() < 0.05


def test_the_variance_of_shot_noise_grows_with_brightness() -> None:
    levels = (20, 80, 160, 220)
    measured = [applied(grey(level, 200), shot_noise=0.3).astype(float).var() for level in levels]
    np.testing.assert_allclose(measured, [0.3 * level + 1 / 12 for level in levels], rtol=0.05)


def test_the_variances_of_both_noises_add_up() -> None:
    image = applied(grey(150, 200), noise=4.0, shot_noise=0.1).astype(float)
    assert image.var() == pytest.approx(4.0**2 + 0.1 * 150 + 1 / 12, rel=0.05)


def test_the_noise_depends_on_its_seed_alone() -> None:
    first, same, other = (applied(grey(128), noise=5.0, noise_seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).mean() > 0.5


def test_a_photo_larger_than_the_noise_field_gets_noise_everywhere() -> None:
    differs = applied(np.full((8, 1100, 3), 128, np.uint8), noise=6.0).astype(float) - 128
    for part in (differs[:, :100], differs[:, -70:]):
        assert part.std() == pytest.approx(6, rel=0.1)


@pytest.mark.parametrize("quality", [45, 90])
def test_jpeg_is_a_round_trip_through_opencv(quality: int) -> None:
    photo = noise_photo()
    stored = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    expected = cv2.imdecode(stored, cv2.IMREAD_COLOR)
    assert expected is not None
    np.testing.assert_array_equal(applied(photo, jpeg_quality=quality), expected[..., ::-1])


@pytest.mark.parametrize(("dx", "dy"), [(2, 1), (-2, 0), (0, -3), (1, -1)])
def test_a_shift_by_whole_pixels_moves_them_and_marks_the_uncovered_border(dx: int, dy: int) -> None:
    photo = noise_photo()
    image, shown = apply_nuisance(photo, replace(NOTHING, corners=(float(dx), float(dy)) * 4))
    for y in range(SIDE):
        for x in range(SIDE):
            inside = 0 <= y - dy < SIDE and 0 <= x - dx < SIDE
            assert shown[y, x] == (255 if inside else 0)
            if inside:
                np.testing.assert_array_equal(image[y, x], photo[y - dy, x - dx])


def test_a_warp_moves_each_corner_by_its_own_offset() -> None:
    photo = np.zeros((SIDE, SIDE, 3), np.uint8)
    photo[:3, :3], photo[:3, -3:], photo[-3:, -3:], photo[-3:, :3] = 60, 120, 180, 240
    # every corner moves inwards by (4, 3): the picture shrinks about its middle
    image, shown = apply_nuisance(photo, replace(NOTHING, corners=(4, 3, -4, 3, -4, -3, 4, -3)))
    values = (image[4, 5], image[4, -6], image[-5, -6], image[-5, 5])
    assert [int(value[0]) for value in values] == pytest.approx([60, 120, 180, 240], abs=2)
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[3:-3, 4:-4] = 255
    np.testing.assert_array_equal(shown, expected)


@settings(max_examples=60, deadline=None)
@given(seeds, st.floats(0, 1.6), st.booleans())
def test_draws_stay_within_their_ranges_times_the_strength(seed: int, strength: float, warped: bool) -> None:
    drawn = draw_nuisance(np.random.default_rng(seed), SETTINGS, strength=strength, warped=warped)
    slack = 1 + 1e-9
    brightness, temperature = (reach * strength * slack for reach in (0.25, 0.08))
    for gain in drawn.gains:
        assert (1 - brightness) * (1 - temperature) <= gain <= (1 + brightness) * (1 + temperature)
    assert max(drawn.gains) / min(drawn.gains) <= (1 + temperature) / (1 - temperature) * slack
    assert abs(drawn.offset) <= 18 * strength * slack
    assert abs(drawn.contrast - 1) <= 0.2 * strength + 1e-9
    assert abs(drawn.gamma - 1) <= 0.2 * strength + 1e-9
    assert np.hypot(*drawn.gradient) <= 0.25 * strength * slack
    assert 0 <= drawn.vignette <= 0.35 * strength * slack
    assert 0 <= drawn.shadow <= 0.45 * strength * slack
    assert 0 <= drawn.blur <= 0.8 * strength * slack
    assert 0 <= drawn.noise <= 5 * strength * slack
    assert 0 <= drawn.shot_noise <= 0.06 * strength * slack
    assert drawn.jpeg_quality is None or 45 <= drawn.jpeg_quality <= 95
    assert len(drawn.corners) == len(drawn.shadow_outline) == 8
    corners = np.array(drawn.corners).reshape(4, 2)
    if warped:
        assert np.abs(corners).max() <= 2 + 3
    else:  # a shift: all corners alike
        assert np.abs(corners).max() <= 2
        assert (corners == corners[0]).all()


def test_each_effect_comes_about_as_often_as_its_probability() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_nuisance(rng, SETTINGS, warped=True) for _ in range(3000)]
    shares = {
        "gradient": (np.mean([any(n.gradient) for n in drawn]), 0.4),
        "vignette": (np.mean([n.vignette > 0 for n in drawn]), 0.2),
        "shadow": (np.mean([n.shadow > 0 for n in drawn]), 0.25),
        "shot_noise": (np.mean([n.shot_noise > 0 for n in drawn]), 0.2),
        "blur": (np.mean([n.blur > 0 for n in drawn]), 0.3),
        "jpeg": (np.mean([n.jpeg_quality is not None for n in drawn]), 0.5),
        "warp": (np.mean([n.corners[:2] != n.corners[2:4] for n in drawn]), 0.25),
    }
    for name, (found, expected) in shares.items():
        assert found == pytest.approx(expected, abs=0.035), name  # 4 sigma of 3000 draws


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_a_seed_gives_the_same_draw_and_a_draw_the_same_photo(seed: int) -> None:
    first, again = (draw_nuisance(np.random.default_rng(seed), SETTINGS, warped=True) for _ in range(2))
    assert first == again
    row = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(first).items()}  # as Parquet has it
    assert Nuisance.from_row(row) == first
    photo = noise_photo(seed)
    for image, repeated in zip(apply_nuisance(photo, first), apply_nuisance(photo, again), strict=True):
        np.testing.assert_array_equal(image, repeated)


def test_ranges_and_probabilities_of_zero_leave_the_photo_alone() -> None:
    nothing = dict.fromkeys(
        [name for name in NuisanceSettings.model_fields if name not in ("jpeg_quality", "jpeg_probability")],
        0.0,
    )
    still = NuisanceSettings.model_validate({**nothing, "jpeg_probability": 0.0})
    photo = noise_photo()
    for seed in range(5):
        drawn = draw_nuisance(np.random.default_rng(seed), still, warped=True)
        image, shown = apply_nuisance(photo, drawn)
        np.testing.assert_array_equal(image, photo)
        assert (shown == 255).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_asked_for_is_shifted(share: float) -> None:
    wanted = NuisanceSettings(shift_probability=share)
    rng = np.random.default_rng(0)
    shifted = [any(draw_nuisance(rng, wanted).corners) for _ in range(600)]
    assert np.mean(shifted) == pytest.approx(share, abs=0.09)  # 4 sigma
