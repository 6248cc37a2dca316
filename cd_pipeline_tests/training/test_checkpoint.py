import io
import os
import pickle
import random
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from torch import Tensor

from cd_pipeline.data.settings import InputSettings
from cd_pipeline.models.tiny_change_unet import TinyChangeUNet
from cd_pipeline.training.checkpoint import (
    FORMAT,
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
    weights_digest,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")

HISTORY: list[dict[str, Any]] = [
    {"epoch": 1, "val_f1": 0.25, "train_loss": 0.5},
    {"epoch": 2, "val_f1": 0.5, "train_loss": 0.25},
]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(
        weights=dict(TinyChangeUNet().state_dict()),
        recipe={
            "name": "rooms",
            "model": {"name": "tiny_change_unet", "pretrained": True},
            "input": InputSettings().model_dump(),
            "classes": ["a", "ㄱ"],
        },
        history=HISTORY,
        versions={"torch": str(torch.__version__)},
        pretrained=False,
        data_version="abc",
        best_epoch=1,
    )


def test_what_is_saved_is_loaded_again(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.pt", checkpoint)
    loaded = load_checkpoint(tmp_path / "model.pt")
    assert list(loaded.weights) == list(checkpoint.weights)
    assert all(torch.equal(loaded.weights[name], value) for name, value in checkpoint.weights.items())
    for field in ("recipe", "history", "versions", "pretrained", "data_version", "version", "task"):
        assert getattr(loaded, field) == getattr(checkpoint, field)


def test_torch_alone_loads_it_without_running_code(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.pt", checkpoint)
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    TinyChangeUNet().load_state_dict(content["weights"])
    assert content["history"] == HISTORY


def test_the_model_of_a_checkpoint_answers_as_the_one_that_was_saved(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "model.pt", checkpoint)
    original = TinyChangeUNet().eval()
    original.load_state_dict(checkpoint.weights)
    loaded = load_checkpoint(tmp_path / "model.pt").model()
    photos = torch.rand(2, 1, 3, 64, 64)
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(*photos), original(*photos))


def test_weights_of_another_network_are_an_error_of_one_line(checkpoint: Checkpoint) -> None:
    other = replace(checkpoint, recipe={**checkpoint.recipe, "model": {"name": "tiny_siamese_unet"}})
    with pytest.raises(CheckpointError, match=r"weights of another .*materialize checkpoint again") as caught:
        other.model()
    assert "\n" not in str(caught.value)


def test_channels_last_weights_are_the_same_weights(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = TinyChangeUNet()
    model.load_state_dict(checkpoint.weights)
    weights = dict(model.to(memory_format=torch.channels_last).state_dict())  # type: ignore[call-overload]
    assert weights_digest(weights) == checkpoint.version
    save_checkpoint(tmp_path / "model.pt", Checkpoint(weights, {}, [], {}, False, "", 1))
    assert load_checkpoint(tmp_path / "model.pt").version == checkpoint.version


def saved_bytes(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def broken_files() -> dict[str, bytes]:
    whole = saved_bytes({"format": FORMAT, "weights": {"w": torch.zeros(500)}})
    rng = random.Random(0)
    return {
        "empty": b"",
        "text": b"these are not weights\n",
        "html": b"<!DOCTYPE html><html></html>",
        "zeros": bytes(1000),
        "cut to half": whole[: len(whole) // 2],
        "last byte lost": whole[:-1],
        "a plain state dict": saved_bytes({"w": torch.zeros(2)}),
        "a tensor": saved_bytes(torch.zeros(2)),
        "the format before": saved_bytes({"format": FORMAT - 1, "weights": {}}),
        "another format": saved_bytes({"format": 999, "weights": {}}),
        "fields missing": whole,
        "fields unknown": saved_bytes({"format": FORMAT, "optimizer": {}}),
        "objects in it": saved_bytes({"format": FORMAT, "weights": random.Random(0)}),
        **{f"noise {i}": rng.randbytes(rng.randint(1, 60)) for i in range(150)},
        **{f"pickle-like noise {i}": b"\x80\x02" + rng.randbytes(rng.randint(1, 30)) for i in range(150)},
    }


@pytest.mark.parametrize("name", [n for n in broken_files() if "noise" not in n])
def test_a_file_that_is_no_checkpoint_is_named_with_the_remedy(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(broken_files()[name])
    with pytest.raises(
        CheckpointError, match=r"model\.pt: not a .*delete it and materialize checkpoint again"
    ):
        load_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_noise_is_never_anything_but_a_checkpoint_error(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    for content in broken_files().values():
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


def test_an_interrupted_write_leaves_the_old_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(path, checkpoint)
    unwritable = Checkpoint(checkpoint.weights, {"model": lambda: None}, [], {}, False, "", 1)
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, unwritable)
    assert load_checkpoint(path).version == checkpoint.version
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


BASE: dict[str, Tensor] = {"a.weight": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}


@pytest.mark.parametrize(
    "other",
    [
        {**BASE, "a.weight": BASE["a.weight"] + torch.tensor([[0, 0, 0], [0, 0, 1e-6]])},
        {**BASE, "a.weight": BASE["a.weight"].reshape(3, 2)},
        {**BASE, "n": torch.tensor(4)},
        {"b.weight": BASE["a.weight"], "n": BASE["n"]},
        {"a.weight": BASE["a.weight"]},
        {**BASE, "extra": torch.zeros(0)},
    ],
)
def test_another_value_name_or_shape_gives_another_digest(other: dict[str, Tensor]) -> None:
    assert weights_digest(other) != weights_digest(BASE)


def test_the_digest_does_not_depend_on_how_values_lie_in_memory() -> None:
    strided = {**BASE, "a.weight": BASE["a.weight"].t().contiguous().t()}
    assert weights_digest(strided) == weights_digest(BASE)


class Payload:
    """Pickled, it is a call of `os.mkdir`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_code_in_a_file_is_not_run(tmp_path: Path, zipped: bool, plain: bool) -> None:
    path, trace = tmp_path / "model.pt", tmp_path / "trace"
    content = {"format": FORMAT, "weights": Payload(trace)}
    if plain:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="not a readable checkpoint") as caught:
        load_checkpoint(path)
    assert len(str(caught.value).splitlines()) == 1
    assert not trace.exists()
    if zipped and not plain:
        torch.load(path, weights_only=False)  # the payload is a real one
        assert trace.exists()


def content_of(checkpoint: Checkpoint) -> dict[str, Any]:
    names = (part.name for part in fields(Checkpoint))
    return {"format": FORMAT, **{name: getattr(checkpoint, name) for name in names}}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": torch.zeros(3)},
        {"format": float(FORMAT)},
        {"weights": []},
        {"weights": {1: torch.zeros(2)}},
        {"weights": {"a": 1.0}},
        {"weights": {"a": torch.zeros(3).to_sparse()}},
        {"weights": {"a": torch.zeros(1).expand(1 << 40)}},
        {"weights": {"a": torch.zeros(3, device="meta")}},
        {"recipe": None},
        {"history": {}},
        {"best_epoch": "1"},
        {"task": [1]},
        {1: 2},
        {"more": 1},
    ],
)
def test_values_of_another_form_are_an_error_of_one_line(
    checkpoint: Checkpoint, tmp_path: Path, changes: dict[Any, Any]
) -> None:
    path = tmp_path / "model.pt"
    torch.save({**content_of(checkpoint), **changes}, path)
    with pytest.raises(CheckpointError, match=r"model\.pt: not a .*materialize checkpoint again") as caught:
        load_checkpoint(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_packed_file_is_refused_before_it_is_unpacked(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({**content_of(checkpoint), "weights": {"a": torch.zeros(1 << 20)}}, path)
    assert load_checkpoint(path).weights["a"].shape == (1 << 20,)
    with ZipFile(path) as file:
        parts = {part.filename: file.read(part) for part in file.infolist()}
    with ZipFile(path, "w", ZIP_DEFLATED) as file:
        for name, part in parts.items():
            file.writestr(name, part)
    assert path.stat().st_size < 20_000
    with pytest.raises(CheckpointError, match="its parts are compressed, or overlap"):
        load_checkpoint(path)


def test_a_missing_checkpoint_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": {}},
        {"recipe": {"model": {"name": "tiny_change_unet"}}},
        {"recipe": {"model": {"name": "none"}, "input": {}}},
        {"recipe": {"model": [1], "input": {}}},
        {"recipe": {"model": {1: 2}, "input": {}}},
        {"task": {"pictures": 7}},
        {"task": {"unknown": 1}},
    ],
)
def test_settings_that_make_no_network_are_an_error_of_one_line(
    checkpoint: Checkpoint, changes: dict[str, Any]
) -> None:
    with pytest.raises(CheckpointError, match=r"model\.pt: .*materialize checkpoint again") as caught:
        replace(checkpoint, **changes).model()
    assert len(str(caught.value).splitlines()) == 1
