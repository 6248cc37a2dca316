"""The checkpoint file: weights with all that says what they are. It loads with `weights_only=True`."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor

from cd_pipeline.data.files import digest, write_bytes
from cd_pipeline.data.settings import InputSettings
from cd_pipeline.data.task import Task
from cd_pipeline.models.build import build_model
from cd_pipeline.models.network import Network
from cd_pipeline.models.settings import ModelSettings

FORMAT = 2
KINDS: dict[str, type] = {
    "weights": dict,
    "recipe": dict,
    "history": list,
    "versions": dict,
    "pretrained": bool,
    "data_version": str,
    "best_epoch": int,
    "task": dict,
}
"""Of the fields in the file."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; the message names the file and the remedy."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights, and plain values.

    `task` is what the network is given and answers, `data_version` the hash of the manifest it was trained on,
    `pretrained` whether the encoder started from ImageNet weights, `versions` those of the packages,
    `best_epoch` the one the weights are of.
    """

    weights: dict[str, Tensor]
    recipe: dict[str, Any]
    history: list[dict[str, Any]]
    versions: dict[str, str]
    pretrained: bool
    data_version: str
    best_epoch: int
    task: dict[str, int] = field(default_factory=lambda: Task().plain())

    @property
    def version(self) -> str:
        """Content hash of the weights."""
        return weights_digest(self.weights)

    def model(self) -> Network:
        """Build the network with these weights, in evaluation mode on the CPU.

        Raises:
            CheckpointError: the weights are of another version of the network, or its settings are.
        """
        try:
            model = build_model(
                ModelSettings(**self.recipe["model"]),
                Task(**self.task),
                InputSettings(**self.recipe["input"]),
            )
        except (ValueError, TypeError, KeyError) as error:
            reason = " ".join(str(error).split())[:160]
            raise CheckpointError(
                f"model.pt: settings of another network ({reason}); materialize checkpoint again"
            ) from None
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:160]
            raise CheckpointError(
                f"model.pt: weights of another {reason}; materialize checkpoint again"
            ) from None
        return model.eval()


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, shapes and values of a state dict."""
    parts = (
        (name, tuple(value.shape), value.contiguous().cpu().numpy().tobytes())
        for name, value in weights.items()
    )
    return digest(*(part for triple in parts for part in triple))


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all."""
    content = {
        "format": FORMAT,
        "weights": {name: value.contiguous() for name, value in checkpoint.weights.items()},
        "recipe": checkpoint.recipe,
        "history": checkpoint.history,
        "versions": checkpoint.versions,
        "pretrained": checkpoint.pretrained,
        "data_version": checkpoint.data_version,
        "best_epoch": checkpoint.best_epoch,
        "task": checkpoint.task,
    }
    buffer = io.BytesIO()  # torch says nothing of the disk that it cannot write to
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; no code in it is run.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: not a checkpoint of this format.
    """
    remedy = "delete it and materialize checkpoint again"
    try:
        _refuse_packed(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # the unpickler fails in many ways on foreign bytes
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason}); {remedy}") from None
    if problem := _problem(content):
        raise CheckpointError(f"{path}: not a checkpoint of {problem}; {remedy}")
    return Checkpoint(**{name: value for name, value in content.items() if name != "format"})


def _refuse_packed(path: Path) -> None:
    # What torch saves is a zip whose parts are as long as their bytes; a packed one could hold gigabytes.
    with ZipFile(path) as file:
        parts = file.infolist()
    size = path.stat().st_size
    if (
        any(part.compress_type != ZIP_STORED for part in parts)
        or sum(part.file_size for part in parts) > size
    ):
        raise ValueError("its parts are compressed, or overlap")


def _problem(content: object) -> str:
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(content, dict) or type(found) is not int or found != FORMAT:
        return f"format {FORMAT}"
    expected = {"format", *(part.name for part in fields(Checkpoint))}
    if set(content) != expected:
        return f"this version (fields {sorted(map(str, set(content) ^ expected))})"
    if other := [name for name, kind in KINDS.items() if not isinstance(content[name], kind)]:
        return f"this version (values of another type in {', '.join(other)})"
    if strange := [name for name, value in content["weights"].items() if not _is_plain(name, value)]:
        return f"this version (no plain array in weights, at {str(strange[0])[:80]!r})"
    return ""


def _is_plain(name: object, value: object) -> bool:
    # neither sparse nor quantized nor without data, nor one number that poses as many
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.is_contiguous()
    )
