"""The forms of a model: the same answer from each, and errors that name the file and the remedy."""

import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image as Picture
from torch import nn

from cd_pipeline.data.preprocessing import PIXEL_SCALE
from cd_pipeline.data.task import Task
from cd_pipeline.evaluation.predict import predict_probability
from cd_pipeline.evaluation.threshold import ChosenThreshold
from cd_pipeline.export import package_check
from cd_pipeline.export.coreml import export_mlpackage
from cd_pipeline.export.torchscript import export_torchscript
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.prediction import core_ml_model
from cd_pipeline.prediction.detector import ChangeDetector, Segmenter
from cd_pipeline.prediction.opened_model import open_model
from cd_pipeline.recipe import Recipe
from cd_pipeline.training.checkpoint import Checkpoint, save_checkpoint
from cd_pipeline_tests.prediction.known_models import (
    SIZE,
    Brightest,
    Difference,
    change_probability,
    known_interface,
    write_torchscript,
)

pytestmark = [
    pytest.mark.usefixtures("one_torch_thread"),
    pytest.mark.filterwarnings("ignore:.torch.jit"),
]
Pictures = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


@pytest.fixture
def photos() -> Pictures:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8) for _ in range(2))
    return first, second


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "change_detector.mlpackage"
    metadata = known_interface().to_metadata()
    export_mlpackage(
        Difference(), path, size=SIZE, pixel_scale=PIXEL_SCALE, metadata=metadata, description="Known."
    )
    return path


def write_onnx(path: Path, samples: int | str) -> Path:
    """Write the graph of `Difference` by hand, for a fixed number of samples at once or for any (a name)."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, floats = onnx.helper, onnx.TensorProto.FLOAT
    ports = [
        make.make_tensor_value_info(name, floats, [samples, 3, SIZE, SIZE]) for name in ("before", "after")
    ]
    result = make.make_tensor_value_info("probability", floats, [samples, 1, SIZE, SIZE])
    numbers = [
        make.make_tensor("quarter", floats, [], [0.25]),
        make.make_tensor("twelve", floats, [], [12.0]),
        make.make_tensor("channels", onnx.TensorProto.INT64, [1], [1]),
    ]
    nodes = [
        make.make_node("Sub", ["before", "after"], ["signed"]),
        make.make_node("Abs", ["signed"], ["difference"]),
        make.make_node("ReduceMean", ["difference", "channels"], ["mean"]),
        make.make_node("Sub", ["mean", "quarter"], ["above"]),
        make.make_node("Mul", ["above", "twelve"], ["logit"]),
        make.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    graph = make.make_graph(nodes, "difference", ports, [result], numbers)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=9)
    make.set_model_props(model, known_interface().to_metadata())
    path.write_bytes(model.SerializeToString())
    return path


def write_checkpoint(path: Path, **settings: object) -> Checkpoint:
    recipe = Recipe(
        name="walls",
        source={"layout": "labelled_photos"},  # type: ignore[arg-type]
        input={"size": SIZE},  # type: ignore[arg-type]
        model={"name": "siamese_unet", "width": 8, "pretrained": False},  # type: ignore[arg-type]
        **settings,
    )
    torch.manual_seed(0)
    blank = Checkpoint({}, recipe.plain(), [], {}, False, "d" * 64, 1)
    from cd_pipeline.models.build import build_model

    network = build_model(recipe.model, recipe.task, recipe.input)
    saved = replace(blank, weights=network.state_dict())
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, saved)
    return saved


def write_threshold(folder: Path, version: str) -> None:
    folder.mkdir()
    ChosenThreshold(0.37, 0.8, 0.7, 0.8, 0.8, version).save(folder / "threshold.json")


def test_a_package_is_computed_op_by_op(package: Path, photos: Pictures) -> None:
    detector = ChangeDetector.load(package)
    assert detector.threshold == 0.5
    found = detector.predict(*photos)
    assert np.abs(found.probability - change_probability(*photos)).max() < 0.01  # float16


def test_tiles_go_through_a_package_one_by_one(package: Path) -> None:
    rng = np.random.default_rng(4)
    before, after = (rng.integers(0, 256, (50, 70, 3), np.uint8) for _ in range(2))
    found = ChangeDetector.load(package).predict(before, after, fit="tile")
    assert np.abs(found.probability - change_probability(before, after)).max() < 0.01


def test_on_macos_core_ml_itself_is_given_pictures(
    package: Path, photos: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    class CoreML:
        def __init__(self, path: str, compute_units: object) -> None:
            opened.append((path, compute_units))

        def predict(self, given: dict[str, Picture.Image]) -> dict[str, npt.NDArray[np.float32]]:
            assert {picture.mode for picture in given.values()} == {"RGB"}
            before, after = (np.asarray(given[name]) for name in ("before", "after"))
            return {"probability": change_probability(before, after).astype(np.float32)[None, None]}

    units = {"ALL": "anywhere", "CPU_ONLY": "the CPU"}
    fake = SimpleNamespace(ComputeUnit=units, models=SimpleNamespace(MLModel=CoreML))
    monkeypatch.setattr(package_check, "import_coremltools", lambda: fake)
    monkeypatch.setattr(core_ml_model, "sys", SimpleNamespace(platform="darwin"))
    found = ChangeDetector.load(package, device="cpu").predict(*photos)
    assert np.abs(found.probability - change_probability(*photos)).max() < 1e-5
    assert opened == [(str(package), "the CPU")]


@pytest.mark.parametrize("samples", ["batch", 1])
def test_onnx_gives_the_same_whatever_its_batch_size(
    tmp_path: Path, photos: Pictures, samples: int | str
) -> None:
    path = write_onnx(tmp_path / "change.onnx", samples)
    found = ChangeDetector.load(path).predict(*photos)
    assert np.abs(found.probability - change_probability(*photos)).max() < 1e-5
    rng = np.random.default_rng(4)
    before, after = (rng.integers(0, 256, (50, 70, 3), np.uint8) for _ in range(2))
    tiled = ChangeDetector.load(path).predict(before, after, fit="tile")
    assert np.abs(tiled.probability - change_probability(before, after)).max() < 1e-5


def test_onnx_computes_on_the_devices_it_has(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "change.onnx", 1)
    assert open_model(path, "cpu").device == "cpu"
    with pytest.raises(ValueError, match="device is 'mps', which ONNX Runtime lacks here"):
        open_model(path, "mps")


@pytest.mark.slow
def test_onnx_of_several_classes_as_the_pipeline_exports_it(tmp_path: Path, photos: Pictures) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from cd_pipeline.export.onnx import export_onnx

    path, metadata = tmp_path / "classes.onnx", known_interface(1, 3).to_metadata()
    task = Task(pictures=1, classes=3)
    export_onnx(Brightest(), path, task=task, size=SIZE, metadata=metadata)
    found = Segmenter.load(path).predict(photos[0])
    assert (found.mask == photos[0].argmax(axis=2)).all()


def test_without_onnx_runtime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "change.onnx").write_bytes(b"any")
    with pytest.raises(ValueError, match=r"change\.onnx: ONNX Runtime is not installed: .*\[onnx\]"):
        open_model(tmp_path / "change.onnx")


def test_a_checkpoint_predicts_with_the_threshold_chosen_for_it(tmp_path: Path, photos: Pictures) -> None:
    path = tmp_path / "checkpoint" / "model.pt"
    saved = write_checkpoint(path)
    write_threshold(tmp_path / "threshold", saved.version)
    detector = ChangeDetector.load(path)
    assert detector.threshold == 0.37
    assert detector.interface.checkpoint_version == saved.version
    expected = predict_probability(saved.model(), *photos, runtime=Runtime())
    found = detector.predict(*photos)
    assert np.abs(found.probability - expected).max() < 1e-6
    assert ((found.mask == 255) == (found.probability > 0.37)).all()


def test_the_mask_rule_of_a_checkpoint_is_that_of_its_recipe(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    prediction = {"overlap": 0.5, "opening": 3, "min_area": 50}
    write_checkpoint(path, prediction=prediction, threshold={"smooth": True})
    known = ChangeDetector.load(path, threshold=0.5).interface
    assert (known.overlap, known.opening, known.min_area, known.smooth) == (SIZE // 2, 3, 50, True)
    assert (known.size, known.fit, known.recipe) == (SIZE, "resize", "walls")


@pytest.mark.parametrize(
    ("version", "reason"),
    [(None, r"threshold\.json is not there"), ("other", r"threshold\.json was chosen for another")],
)
def test_a_checkpoint_without_its_threshold_needs_one(
    tmp_path: Path, version: str | None, reason: str
) -> None:
    path = tmp_path / "checkpoint" / "model.pt"
    write_checkpoint(path)
    if version:
        write_threshold(tmp_path / "threshold", version)
    with pytest.raises(ValueError, match=rf"model\.pt: has no threshold, as .*{reason}"):
        ChangeDetector.load(path)
    assert ChangeDetector.load(path, threshold=0.5).threshold == 0.5


def test_torchscript_as_the_pipeline_exports_it_agrees_with_the_checkpoint(
    tmp_path: Path, photos: Pictures
) -> None:
    saved = write_checkpoint(tmp_path / "model.pt")
    metadata = known_interface().to_metadata()
    export_torchscript(saved.model(), tmp_path / "change_ts.pt", task=Task(), size=SIZE, metadata=metadata)
    files = [tmp_path / "model.pt", tmp_path / "change_ts.pt"]
    first, second = (ChangeDetector.load(file, threshold=0.5).predict(*photos) for file in files)
    assert np.abs(first.probability - second.probability).max() < 1e-5


def test_what_is_no_model_is_refused_by_name(tmp_path: Path, package: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "folder").mkdir()
    for name in ("notes.txt", "folder"):
        with pytest.raises(ValueError, match=rf"{name}: .*expected TorchScript or a checkpoint"):
            open_model(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"gone\.pt: no such model"):
        open_model(tmp_path / "gone.pt")
    (tmp_path / "empty.mlpackage").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty\.mlpackage: no Core ML package"):
        open_model(tmp_path / "empty.mlpackage")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    names = ["model.pt", *(["model.onnx"] if "onnxruntime" in sys.modules else [])]
    for name in names:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.(pt|onnx): not a readable") as caught:
            open_model(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_torchscript_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_torchscript(tmp_path / "change_ts.pt")
    damaged = tmp_path / "damaged_ts.pt"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(damaged, "w") as less:
        for name in whole.namelist():
            if not name.endswith("data.pkl"):
                less.writestr(name, whole.read(name))
    with pytest.raises(ValueError, match=r"damaged_ts\.pt: not readable TorchScript"):
        open_model(damaged)


def test_torchscript_of_others_is_refused(tmp_path: Path) -> None:
    traced = torch.jit.trace(nn.Identity(), torch.zeros(1))
    torch.jit.save(traced, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt: no metadata\.json inside"):
        open_model(tmp_path / "other.pt")
    torch.jit.save(traced, tmp_path / "old.pt", _extra_files={"metadata.json": json.dumps({"a": "b"})})
    with pytest.raises(ValueError, match=r"old\.pt: the metadata lack pictures"):
        open_model(tmp_path / "old.pt")


def test_metadata_that_the_network_does_not_keep_are_refused(tmp_path: Path, photos: Pictures) -> None:
    good = write_torchscript(tmp_path / "change_ts.pt")
    module = torch.jit.load(good)
    text = json.dumps(known_interface(2, 3).to_metadata())
    torch.jit.save(module, tmp_path / "wrong_ts.pt", _extra_files={"metadata.json": text})
    opened = open_model(tmp_path / "wrong_ts.pt")
    with pytest.raises(ValueError, match=r"wrong_ts\.pt: found a probability of shape \(1, 1, 32, 32\)"):
        opened.network([picture[None] for picture in photos])


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda:99", "mps:0:1"])
def test_a_device_that_is_not_there_is_refused(tmp_path: Path, device: str) -> None:
    path = write_torchscript(tmp_path / "change_ts.pt")
    with pytest.raises(ValueError, match=r"^device is "):
        open_model(path, device)
