"""Test sets measured shard by shard, stopped and resumed: the report is the one of a single pass."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cd_pipeline.data.images import Image
from cd_pipeline.data.palette import class_palette
from cd_pipeline.data.samples import Roots
from cd_pipeline.engine.records import ShardRecords
from cd_pipeline.engine.runner import ShardRunner
from cd_pipeline.evaluation import class_predictions, image_predictions, predictions
from cd_pipeline.evaluation.portable import PortableNetwork
from cd_pipeline.evaluation.predict import network_probabilities
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.evaluation.report import TestReport
from cd_pipeline.evaluation.tiled import Probabilities
from cd_pipeline.models.runtime import Runtime, resolve_runtime
from cd_pipeline_tests.evaluation import test_class_predictions as several_classes
from cd_pipeline_tests.evaluation import test_image_predictions as one_class
from cd_pipeline_tests.tiny_pairs import BrightnessChange, draw_pair, write_pairs_to

pytestmark = pytest.mark.usefixtures("one_torch_thread")

Measure = Callable[..., TestReport]
PATCHED = ("predictions", "image_predictions", "class_predictions")


@dataclass
class Case:
    """A test set of five, and what measures it."""

    measure: Measure
    rows: Sequence[Any]
    roots: Roots
    predictor: Predictor
    look: dict[str, Any] = field(default_factory=dict)

    def report(self, out: Path, predictor: Predictor | None = None, *, kept: bool = False) -> TestReport:
        records = ShardRecords(out, "one recipe") if kept else None
        return self.measure(
            predictor or self.predictor,
            self.rows,
            self.roots,
            out,
            shown=3,
            runner=ShardRunner(records=records),
            **self.look,
        )


def pairs(root: Path) -> Case:
    rows, roots = write_pairs_to(root, [draw_pair(seed, 64, changed=seed != 2) for seed in range(5)])
    network = network_probabilities(BrightnessChange(), Runtime())
    return Case(predictions.measure_pairs, rows, roots, Predictor(network, 64, 0.3))


def images(root: Path) -> Case:
    rows, roots = one_class.write_images(root, one_class.five())
    return Case(image_predictions.measure_images, rows, roots, one_class.predictor())


def classes(root: Path) -> Case:
    rows, roots = several_classes.write_images(root, several_classes.five())
    network = network_probabilities(several_classes.Steps(several_classes.CLASSES), Runtime())
    predictor = Predictor(network, several_classes.SIDE, None, overlap=8)
    look = {"names": several_classes.NAMES, "palette": class_palette(several_classes.CLASSES)}
    return Case(class_predictions.measure_classes, rows, roots, predictor, look)


@pytest.fixture(params=[pairs, images, classes], ids=["pairs", "images", "classes"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    found: Case = request.param(tmp_path / "pictures")
    return found


class Counted:
    """A network that counts what it is asked, and can end it all."""

    def __init__(self, network: Probabilities, calls: int | None = None) -> None:
        self.network, self.left, self.asked = network, calls, 0

    def __call__(self, pictures: Sequence[Image]) -> Any:  # noqa: ANN401 - as the network
        if self.asked == self.left:
            raise KeyboardInterrupt
        self.asked += 1
        return self.network(pictures)


def same(found: TestReport, expected: TestReport) -> None:
    assert found.metrics == expected.metrics
    assert found.tables == expected.tables
    assert found.headline == expected.headline
    pd.testing.assert_frame_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.sheet, expected.sheet)
    assert (found.sweep is None) == (expected.sweep is None)
    if found.sweep is not None and expected.sweep is not None:
        pd.testing.assert_frame_equal(found.sweep.frame(), expected.sweep.frame())


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_report_does_not_depend_on_the_size_of_a_shard(
    case: Case, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = case.report(tmp_path / "whole")
    for module in PATCHED:
        monkeypatch.setattr(f"cd_pipeline.evaluation.{module}.EXAMPLES_A_SHARD", size)
    same(case.report(tmp_path / "out"), whole)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_report_that_was_stopped_is_made_of_what_was_done_and_the_rest(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in PATCHED:
        monkeypatch.setattr(f"cd_pipeline.evaluation.{module}.EXAMPLES_A_SHARD", 1)
    out, network = tmp_path / "out", case.predictor.network
    once = Counted(network)
    whole = case.report(tmp_path / "whole", replace(case.predictor, network=once))
    with pytest.raises(KeyboardInterrupt):
        case.report(out, replace(case.predictor, network=Counted(network, once.asked * 2 // 3)), kept=True)
    rest = Counted(network)
    same(case.report(out, replace(case.predictor, network=rest), kept=True), whole)
    assert 0 < rest.asked < once.asked / 2 + 2
    nothing = Counted(network)
    same(case.report(out, replace(case.predictor, network=nothing), kept=True), whole)
    assert nothing.asked == 0  # all of it came from the records


def test_what_was_predicted_by_another_rule_is_not_believed(case: Case, tmp_path: Path) -> None:
    out, other = tmp_path / "out", replace(case.predictor, overlap=4, min_area=9)
    case.report(out, kept=True)
    network = Counted(case.predictor.network)
    found = case.report(out, replace(other, network=network), kept=True)
    assert network.asked > 0
    same(found, case.report(tmp_path / "whole", other))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_network_is_brought_to_a_device_by_whoever_calls_it() -> None:
    network = PortableNetwork(BrightnessChange(), partial(resolve_runtime, device="cpu", threads=1))
    before, after = (np.full((2, 16, 16, 3), grey, np.uint8) for grey in (90, 120))
    direct = network_probabilities(BrightnessChange(), Runtime())([before, after])
    for copy in (network, pickle.loads(pickle.dumps(network))):
        np.testing.assert_array_equal(copy([before, after]), direct)
    assert len(pickle.dumps(network)) == len(pickle.dumps(pickle.loads(pickle.dumps(network))))
