"""The check of packages with several classes, and with one image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cd_pipeline.data.task import Task
from cd_pipeline.export.agreement import Agreement, AgreementLimits, AgreementSums, Answer
from cd_pipeline.export.coreml import export_mlpackage
from cd_pipeline.export.mil_executor import PackageExecutor
from cd_pipeline.export.network import ExportedNetwork
from cd_pipeline.export.package_check import class_map_faults
from cd_pipeline_tests.export.checking import check_package

SIZE = 16
CLASSES = 4
MANY = Task(pictures=1, classes=CLASSES)
BINARY = Task(pictures=1)

pytestmark = pytest.mark.usefixtures("one_torch_thread")


class Segmenter(nn.Module):
    """One image to C logits a pixel."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, classes, 1))
        with torch.no_grad():
            for layer in self.layers[::2]:
                layer.weight.mul_(4)
            centred = self.layers(torch.rand(1, 3, 64, 64)).mean((0, 2, 3))
            self.layers[-1].bias.sub_(centred)  # each class somewhere

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


def export(model: nn.Module, path: Path, task: Task = MANY) -> Path:
    export_mlpackage(
        model, path, task=task, size=SIZE, pixel_scale=1 / 255, metadata={"class_names": ""}, description=""
    )
    return path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(Segmenter(CLASSES), tmp_path_factory.mktemp("classes") / "a.mlpackage")


@pytest.fixture(scope="module")
def samples() -> list[tuple[np.ndarray]]:
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    return [(image,) for image in images]


def check(
    path: Path, model: nn.Module, samples: list, task: Task = MANY, threshold: float | None = None
) -> Agreement:
    return check_package(path, model, iter(samples), task=task, threshold=threshold)


def test_the_figures_of_several_classes_are_those_of_a_direct_computation(
    package: Path, samples: list[tuple[np.ndarray]]
) -> None:
    model = Segmenter(CLASSES)
    with torch.no_grad():
        # another network than the exported one, so that there is something to count
        model.layers[-1].bias += torch.tensor([0.3, -0.3, 0.1, 0.0])
        batch = torch.from_numpy(np.concatenate(samples)).permute(0, 3, 1, 2) / 255
        expected = model(batch).softmax(1).numpy()
    outputs = [PackageExecutor(package).run({"image": image}) for (image,) in samples]
    found = np.concatenate([output["probability"] for output in outputs])
    classes = expected.argmax(1), np.concatenate([output["class_map"] for output in outputs])
    assert set(np.unique(classes[0])) == set(range(CLASSES))
    masks = [(classes[0] == c, classes[1] == c) for c in range(1, CLASSES)]
    iou = sum((a & b).sum() for a, b in masks) / sum((a | b).sum() for a, b in masks)

    agreement = check(package, model, samples)
    assert (agreement.samples, agreement.non_empty_samples, agreement.decision_faults) == (3, 3, 0)
    assert agreement.mask_iou == pytest.approx(iou)
    assert 0.5 < iou < 0.99
    assert agreement.flipped_share == pytest.approx((classes[0] != classes[1]).mean())
    assert agreement.max_probability_difference == pytest.approx(np.abs(expected - found).max(), abs=1e-6)
    assert agreement.mean_probability_difference == pytest.approx(np.abs(expected - found).mean(), abs=1e-6)


def test_a_faithful_package_of_several_classes_agrees(
    package: Path, samples: list[tuple[np.ndarray]]
) -> None:
    agreement = check(package, Segmenter(CLASSES), samples)
    assert AgreementLimits().violations(agreement) == []
    assert 0 < agreement.max_probability_difference < 0.01


def test_a_package_with_two_classes_exchanged_is_caught(
    package: Path, samples: list[tuple[np.ndarray]]
) -> None:
    # equal as sets of probabilities, and its class_map fits them
    model = Segmenter(CLASSES)
    with torch.no_grad():
        for values in model.layers[-1].parameters():
            values.copy_(values[[0, 2, 1, 3]])
    agreement = check(package, model, samples)
    assert agreement.decision_faults == 0
    sentences = " ".join(AgreementLimits().violations(agreement))
    for fault in ("largest probability difference", "IoU of the masks", "of the pixels change class"):
        assert fault in sentences


def test_a_class_map_that_is_not_of_the_largest_probability_is_caught(
    samples: list[tuple[np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: ExportedNetwork, image: Tensor) -> tuple[Tensor, Tensor]:
        probability = self.model(image).softmax(1)
        return probability, (probability * torch.tensor([1, 1, 0.5, 1]).reshape(1, -1, 1, 1)).argmax(1)

    monkeypatch.setattr(ExportedNetwork, "forward", forward)
    path = export(Segmenter(CLASSES), tmp_path / "a.mlpackage")
    agreement = check(path, Segmenter(CLASSES), samples)
    assert agreement.max_probability_difference < 0.01
    assert agreement.decision_faults == pytest.approx(agreement.flipped_share * 3 * SIZE * SIZE, abs=3)
    assert any(
        "pixels the mask or class_map is not" in sentence
        for sentence in AgreementLimits().violations(agreement)
    )


def test_of_equal_probabilities_any_class_is_right_and_an_unknown_one_is_not() -> None:
    probability = np.array([[0.4, 0.4, 0.2], [0.2, 0.2, 0.6]], np.float32).T.reshape(1, 3, 1, 2)
    for classes, faults in (([0, 2], 0), ([1, 2], 0), ([2, 2], 1), ([0, 3], 1), ([-1, 0], 2)):
        assert class_map_faults(probability, np.array([[classes]], np.int32)) == faults


def test_the_iou_is_pooled_over_the_classes_other_than_0() -> None:
    probability = np.zeros((1, 3, 1, 6), np.float32)
    sums = AgreementSums()
    for expected, found in (([0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 2]), ([0] * 6, [1] * 6)):
        sums.add(*(Answer(probability, np.array([[classes]])) for classes in (expected, found)))
    # class 1: 1 of 3, class 2: 2 of 3; the second sample, empty for the model, is left out
    assert (sums.intersection, sums.union) == (3, 6)
    assert (sums.non_empty_samples, sums.flipped, sums.pixels, sums.values) == (1, 8, 12, 36)


def test_a_binary_package_of_one_image_agrees_and_one_of_other_weights_does_not(
    samples: list[tuple[np.ndarray]], tmp_path: Path
) -> None:
    path = export(Segmenter(1), tmp_path / "a.mlpackage", BINARY)
    agreement = check(path, Segmenter(1), samples, BINARY, 0.5)
    assert (agreement.samples, agreement.non_empty_samples, AgreementLimits().violations(agreement)) == (
        3,
        3,
        [],
    )
    other = Segmenter(1)
    with torch.no_grad():
        other.layers[0].weight.neg_()
    assert AgreementLimits().violations(check(path, other, samples, BINARY, 0.5))
    with pytest.raises(
        ValueError, match=r"outputs \['probability'\], expected \['image'\] and \['class_map', "
    ):
        check(path, Segmenter(CLASSES), samples)


def test_what_does_not_fit_the_task_is_refused(package: Path, samples: list[tuple[np.ndarray]]) -> None:
    model = Segmenter(CLASSES)
    with pytest.raises(
        ValueError, match=r"threshold 0\.5: expected a number with one class, None with several"
    ):
        check(package, model, samples, threshold=0.5)
    with pytest.raises(ValueError, match="threshold None"):
        check(package, model, samples, BINARY)
    with pytest.raises(ValueError, match=r"inputs \['image'\] .* expected \['after', 'before'\]"):
        check(package, model, samples, Task(classes=CLASSES))
    with pytest.raises(ValueError, match=r"shape \(1, 4, 16, 16\), expected 3 at its second place"):
        check(package, model, samples, Task(pictures=1, classes=3))
    with pytest.raises(ValueError, match="sample 0: found 2 pictures, expected 1"):
        check(package, model, [samples[0] * 2])
    with pytest.raises(ValueError, match=r"gives \(1, 5, 16, 16\), the export \(1, 4, 16, 16\)"):
        check(package, Segmenter(5), samples)
