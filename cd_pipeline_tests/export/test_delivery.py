"""What is delivered: every form proven, the limits of the recipe, and the card that says it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cd_pipeline.data.task import Task
from cd_pipeline.export.agreement import AgreementLimits, Pictures, Reference
from cd_pipeline.export.coreml import PackageLabel, load_spec, read_package_metadata
from cd_pipeline.export.delivery import Delivery, DeliveryPlan, deliver
from cd_pipeline.export.interface import ModelInterface
from cd_pipeline.export.model_card import CardFacts, model_card

SIZE = 16
PLAN = DeliveryPlan(
    interface=ModelInterface(Task(), SIZE, threshold=0.5, recipe="rooms", checkpoint_version="c" * 64),
    package="change_detector.mlpackage",
    torchscript="change_ts.pt",
    onnx="change_detector.onnx",
    description="Marks what changed.",
    label=PackageLabel("A. Author", "CC-BY-4.0", "7"),
    metadata={"test_f1": "0.81"},
    mask=True,
)

pytestmark = [pytest.mark.usefixtures("one_torch_thread"), pytest.mark.slow]


class Gain(nn.Module):
    """The logit is a multiple of the mean difference, less an offset."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return self.gain * ((after - before).mean(1, keepdim=True) - 0.1)


def pairs() -> list[Pictures]:
    drawn = np.random.default_rng(0).integers(0, 256, (4, 2, SIZE, SIZE, 3), dtype=np.uint8)
    return [(before, after) for before, after in drawn]


def delivered(folder: Path, plan: DeliveryPlan = PLAN, gain: float = 5.0) -> Delivery:
    return deliver(Reference.of(Gain(gain), Task(), 0.5), folder, pairs, plan)


def test_every_form_is_written_and_compared_on_every_sample(tmp_path: Path) -> None:
    done = delivered(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "change_detector.mlpackage",
        "change_detector.onnx",
        "change_ts.pt",
    ]
    assert set(done.agreements) >= {"package", "float32", "torchscript", "onnx"}
    assert {agreement.samples for agreement in done.agreements.values()} == {4}
    assert done.broken == ()
    assert json.loads(json.dumps(done.plain()))["forms"]["onnx"]["samples"] == 4


def test_the_package_says_who_made_it_and_how_it_is_used(tmp_path: Path) -> None:
    delivered(tmp_path)
    path = tmp_path / PLAN.package
    told = load_spec(path).description.metadata
    assert (told.author, told.license, told.versionString) == ("A. Author", "CC-BY-4.0", "7")
    metadata = read_package_metadata(path)
    assert ModelInterface.from_metadata(metadata, "here") == PLAN.interface
    assert (metadata["test_f1"], metadata["precision"]) == ("0.81", "float16")
    outputs = {output.name: output.type.WhichOneof("Type") for output in load_spec(path).description.output}
    assert outputs == {"probability": "multiArrayType", "mask": "imageType"}


def test_where_float16_breaks_a_limit_the_ops_in_float32_are_named(tmp_path: Path) -> None:
    strict = AgreementLimits(max_probability_difference=1e-4)
    done = delivered(tmp_path, replace(PLAN, limits=strict, onnx=None), gain=30.0)
    assert done.package.precision == "mixed"
    assert any("float16: The largest probability difference is" in text for text in done.package.given_up)
    assert any("(sub)" in name for name in done.package.float32_ops)
    told = read_package_metadata(tmp_path / PLAN.package)
    assert told["float32_ops"].split(", ") == list(done.package.float32_ops)


def test_a_limit_that_no_precision_keeps_is_reported(tmp_path: Path) -> None:
    done = delivered(tmp_path, replace(PLAN, limits=AgreementLimits(min_mask_iou=1.1), onnx=None))
    assert done.package.precision == "float32"
    assert any("required is 1.1" in sentence for sentence in done.broken)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> str:
    return model_card(facts(delivered(tmp_path_factory.mktemp("card")).plain()))


def facts(delivery: dict) -> CardFacts:
    return CardFacts(
        title="change_detector",
        description=PLAN.description,
        label=PackageLabel("", "CC-BY-4.0", "7"),
        interface=PLAN.interface,
        ports=("inputs: before, after.",),
        preparation="the whole picture is resized",
        marking="probability > threshold",
        network="Gain of 0 parameters",
        pretrained=False,
        samples={"train": 118, "val": 33},
        metrics={"f1": 0.8125, "pairs": 35, "differencing_oracle_f1": 0.46, "by_class": [], "nothing": None},
        delivery=delivery,
        versions={"checkpoint": "c" * 64, "torch": "2.7"},
    )


def test_the_card_says_results_agreement_and_what_was_not_verified(card: str) -> None:
    for text in (
        "| f1 | 0.8125 |",
        "| pairs | 35 |",
        "what plain differencing of the two photos reaches",
        "Author: not stated. Licence: CC-BY-4.0. Version: 7.",
        "Rows of the manifest: 118 train, 33 val.",
        "It was not run by Core ML, nor on any device.",
        "coremltools issue 2625",
        "| ONNX, by ONNX Runtime | 4 |",
        "- torch: `2.7`",
    ):
        assert text in card
    assert "by_class" not in card
    assert "nothing" not in card


def test_every_table_of_the_card_has_as_many_cells_a_row(card: str) -> None:
    for block in re.findall(r"(?:^\|.*\|\n)+", card, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_on_a_mac_the_card_says_that_core_ml_has_run_it(card: str, tmp_path: Path) -> None:
    delivery = delivered(tmp_path).plain()
    delivery["forms"]["core_ml"] = delivery["forms"]["package"]
    text = model_card(facts(delivery))
    assert "was run by Core ML on a Mac. It was not run on a phone." in text
    assert "Core ML package, by Core ML on this Mac | 4" in text


def test_a_prediction_without_any_mark_is_said_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    done = deliver(Reference.of(Gain(0.0), Task(), 0.5), tmp_path, pairs, replace(PLAN, onnx=None))
    assert "every prediction is empty" in model_card(facts(done.plain()))
