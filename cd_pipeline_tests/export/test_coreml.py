"""The package's interface, its reproducibility and its safe replacement on disk."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cd_pipeline.data.task import Task
from cd_pipeline.export.coreml import (
    export_mlpackage,
    import_coremltools,
    load_spec,
    package_digest,
    read_package_metadata,
)
from cd_pipeline.export.network import ExportedNetwork, evaluation_copy

SIZE = 16
REPOSITORY = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("one_torch_thread")


class TinyDetector(nn.Module):
    """A detector that treats its two inputs differently."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Conv2d(6, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return self.layers(torch.cat([before, after], 1))


class TinySegmenter(nn.Module):
    """One image to C logits a pixel; in training to those of two heads."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Conv2d(3, classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        logits = self.layers(image)
        return [logits, logits] if self.training else logits


def export_segmenter(path: Path, classes: int, **changes: object) -> Path:
    settings = {"metadata": {"class_names": "sky, road, car"}, "description": "Names pixels.", **changes}
    task = Task(pictures=1, classes=classes)
    model = TinySegmenter(classes).train()
    export_mlpackage(model, path, task=task, size=SIZE, pixel_scale=1 / 255, **settings)
    return path


def export(path: Path, seed: int = 0, **changes: object) -> Path:
    settings = {"metadata": {"threshold": "0.42"}, "description": "Finds changes.", **changes}
    export_mlpackage(TinyDetector(seed), path, size=SIZE, pixel_scale=1 / 255, **settings)
    return path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("package") / "detector.mlpackage")


def package_files(package: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(package)): file.read_bytes() for file in package.rglob("*") if file.is_file()
    }


def test_the_wrapper_gives_the_sigmoid_of_the_logits() -> None:
    model = TinyDetector().eval()
    before, after = torch.rand(2, 1, 3, SIZE, SIZE)
    expected = 1 / (1 + np.exp(-model(before, after).detach().double().numpy()))
    found = ExportedNetwork(model, Task())(before, after).detach()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_of_several_classes_the_wrapper_gives_the_softmax_and_the_largest() -> None:
    model, image = TinySegmenter(3).eval(), torch.rand(1, 3, SIZE, SIZE)
    logits = model(image).detach().double().numpy()
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    probability, class_map = ExportedNetwork(model, Task(pictures=1, classes=3))(image)
    np.testing.assert_allclose(probability.detach(), expected, atol=1e-6)
    np.testing.assert_array_equal(class_map, logits.argmax(1))


def test_the_interface_of_one_image_and_a_binary_mask(tmp_path: Path) -> None:
    description = load_spec(export_segmenter(tmp_path / "a.mlpackage", 1, metadata={})).description
    (image,), (output,) = description.input, description.output
    assert (image.name, image.shortDescription) == ("image", "The image: RGB, 16x16 pixels, values 0-255")
    assert (output.name, list(output.type.multiArrayType.shape)) == ("probability", [1, 1, SIZE, SIZE])
    assert output.shortDescription == (
        "Probability from 0 to 1 that a pixel is foreground, float32, shape (1, 1, 16, 16)"
    )


def test_the_interface_of_several_classes_has_their_probabilities_and_a_class_map(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = export_segmenter(tmp_path / "a.mlpackage", 3)
    assert caplog.records == [], "an export tells nothing"
    description = load_spec(path).description
    assert [feature.name for feature in description.input] == ["image"]
    probability, class_map = description.output
    shapes = [list(output.type.multiArrayType.shape) for output in (probability, class_map)]
    assert shapes == [[1, 3, SIZE, SIZE], [1, SIZE, SIZE]]
    types = [output.type.multiArrayType.dataType for output in (probability, class_map)]
    assert types == [probability.type.multiArrayType.FLOAT32, probability.type.multiArrayType.INT32]
    assert (probability.name, class_map.name) == ("probability", "class_map")
    assert "float32, shape (1, 3, 16, 16)" in probability.shortDescription
    assert "int32, shape (1, 16, 16), values 0 to 2" in class_map.shortDescription
    for output in (probability, class_map):
        assert "in the order of the metadata entry class_names" in output.shortDescription
    assert read_package_metadata(path)["class_names"] == "sky, road, car"


def test_the_interface_is_two_rgb_images_and_a_float_probability(package: Path) -> None:
    description = load_spec(package).description
    for feature, name in zip(description.input, ("before", "after"), strict=True):
        image = feature.type.imageType
        assert (feature.name, image.height, image.width, image.colorSpace) == (name, SIZE, SIZE, image.RGB)
        assert "0-255" in feature.shortDescription
    (output,) = description.output
    array = output.type.multiArrayType
    assert (output.name, list(array.shape)) == ("probability", [1, 1, SIZE, SIZE])
    assert array.dataType == array.FLOAT32
    assert "0 to 1" in output.shortDescription
    assert description.metadata.shortDescription == "Finds changes."
    assert (description.metadata.author, description.metadata.license) == ("", "")


def test_the_package_runs_on_ios_16_in_half_precision(package: Path) -> None:
    spec = load_spec(package)
    assert spec.specificationVersion == 7
    assert list(spec.mlProgram.functions["main"].block_specializations) == ["CoreML6"]
    assert any("fp16" in operation.outputs[0].name for operation in main_operations(package))


def test_float32_keeps_every_op_in_float32(tmp_path: Path) -> None:
    path = export(tmp_path / "full.mlpackage", precision="float32")
    assert not any("fp16" in operation.outputs[0].name for operation in main_operations(path))


def main_operations(package: Path) -> list:
    (block,) = load_spec(package).mlProgram.functions["main"].block_specializations.values()
    return list(block.operations)


def test_metadata_comes_back_as_it_was_given(package: Path) -> None:
    metadata = read_package_metadata(package)
    assert metadata["threshold"] == "0.42"
    assert not any("date" in key for key in metadata)


def test_two_exports_are_equal_byte_for_byte(package: Path, tmp_path: Path) -> None:
    again = export(tmp_path / "again.mlpackage")
    assert package_files(again) == package_files(package)
    assert package_digest(again) == package_digest(package)


@pytest.mark.slow
def test_an_export_by_another_process_is_equal_byte_for_byte(package: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.mlpackage"
    code = (
        "from pathlib import Path; from cd_pipeline_tests.export.test_coreml import export; "
        f"export(Path({str(path)!r}))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert package_files(path) == package_files(package)
    assert (done.stdout, done.stderr) == (b"", b""), "an export prints nothing"


def test_the_digest_changes_with_weights_and_metadata_but_not_with_identifiers_or_dates(
    package: Path, tmp_path: Path
) -> None:
    other_weights = export(tmp_path / "weights.mlpackage", seed=1)
    other_text = export(tmp_path / "text.mlpackage", metadata={"threshold": "0.43"})
    assert len({package_digest(path) for path in (package, other_weights, other_text)}) == 3
    spec = load_spec(other_text)
    spec.description.metadata.userDefined["com.github.apple.coremltools.conversion_date"] = "2020-01-01"
    digest = package_digest(other_text)
    (other_text / "Data/com.apple.CoreML/model.mlmodel").write_bytes(spec.SerializeToString())
    manifest = other_text / "Manifest.json"
    root = json.loads(manifest.read_text())["rootModelIdentifier"]
    manifest.write_text(manifest.read_text().replace(root, "11111111-2222-3333-4444-555555555555"))
    assert package_digest(other_text) == digest


def test_the_manifest_is_one_that_coremltools_reads(package: Path) -> None:
    model = import_coremltools().models.MLModel(str(package), skip_model_load=True)
    assert model.user_defined_metadata["threshold"] == "0.42"
    assert Path(model.weights_dir, "weight.bin").stat().st_size > 0


def test_a_new_export_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = export(tmp_path / "detector.mlpackage")
    (path / "stray.txt").write_text("of the old package")
    first = package_digest(path)
    export(path, seed=1)
    assert package_digest(path) != first
    assert not (path / "stray.txt").exists()
    assert [item.name for item in tmp_path.iterdir()] == ["detector.mlpackage"]


@pytest.mark.slow
def test_a_failed_replacement_leaves_the_old_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export(tmp_path / "detector.mlpackage")
    files = package_files(path)
    rename = Path.rename

    def refuse_the_new_one(self: Path, target: Path) -> Path:
        if ".new." in self.name:
            raise OSError("disk full")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse_the_new_one)
        with pytest.raises(OSError, match="disk full"):
            export(path, seed=1)
    assert package_files(path) == files
    assert [item.name for item in tmp_path.iterdir()] == ["detector.mlpackage"]


@pytest.mark.slow
def test_an_export_after_a_kill_between_the_renames_keeps_the_old_package_until_the_new_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export(tmp_path / "detector.mlpackage")
    files = package_files(path)
    path.rename(tmp_path / ".detector.old.mlpackage")
    (tmp_path / ".detector.new.mlpackage").mkdir()
    ct = import_coremltools()

    def fail(self: object, place: str) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(ct.models.MLModel, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        export(path, seed=1)
    assert package_files(path) == files
    assert [item.name for item in tmp_path.iterdir()] == ["detector.mlpackage"]


def test_the_model_is_left_in_training_mode_with_its_type(tmp_path: Path) -> None:
    model = TinyDetector().train().double()
    export_mlpackage(
        model, tmp_path / "a.mlpackage", size=SIZE, pixel_scale=1 / 255, metadata={}, description=""
    )
    assert model.training
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    copied = evaluation_copy(model)
    assert not copied.training
    assert {p.dtype for p in copied.parameters()} == {torch.float32}


def test_progress_bars_and_log_records_of_others_still_work_after_an_export(
    package: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    list(tqdm([1, 2], desc="mine"))
    logging.getLogger("coremltools").warning("Torch version: a record after the import")
    assert "mine" in capsys.readouterr().err
    assert "a record after the import" in caplog.text


def test_a_model_with_logits_of_another_size_is_refused(tmp_path: Path) -> None:
    model = TinyDetector()
    model.layers.append(nn.MaxPool2d(2))
    with pytest.raises(ValueError, match=r"found shape \(1, 1, 8, 8\), expected \(1, 1, 16, 16\)"):
        export_mlpackage(
            model, tmp_path / "a.mlpackage", size=SIZE, pixel_scale=1 / 255, metadata={}, description=""
        )
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be named \*\.mlpackage, found suffix '\.mlmodel'"):
        export(tmp_path / "a.mlmodel")
    with pytest.raises(TypeError, match="metadata 'threshold': found float, expected str"):
        export(tmp_path / "a.mlpackage", metadata={"threshold": 0.5})
    with pytest.raises(ValueError, match="no 'class_names'; give the names of the 3 classes in order"):
        export_segmenter(tmp_path / "a.mlpackage", 3, metadata={})
    with pytest.raises(FileNotFoundError, match=r"none\.mlpackage: no Core ML package"):
        read_package_metadata(tmp_path / "none.mlpackage")
