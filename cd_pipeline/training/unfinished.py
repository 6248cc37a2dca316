"""The state of a training that has not ended: a stopped one goes on after its last whole epoch."""

import io
import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cd_pipeline.data.files import TEMPORARY, read_sealed, write_sealed
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.training.distributed import gathered

MAGIC = b"cd_pipeline unfinished training 1 "
"""The kind of the file, for `write_sealed`; its payload is of `torch.save`."""


@dataclass(frozen=True, slots=True)
class TrainingState:
    """All that training needs after an epoch, as tensors and plain values.

    Attributes:
        epoch: how many epochs are done.
        model: state dict of the network.
        average: state dict of its average.
        optimizer: state dict.
        scaler: state dict.
        random: states of torch's generators, by device, of each process.
        history: the epochs as plain values; the learning rate of a plateau follows from their val losses.
        floor_f1: what the last epoch had to beat for patience to count.
        best_epoch: None: no epoch has had finite losses.
        best_weights: of that epoch.
    """

    epoch: int
    model: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    random: list[dict[str, Tensor]]
    history: list[dict[str, Any]]
    floor_f1: float
    best_epoch: int | None
    best_weights: dict[str, Tensor]


class UnfinishedFile:
    """The file that holds the state of one training, and says which training that is.

    It is written whole or not at all, and read only if its digest is right and it is of this training.

    Args:
        path: of the file; leftovers of writing it, `.tmp-*` beside it, are deleted with it.
        identity: hash of everything that determines the training.
        epochs: of the whole training, for the log.
        logger: is told what is found.
    """

    def __init__(self, path: Path, identity: str, epochs: int, logger: logging.Logger) -> None:
        self.path = path
        self._identity = identity
        self._epochs = epochs
        self._logger = logger

    def read(self) -> tuple[TrainingState, bool] | None:
        """Return the state, and whether the training began with pretrained weights; None: there is none.

        A file that cannot be used is deleted, and the log says why.
        """
        if not self.path.is_file():
            return None
        try:
            content = self._content(read_sealed(self.path, MAGIC))
        except ValueError as error:
            self._logger.info(f"{self.path}: {error}; training starts anew")
            discard(self.path)
            return None
        pretrained = bool(content.pop("pretrained"))
        state = TrainingState(**content)
        self._logger.info(f"resuming after epoch {state.epoch} of {self._epochs}")
        return state, pretrained

    def write(self, state: TrainingState, *, pretrained: bool) -> None:
        """Keep a state in place of an earlier one. A full disk is told to the log, and training goes on."""
        plain = {part.name: getattr(state, part.name) for part in fields(state)}
        buffer = io.BytesIO()
        torch.save({**plain, "pretrained": pretrained, "identity": self._identity}, buffer)
        try:
            write_sealed(self.path, MAGIC, buffer.getvalue())
        except OSError as error:
            self._logger.warning(f"{self.path} cannot be written ({error}): this training could not resume")

    def _content(self, payload: bytes) -> dict[str, Any]:
        content: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        if content.pop("identity", None) != self._identity:
            raise ValueError("of a training with other data, settings, versions or device")
        if set(content) != {part.name for part in fields(TrainingState)} | {"pretrained"}:
            raise ValueError("of another version")
        return content


def discard(path: Path) -> None:
    """Delete a state, and what was left of writing one."""
    path.unlink(missing_ok=True)
    for leftover in path.parent.glob(f"{TEMPORARY}*{path.suffix}"):
        leftover.unlink(missing_ok=True)


def random_states(runtime: Runtime) -> list[dict[str, Tensor]]:
    """Return the states of torch's generators, of each process of the runtime."""
    own = {"cpu": torch.get_rng_state()}
    if runtime.device_type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(runtime.device)
    elif runtime.device_type == "mps":
        own["mps"] = torch.mps.get_rng_state()
    return gathered(own, runtime)


def set_random_states(states: list[dict[str, Tensor]], runtime: Runtime) -> None:
    """Set torch's generators to what `random_states` returned."""
    own = states[runtime.rank]
    torch.set_rng_state(own["cpu"])
    if "cuda" in own:
        torch.cuda.set_rng_state(own["cuda"], runtime.device)
    elif "mps" in own:
        torch.mps.set_rng_state(own["mps"])
