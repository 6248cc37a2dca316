"""What `ChangeDetector` and `Segmenter` say of photos, against models whose answers are computed by hand."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import cd_pipeline
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.preprocessing import equalised
from cd_pipeline.prediction.detector import ChangeDetector, Segmenter, load_model
from cd_pipeline.prediction.opened_model import open_model
from cd_pipeline_tests.prediction.known_models import SIZE, change_probability, write_torchscript
from cd_pipeline_tests.prediction.test_registration import draw_scene

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def detector(tmp_path: Path) -> ChangeDetector:
    return ChangeDetector.load(write_torchscript(tmp_path / "change_ts.pt"))


def noisy(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def grey(height: int, width: int, value: int = 60) -> Image:
    return np.full((height, width, 3), value, np.uint8)


def by_area(picture: Image, height: int, width: int) -> Image:
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def linearly(values: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float64]:
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float64)


def test_photos_of_the_models_size_are_answered_pixel_by_pixel(detector: ChangeDetector) -> None:
    before, after = noisy(SIZE, SIZE, 1), noisy(SIZE, SIZE, 2)
    found, expected = detector.predict(before, after), change_probability(before, after)
    assert found.probability.dtype == np.float32
    assert np.abs(found.probability - expected).max() < 1e-5
    clear = np.abs(expected - 0.5) > 1e-4
    assert ((found.mask == 255) == (expected > 0.5))[clear].all()
    assert found.changed_fraction == (found.mask == 255).mean()
    assert found.covered.all()
    assert found.transform is None


@pytest.mark.parametrize(("height", "width"), [(75, 101), (20, 24), (32, 90)])
def test_whole_photos_are_resized_whatever_their_shape(
    detector: ChangeDetector, height: int, width: int
) -> None:
    before, after = noisy(height, width, 3), noisy(height, width, 4)
    small = change_probability(by_area(before, SIZE, SIZE), by_area(after, SIZE, SIZE))
    found = detector.predict(before, after)
    assert np.abs(found.probability - linearly(small, height, width)).max() < 1e-5


@pytest.mark.parametrize(("height", "width"), [(64, 40), (40, 64), (200, 20), (64, 64)])
def test_a_letterbox_keeps_the_shape_and_its_padding_is_cut_off(
    detector: ChangeDetector, height: int, width: int
) -> None:
    before, after = noisy(height, width, 5), noisy(height, width, 6)
    inner = round(height * SIZE / max(height, width)), round(width * SIZE / max(height, width))
    small = change_probability(by_area(before, *inner), by_area(after, *inner))
    found = detector.predict(before, after, fit="letterbox")
    assert np.abs(found.probability - linearly(small, height, width)).max() < 1e-5


@pytest.mark.parametrize(("height", "width"), [(75, 101), (20, 24), (32, 33)])
def test_tiles_keep_the_photos_own_scale(detector: ChangeDetector, height: int, width: int) -> None:
    before, after = noisy(height, width, 7), noisy(height, width, 8)
    found = detector.predict(before, after, fit="tile")
    assert np.abs(found.probability - change_probability(before, after)).max() < 1e-5


def test_the_fit_is_the_models_own_unless_another_is_asked_for(tmp_path: Path) -> None:
    tiled = ChangeDetector.load(write_torchscript(tmp_path / "tiles_ts.pt", fit="tile", overlap=8))
    before, after = noisy(70, 90, 9), noisy(70, 90, 10)
    assert np.abs(tiled.predict(before, after).probability - change_probability(before, after)).max() < 1e-5
    whole = tiled.predict(before, after, fit="resize").probability
    small = change_probability(by_area(before, SIZE, SIZE), by_area(after, SIZE, SIZE))
    assert np.abs(whole - linearly(small, 70, 90)).max() < 1e-5


@pytest.mark.parametrize("fit", ["resize", "letterbox", "tile"])
def test_a_change_is_found_where_it_is_in_the_first_photo(detector: ChangeDetector, fit: str) -> None:
    before, after = grey(240, 320), grey(240, 320)
    after[60:150, 200:280] = 255
    found = detector.predict(before, by_area(after, 120, 160), fit=fit)  # type: ignore[arg-type]
    assert found.mask.shape == (240, 320)
    (box,) = found.boxes
    assert abs(box.left - 200) <= 10
    assert abs(box.top - 60) <= 10
    assert abs(box.width - 80) <= 20
    assert abs(box.height - 90) <= 20
    assert found.changed_fraction == pytest.approx(80 * 90 / (240 * 320), abs=0.03)


def test_photos_can_be_paths(detector: ChangeDetector, tmp_path: Path) -> None:
    before, after = noisy(40, 50, 11), noisy(40, 50, 12)
    write_png(tmp_path / "a.png", before)
    write_png(tmp_path / "b.png", after)
    from_files = detector.predict(tmp_path / "a.png", str(tmp_path / "b.png"))
    assert (from_files.probability == detector.predict(before, after).probability).all()


def test_photos_of_different_shapes_are_refused_with_what_can_be_done(detector: ChangeDetector) -> None:
    with pytest.raises(ValueError, match=r"different shapes, 60x40 and 40x60 px: crop.*register.*resize"):
        detector.predict(grey(40, 60), grey(60, 40))
    assert detector.predict(grey(40, 60), grey(60, 40), fit="resize").mask.shape == (40, 60)


def test_shapes_that_differ_by_rounding_are_the_same(detector: ChangeDetector) -> None:
    assert detector.predict(grey(300, 400), grey(299, 400)).mask.shape == (300, 400)


def test_a_moved_second_photo_is_unchanged_once_it_is_registered(tmp_path: Path) -> None:
    detector = ChangeDetector.load(write_torchscript(tmp_path / "tiles_ts.pt", fit="tile", overlap=8))
    scene = draw_scene(np.random.default_rng(2))
    before, after = scene[:300, :380], scene[20:, 40:].copy()
    after[100:160, 100:160] = (255, 0, 255)  # at 140, 120 of the first
    before = before.copy()
    before[120:180, 140:200] = (0, 255, 0)
    assert detector.predict(before, after).changed_fraction > 0.15
    found = detector.predict(before, after, register="features")
    largest = found.boxes[0]
    assert abs(largest.left - 140) <= 2
    assert abs(largest.top - 120) <= 2
    assert found.changed_fraction < 0.045  # the square is 0.036 of what both show
    assert found.transform is not None
    assert found.transform[:2, 2] == pytest.approx([-40, -20], abs=0.5)
    assert not found.mask[:, :38].any()
    assert not found.probability[:18].any()
    assert found.covered_fraction == pytest.approx(340 * 280 / (380 * 300), abs=0.01)
    assert found.changed_fraction == pytest.approx((found.mask > 0).sum() / found.covered.sum())


def test_the_threshold_is_the_models_own_or_the_one_given(tmp_path: Path) -> None:
    path = write_torchscript(tmp_path / "change_ts.pt", threshold=0.3)
    before, after = noisy(SIZE, SIZE, 1), noisy(SIZE, SIZE, 2)
    expected = change_probability(before, after)
    for threshold, detector in (
        (0.3, ChangeDetector.load(path)),
        (0.8, ChangeDetector.load(path, threshold=0.8)),
    ):
        assert detector.threshold == threshold
        found = detector.predict(before, after).changed_fraction
        assert found == pytest.approx((expected > threshold).mean(), abs=2 / SIZE**2)


def test_a_model_without_a_threshold_needs_one(tmp_path: Path) -> None:
    opened = open_model(write_torchscript(tmp_path / "change_ts.pt"))
    bare = replace(opened, interface=replace(opened.interface, threshold=None), no_threshold="none was kept")
    with pytest.raises(ValueError, match=r"change_ts\.pt: has no threshold, as none was kept; give one"):
        ChangeDetector(bare)
    assert ChangeDetector(bare, threshold=0.6).threshold == 0.6


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(tmp_path: Path, threshold: float) -> None:
    with pytest.raises(ValueError, match="expected a number from 0 to below 1"):
        ChangeDetector.load(write_torchscript(tmp_path / "change_ts.pt"), threshold=threshold)


def test_the_models_mask_rule_is_kept(tmp_path: Path) -> None:
    before, after = grey(SIZE, SIZE), grey(SIZE, SIZE)
    after[3:6, 3:6] = 255  # 9 px
    after[12:22, 12:22] = 255  # 100 px
    plain = ChangeDetector.load(write_torchscript(tmp_path / "plain_ts.pt")).predict(before, after)
    ruled = ChangeDetector.load(write_torchscript(tmp_path / "ruled_ts.pt", min_area=50)).predict(
        before, after
    )
    assert [box.area for box in plain.boxes] == [100, 9]
    assert [box.area for box in ruled.boxes] == [100]


@pytest.mark.parametrize("option", [{"fit": "stretch"}, {"register": "orb"}])
def test_an_unknown_option_is_refused_with_those_there_are(
    detector: ChangeDetector, option: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="use one of: "):
        detector.predict(grey(40, 40), grey(40, 40), **option)  # type: ignore[arg-type]


def test_one_class_in_one_photo_is_marked(tmp_path: Path) -> None:
    segmenter = Segmenter.load(write_torchscript(tmp_path / "crack_ts.pt", pictures=1))
    photo = noisy(SIZE, SIZE, 13)
    found = segmenter.predict(photo)
    assert ((found.mask == 255) == (photo[..., 0] > 127.5)).all()
    assert found.marked_fraction == (photo[..., 0] > 127.5).mean()
    assert found.fractions == {}


def test_the_contrast_of_the_whole_photo_is_equalised_where_the_model_was_trained_so(tmp_path: Path) -> None:
    path = write_torchscript(tmp_path / "crack_ts.pt", pictures=1, clahe=2.0, fit="tile", overlap=8)
    photo = noisy(70, 80, 14) // 2
    found = Segmenter.load(path).predict(photo)
    assert ((found.mask == 255) == (equalised(photo, 2.0)[..., 0] > 127.5)).all()


@pytest.mark.parametrize("fit", ["resize", "tile", "letterbox"])
def test_of_several_classes_each_pixel_has_the_most_probable_one(tmp_path: Path, fit: str) -> None:
    names = ("background", "road", "car")
    path = write_torchscript(tmp_path / "street_ts.pt", pictures=1, classes=3, class_names=names)
    photo = np.zeros((60, 100, 3), np.uint8)
    photo[..., 0] = 200
    photo[30:, :, :] = (0, 220, 0)
    photo[40:50, 20:40, :] = (0, 0, 240)
    photo[40:50, 60:80, :] = (0, 0, 240)
    segmenter = Segmenter.load(path)
    found = segmenter.predict(photo, fit=fit)  # type: ignore[arg-type]
    assert segmenter.class_names == names
    assert found.mask.shape == (60, 100)
    inside = {(10, 50): 0, (35, 50): 1, (45, 30): 2, (45, 70): 2, (55, 5): 1}
    assert {place: int(found.mask[place]) for place in inside} == inside
    assert [box.class_name for box in found.boxes] == ["road", "car", "car"]
    assert found.fractions == {
        name: pytest.approx((found.mask == index).mean()) for index, name in enumerate(names)
    }
    assert found.fractions["car"] == pytest.approx(400 / 6000, abs=0.03)
    assert found.marked_fraction == pytest.approx(found.fractions["road"] + found.fractions["car"])
    logits = 9 * np.array([200, 0, 0]) / 255
    certain = np.exp(logits[0]) / np.exp(logits).sum()
    assert found.probability[10, 50] == pytest.approx(certain, abs=1e-5)


def test_the_threshold_of_several_classes_is_refused(tmp_path: Path) -> None:
    path = write_torchscript(tmp_path / "street_ts.pt", pictures=1, classes=3)
    with pytest.raises(ValueError, match="the most probable one is taken"):
        Segmenter.load(path, threshold=0.5)
    assert Segmenter.load(path).threshold is None


def test_a_model_of_another_task_says_what_to_use(tmp_path: Path) -> None:
    one = write_torchscript(tmp_path / "one_ts.pt", pictures=1)
    two = write_torchscript(tmp_path / "two_ts.pt")
    with pytest.raises(ValueError, match=r"one_ts\.pt: takes image, not 2 pictures; use Segmenter"):
        ChangeDetector.load(one)
    with pytest.raises(ValueError, match=r"takes before and after, .*use ChangeDetector"):
        Segmenter.load(two)
    assert isinstance(load_model(one), Segmenter)
    assert isinstance(load_model(two), ChangeDetector)


def test_the_package_itself_offers_the_classes() -> None:
    assert cd_pipeline.ChangeDetector is ChangeDetector
    assert cd_pipeline.Segmenter is Segmenter
