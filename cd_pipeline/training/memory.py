"""How much memory a training takes."""

import psutil
import torch

from cd_pipeline.models.runtime import Runtime
from cd_pipeline.training.distributed import summed_up

GB = 1e9


def memory_gb(runtime: Runtime) -> float:
    """Return the resident memory of the processes that train and of those that load for them, in GB."""
    own = psutil.Process()
    resident = own.memory_info().rss + sum(_resident(child) for child in own.children(recursive=True))
    total = torch.tensor(resident / GB, device=runtime.device, dtype=torch.float32)
    return float(summed_up(total, runtime))


def gpu_memory_gb(runtime: Runtime) -> float | None:
    """Return the most memory that torch has held on this process's GPU, in GB; None: there is no GPU."""
    if runtime.device_type == "cuda":
        return torch.cuda.max_memory_reserved(runtime.device) / GB
    if runtime.device_type == "mps":
        return torch.mps.driver_allocated_memory() / GB
    return None


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return 0
