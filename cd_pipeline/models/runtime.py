"""Where and how networks run: device, precision, threads, memory format, compiled or not."""

import os
import shutil
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils import deterministic

from cd_pipeline.data.machine import keep_freed_memory, usable_cores

MAX_WORKERS = 8
TRAINING_CORES = 2
"""So few cores train faster without a process beside them: an epoch of drawn pairs takes 8.4 s on two, and 9.3 s with one."""
PRECISIONS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Runtime:
    """A resolved place to compute.

    `precision` is float32, float16 or bfloat16 (autocast); `workers` are loader processes, 0: none, None: by
    what is loaded. `processes` train together, each a runtime of its own with its `rank` and, where they are not
    all on this machine, with the `cores` that it has to itself; None: its part of the machine's.
    """

    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1
    workers: int | None = None
    channels_last: bool = True
    deterministic: bool = True
    processes: int = 1
    rank: int = 0
    cores: int | None = None
    compile: bool = False

    def prepare(self) -> None:
        """Set the thread count and, where deterministic, ask torch for the same result on every run."""
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(self.deterministic, warn_only=True)
        # it also fills every new tensor, a fifth of a training step; that only shows reads of unset memory
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = not self.deterministic
        if self.device_type == "cpu":
            keep_freed_memory()

    def place(self, model: nn.Module) -> nn.Module:
        """Move a network to the device, in the memory format."""
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        return model.to(self.device, memory_format=memory_format)  # type: ignore[call-overload, no-any-return]

    def place_for_training(self, model: nn.Module) -> nn.Module:
        """Place a network, to be compiled in its first training steps where that is asked for.

        Its weights keep their names; copies of it are not compiled.
        """
        placed = self.place(model)
        if self.compile:
            placed.compile(dynamic=False)  # an epoch has two sizes of batches at most
        return placed

    def place_batch(self, batch: Tensor) -> Tensor:
        """Move an NxCxHxW batch to the device, in the memory format."""
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        return batch.to(self.device, non_blocking=True, memory_format=memory_format)

    def loader_processes(self, *, draws: bool) -> int:
        """Return how many processes load a data set; `draws`: its items are made anew each time.

        A CPU that trains has a core to spare for one that draws if it has more than two: on two, training waits for
        its core for longer than for its pairs. A GPU is faster than one; photos that stay in memory need none.
        """
        if self.workers is not None:
            return self.workers
        if not draws:
            return 0
        cores = self.cores or usable_cores() // self.processes
        if self.device_type == "cpu":
            return int(cores > TRAINING_CORES)
        return max(1, min(MAX_WORKERS, cores - 1))

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context that networks run in."""
        dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(self.precision)
        return torch.autocast(self.device_type, dtype=dtype, enabled=dtype is not None)

    @property
    def device_type(self) -> str:
        """cpu, cuda or mps."""
        return self.device.partition(":")[0]

    @property
    def uses_grad_scaler(self) -> bool:
        """Gradients are scaled where float16 could underflow."""
        return self.precision == "float16"

    def exact(self) -> "Runtime":
        """Return the same place in float32 and one process: what is measured is the weights themselves."""
        return replace(self, precision="float32", processes=1, compile=False)

    @property
    def description(self) -> str:
        """The device and its settings in one phrase, for logs and metadata."""
        name = torch.cuda.get_device_name(self.device) if self.device.startswith("cuda") else self.device
        several = f", {self.processes} processes" if self.processes > 1 else ""
        compiled = ", compiled" if self.compile else ""
        return f"{name}, {self.precision}, {self.threads} threads{several}{compiled}"


def resolve_runtime(
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    channels_last: bool = True,
    deterministic: bool = True,
    processes: int | None = None,
    compile: bool = False,
) -> Runtime:
    """Choose what the machine offers where a setting is left open.

    Args:
        device: auto, cpu, cuda, cuda:<n> or mps.
        precision: auto (float16 on CUDA, as published; float32 elsewhere), float32, float16 or bfloat16.
        threads: of torch on the CPU; None: the cores this process may use.
        workers: loader processes; None: where pairs are drawn anew each epoch, one on a CPU of more than two cores
            or, for a GPU, one a core; none where decoded pairs stay in memory. Set them where a GPU waits for a set that does not
            fit (about 2,000 pairs at 256x256).
        channels_last: the memory format of networks and batches.
        deterministic: the same weights on every run of the same machine; a GPU is slower for it.
        processes: that train together; None: one a GPU where the device is auto or cuda, otherwise one.
        compile: networks that train, by `torch.compile`; weights then differ by rounding.

    Raises:
        ValueError: the device is not there, the precision is unknown, or there is no compiler to compile with.
    """
    if device == "auto":
        device = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.partition(":")[0]):
        usable = ", ".join(name for name, is_there in there.items() if is_there)
        raise ValueError(
            f"compute.device is {device!r}, which this machine lacks; use auto or one of: {usable}"
        )
    on_gpu = device.startswith("cuda")
    wanted = processes or 1
    if on_gpu and wanted > 1 and (device != "cuda" or wanted > torch.cuda.device_count()):
        raise ValueError(
            f"compute.processes is {wanted} on {device!r}; {torch.cuda.device_count()} GPUs are there, "
            "one a process, and the device must be auto or cuda"
        )
    if compile and device == "cpu":
        _require_compiler()
    cores = usable_cores()
    return Runtime(
        device=device,
        precision=resolved_precision(precision, on_gpu=on_gpu),
        threads=threads or cores,
        workers=workers,
        channels_last=channels_last,
        deterministic=deterministic,
        processes=processes or (torch.cuda.device_count() if device == "cuda" else 1),
        compile=compile,
    )


def resolved_precision(precision: str, *, on_gpu: bool) -> str:
    """Return the precision asked for; auto is float16 on CUDA, as published, and float32 elsewhere.

    Raises:
        ValueError: it is unknown.
    """
    if precision not in ("auto", *PRECISIONS):
        raise ValueError(f"compute.precision is {precision!r}; use one of: auto, {', '.join(PRECISIONS)}")
    if precision == "auto":
        return "float16" if on_gpu else "float32"
    return precision


def _require_compiler() -> None:
    # what torch looks for
    wanted = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(wanted) is None:
        raise ValueError(
            f"compute.compile is true, but there is no C++ compiler {wanted}; install one (Debian: apt install g++), "
            "name another in the variable CXX, or set compile to false"
        )
