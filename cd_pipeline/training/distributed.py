"""Training in several processes: the few places where they meet. With one process each does nothing."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cd_pipeline.models.runtime import Runtime

Value = TypeVar("Value")
PATIENCE = timedelta(hours=12)
"""How long processes wait for the first one, which validates: far longer than any validation."""


@contextmanager
def process_group(runtime: Runtime) -> Iterator[Runtime]:
    """Join the processes that torchrun started, and yield this one's runtime.

    Each has its own GPU, or its part of the threads. Outside torchrun the runtime is yielded as it is, for one
    process.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield replace(runtime, processes=1, rank=0)
        return
    on_gpu = runtime.device_type == "cuda"
    local = int(os.environ["LOCAL_RANK"])
    device = f"cuda:{local}" if on_gpu else runtime.device
    if on_gpu:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield replace(
            runtime,
            device=device,
            threads=max(1, runtime.threads // int(os.environ["LOCAL_WORLD_SIZE"])),
            processes=dist.get_world_size(),
            rank=dist.get_rank(),
        )
    finally:
        dist.destroy_process_group()


def joined(model: nn.Module, runtime: Runtime) -> nn.Module:
    """Wrap a placed network so that gradients are averaged; on GPUs batch norms share their statistics."""
    if runtime.processes == 1:
        return model
    if runtime.device_type == "cuda":
        shared = with_shared_statistics(model)
        return DistributedDataParallel(shared, device_ids=[torch.cuda.current_device()])
    return DistributedDataParallel(model)


def with_shared_statistics(model: nn.Module) -> nn.Module:
    """Replace batch norms by ones that share their statistics; timm's, which hold an activation, keep it."""
    shared: nn.Module = convert_sync_batchnorm(model)
    return shared


def has_batch_norm(model: nn.Module) -> bool:
    """Tell whether a network's result depends on how a batch is divided."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def alone(model: nn.Module) -> nn.Module:
    """Return the network inside its wrapper."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def summed_up(counts: Tensor, runtime: Runtime) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if runtime.processes > 1:
        dist.all_reduce(counts)
    return counts


def from_the_first(runtime: Runtime, compute: Callable[[], Value]) -> Value:
    """Compute something in the first process and give all of them the result."""
    if runtime.processes == 1:
        return compute()
    box = [compute() if runtime.rank == 0 else None]
    dist.broadcast_object_list(box, device=torch.device(runtime.device))
    value = box[0]
    assert value is not None
    return value


def gathered(value: Value, runtime: Runtime) -> list[Value]:
    """Return the values of all processes, by rank."""
    if runtime.processes == 1:
        return [value]
    values: list[Value] = [value] * runtime.processes
    dist.all_gather_object(values, value)
    return values
