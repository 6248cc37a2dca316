"""Where a model that torch runs computes."""

from cd_pipeline.models.runtime import Runtime, resolve_runtime


def exact_runtime(device: str) -> Runtime:
    """Resolve a device, in float32.

    Args:
        device: auto, cpu, cuda, cuda:<n> or mps.

    Raises:
        ValueError: the machine lacks it; the message names those it has.
    """
    try:
        runtime = resolve_runtime(device=device, processes=1).exact()
    except ValueError as error:
        raise ValueError(str(error).removeprefix("compute.")) from None
    _, _, number = device.partition(":")
    if number:
        _require_gpu(device, number)
    return runtime


def torch_device(device: str) -> str:
    """Return the name that torch knows a device by; arguments and errors are those of `exact_runtime`."""
    return exact_runtime(device).device


def _require_gpu(device: str, number: str) -> None:
    import torch

    count = torch.cuda.device_count() if device.startswith("cuda:") else 0
    if not number.isdecimal() or int(number) >= count:
        raise ValueError(f"device is {device!r}; this machine has {count} GPUs, numbered from 0")
