"""TorchScript and ONNX: the same answers as the network, the same bytes every time, the same facts inside."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from cd_pipeline.data.task import Task
from cd_pipeline.export.agreement import AgreementLimits, Reference, measure_agreement
from cd_pipeline.export.onnx import OnnxForm, OnnxMissingError, export_onnx
from cd_pipeline.export.torchscript import TorchScriptForm, export_torchscript

SIZE = 16
PAIR, CLASSES = Task(), Task(pictures=1, classes=3)
WRITERS = {"torchscript": export_torchscript, "onnx": export_onnx}
FORMS = {"torchscript": TorchScriptForm, "onnx": OnnxForm}
METADATA = {"threshold": "0.42", "recipe": "rooms"}

pytestmark = pytest.mark.usefixtures("one_torch_thread")


class Network(nn.Module):
    """A few layers on all pictures, one behind the other; the order of the pictures matters."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        torch.manual_seed(0)
        channels = 3 * task.pictures
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Hardswish(),
            nn.Conv2d(8, task.classes, 1),
        )
        with torch.no_grad():
            self.train()(*torch.rand(task.pictures, 4, 3, SIZE, SIZE))
            self.layers[-1].weight *= 20
            self.layers[-1].bias -= self.eval()(*torch.rand(task.pictures, 4, 3, SIZE, SIZE)).mean((0, 2, 3))

    def forward(self, *pictures: Tensor) -> Tensor:
        return self.layers(torch.cat(pictures, 1))


def samples(task: Task) -> list[tuple[np.ndarray, ...]]:
    drawn = np.random.default_rng(0).integers(0, 256, (3, task.pictures, SIZE, SIZE, 3), dtype=np.uint8)
    return [tuple(pictures) for pictures in drawn]


def write(form: str, path: Path, task: Task = PAIR, model: nn.Module | None = None) -> Path:
    WRITERS[form](model or Network(task), path, task=task, size=SIZE, metadata=METADATA)
    return path


@pytest.mark.parametrize("task", [PAIR, CLASSES])
@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_what_the_network_gives(form: str, task: Task, tmp_path: Path) -> None:
    model = Network(task)
    reference = Reference.of(model, task, None if task.multi_class else 0.5)
    found = FORMS[form](write(form, tmp_path / "a", task, model), reference)
    agreement = measure_agreement(reference, {form: found}, samples(task))[form]
    assert (agreement.samples, agreement.non_empty_samples) == (3, 3)
    assert agreement.max_probability_difference < 1e-5
    assert AgreementLimits().violations(agreement) == []


@pytest.mark.parametrize(
    "fault",
    [
        lambda model: lambda before, after: model(after, before),
        lambda model: lambda before, after: model(before.flip(1), after.flip(1)),
        lambda model: lambda before, after: model(before * 255, after * 255),
    ],
    ids=["photos exchanged", "channels swapped", "/255 forgotten"],
)
@pytest.mark.parametrize("form", FORMS)
def test_a_faulty_form_is_caught(
    form: str, fault: Callable[[nn.Module], Callable[[Tensor, Tensor], Tensor]], tmp_path: Path
) -> None:
    class Faulty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = Network(PAIR)

        def forward(self, before: Tensor, after: Tensor) -> Tensor:
            return fault(self.model)(before, after)

    reference = Reference.of(Network(PAIR), PAIR, 0.5)
    found = FORMS[form](write(form, tmp_path / "a", PAIR, Faulty()), reference)
    agreement = measure_agreement(reference, {form: found}, samples(PAIR))[form]
    assert any("probability difference" in text for text in AgreementLimits().violations(agreement))


@pytest.mark.parametrize("form", FORMS)
def test_the_same_network_gives_the_same_bytes_however_many_were_exported_before(
    form: str, tmp_path: Path
) -> None:
    first = write(form, tmp_path / "first").read_bytes()
    write(form, tmp_path / "other", CLASSES)
    assert write(form, tmp_path / "second").read_bytes() == first
    assert b"torch_mangle" not in first
    assert str(Path(__file__).parents[2]).encode() not in first


@pytest.mark.parametrize("form", FORMS)
def test_the_bytes_do_not_depend_on_what_the_process_asked_of_torch_before(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(form, tmp_path / "first").read_bytes()
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.use_deterministic_algorithms(True, warn_only=True)  # as training does; undone by the fixture
    assert write(form, tmp_path / "second").read_bytes() == first
    assert torch.backends.cudnn.benchmark
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)


def test_torchscript_says_what_it_is_and_runs_without_this_package(tmp_path: Path) -> None:
    path = write("torchscript", tmp_path / "a.pt")
    with zipfile.ZipFile(path) as archive:
        (name,) = (entry for entry in archive.namelist() if entry.endswith("metadata.json"))
        assert json.loads(archive.read(name)) == METADATA
    code = (
        "import sys, torch\n"
        f"script = torch.jit.load({str(path)!r})\n"
        f"x = torch.rand(2, 3, {SIZE}, {SIZE})\n"
        "print(tuple(script(x, x).shape), 'cd_pipeline' in sys.modules, 'timm' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"(2, 1, {SIZE}, {SIZE}) False False"


def test_onnx_says_what_it_is_and_names_its_ports(tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(
        write("onnx", tmp_path / "a.onnx"), providers=["CPUExecutionProvider"]
    )
    assert session.get_modelmeta().custom_metadata_map == METADATA
    assert [(port.name, port.shape) for port in session.get_inputs()] == [
        ("before", [1, 3, SIZE, SIZE]),
        ("after", [1, 3, SIZE, SIZE]),
    ]
    assert [(port.name, port.shape) for port in session.get_outputs()] == [
        ("probability", [1, 1, SIZE, SIZE])
    ]
    many = write("onnx", tmp_path / "b.onnx", CLASSES)
    onnx.checker.check_model(str(many), full_check=True)
    assert [value.name for value in onnx.load(many).graph.output] == ["probability", "class_map"]


def test_without_the_extra_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(OnnxMissingError, match=r"export\.onnx: .*onnxruntime.*\.\[onnx\]"):
        OnnxForm(write("onnx", tmp_path / "a.onnx"), Reference.of(Network(PAIR), PAIR, 0.5))
