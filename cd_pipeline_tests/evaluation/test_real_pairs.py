from pathlib import Path

import numpy as np
import pytest

from cd_pipeline.data.images import read_mask, write_png
from cd_pipeline.data.samples import Sample
from cd_pipeline.evaluation.metrics import Confusion, pooled
from cd_pipeline.evaluation.nuisance import nuisance_seed, standard_nuisance
from cd_pipeline.evaluation.predict import network_probabilities
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.evaluation.real_pairs import measure_real_pairs, sized_pairs
from cd_pipeline.models.runtime import Runtime
from cd_pipeline_tests.tiny_pairs import BrightnessChange, draw_pair, enlarged

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SIZE = 64
PREDICTOR = Predictor(network_probabilities(BrightnessChange(), Runtime()), SIZE, 0.3)


def plain_prediction(pair: Sample) -> np.ndarray:
    difference = np.abs(pair.before.astype(np.float64) - pair.after).mean(-1) / 255
    return np.asarray(1 / (1 + np.exp(-40 * (difference - 0.1))) > 0.3)


@pytest.fixture
def pairs() -> dict[str, Sample]:
    return {f"pair_{i}": draw_pair(i, SIZE) for i in range(3)}


@pytest.fixture
def folder(tmp_path: Path, pairs: dict[str, Sample]) -> Path:
    for name, pair in pairs.items():
        for part, image in zip(("A", "B", "label"), pair.arrays, strict=True):
            write_png(tmp_path / "real" / part / f"{name}.png", enlarged(image, 2, 3))
    return tmp_path / "real"


def test_both_rows_are_those_of_a_plain_computation(
    folder: Path, pairs: dict[str, Sample], tmp_path: Path
) -> None:
    scores = measure_real_pairs(PREDICTOR, folder, tmp_path / "own").scores
    plain = pooled(Confusion.of(plain_prediction(pair), pair.mask) for pair in pairs.values())
    assert scores["as they are"].f1 == pytest.approx(plain.f1)
    disturbed = [
        Sample.of_pair(pair.before, standard_nuisance(pair.after, nuisance_seed(name, "after")), pair.mask)
        for name, pair in pairs.items()
    ]
    worse = pooled(Confusion.of(plain_prediction(pair), pair.mask) for pair in disturbed)
    assert scores["with nuisance on the second photo"].f1 == pytest.approx(worse.f1)
    assert scores["as they are"].pairs == 3


def test_each_pair_gets_a_png_of_its_own_size_and_leftovers_go(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    write_png(own / "old.png", np.zeros((4, 4), np.uint8))
    measure_real_pairs(PREDICTOR, folder, own)
    assert sorted(path.name for path in own.iterdir()) == ["pair_0.png", "pair_1.png", "pair_2.png"]
    assert read_mask(own / "pair_0.png").shape == (128, 192)


def test_an_unusable_pair_is_left_out_with_its_reason(folder: Path, tmp_path: Path) -> None:
    (folder / "B" / "pair_1.png").write_bytes(b"no picture")
    (folder / "label" / "pair_2.png").unlink()
    found = measure_real_pairs(PREDICTOR, folder, tmp_path / "own")
    assert found.scores["as they are"].pairs == len(found.rows) == 1
    assert len(found.problems) == 2
    assert any("pair_1.png" in problem for problem in found.problems)
    assert "pair_2: not in label" in found.problems


def test_without_a_usable_pair_there_is_an_error(folder: Path, tmp_path: Path) -> None:
    for path in (folder / "A").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="no usable pair"):
        measure_real_pairs(PREDICTOR, folder, tmp_path / "own")


def test_the_version_is_that_of_the_predicted_masks(folder: Path, tmp_path: Path) -> None:
    first, again = (measure_real_pairs(PREDICTOR, folder, tmp_path / "own").version for _ in range(2))
    assert first == again
    nothing = Predictor(network_probabilities(BrightnessChange(), Runtime()), SIZE, 1.0)
    assert measure_real_pairs(nothing, folder, tmp_path / "own").version != first


def test_pairs_come_at_the_input_size(folder: Path, pairs: dict[str, Sample]) -> None:
    sized = dict(sized_pairs(folder, SIZE, []))
    assert list(sized) == list(pairs)
    for name, pair in pairs.items():
        for ours, drawn in zip(sized[name].arrays, pair.arrays, strict=True):
            np.testing.assert_array_equal(ours, drawn)
