"""Export as TorchScript: a network that runs wherever torch does, without the code of this package."""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from cd_pipeline.data.files import write_bytes
from cd_pipeline.data.task import Task
from cd_pipeline.export.agreement import Answer, Pictures, Reference, as_tensors
from cd_pipeline.export.network import ExportedNetwork, evaluation_copy, traced, without_deprecations

METADATA_FILE = "metadata.json"
"""Inside the archive: text to text, as JSON."""


def export_torchscript(
    model: nn.Module, path: Path, *, task: Task, size: int, metadata: Mapping[str, str]
) -> None:
    """Write a network as TorchScript, whole or not at all.

    It takes as many pictures as the task has, float32 Nx3xSxS each, RGB in [0, 1], and gives the probability,
    Nx1xSxS in [0, 1], or of several classes (probability NxCxSxS, class_map NxSxS int64). Convolutions are
    joined with the batch norms behind them. The same model and metadata give the same bytes with the same
    version of torch.

    Args:
        model: As of `export_mlpackage`.
        path: Where to write; the folder exists.
        task: How many pictures the network takes and how many classes it gives.
        size: S, px.
        metadata: Text to text, kept inside.
    """
    wrapper = ExportedNetwork(evaluation_copy(model), task).eval()
    text = json.dumps(dict(sorted(metadata.items())), indent=1)
    archive = io.BytesIO()
    with without_deprecations():
        script = torch.jit.freeze(traced(wrapper, size))
        torch.jit.save(script, archive, _extra_files={METADATA_FILE: text})
    write_bytes(path, _without_counters(archive))


class TorchScriptForm:
    """A TorchScript file read back from disk.

    Args:
        path: Written by `export_torchscript`.
        reference: What it is compared with.
    """

    non_finite_ops: tuple[str, ...] = ()

    def __init__(self, path: Path, reference: Reference) -> None:
        self._script, _ = load_torchscript(path)
        self._reference = reference

    def answer(self, pictures: Pictures) -> Answer:
        """Run it on one sample."""
        with torch.inference_mode():
            found = self._script(*as_tensors(pictures))
        if self._reference.task.multi_class:
            probability, classes = found
            return Answer(probability.numpy(), classes.numpy())
        return Answer.of(found.numpy(), self._reference.threshold)


def load_torchscript(path: Path, device: str = "cpu") -> tuple[torch.jit.ScriptModule, str]:
    """Read a TorchScript file, and the text of its metadata; "" where it has none.

    Raises:
        RuntimeError, ValueError: it cannot be read.
    """
    extra = {METADATA_FILE: ""}
    with without_deprecations():
        script = torch.jit.load(str(path), map_location=device, _extra_files=extra)  # type: ignore[no-untyped-call]
    text = extra[METADATA_FILE]
    return script, text.decode() if isinstance(text, bytes) else text


def _without_counters(archive: io.BytesIO) -> bytes:
    """Make two exports equal: torch numbers its classes by how many the process has made so far.

    The records of debugging, which name files of this machine, are left out.
    """
    archive.seek(0)
    reader, result = torch._C.PyTorchFileReader(archive), io.BytesIO()
    writer = torch._C.PyTorchFileWriter(result)
    for name in reader.get_all_records():
        if name in _WRITTEN_BY_TORCH or name.endswith(".debug_pkl"):
            continue
        content = reader.get_record(name)
        if name.startswith("code/") or name.endswith(".pkl"):
            content = _COUNTER.sub(b"", content)
        renamed = _COUNTER.sub(b"", name.encode()).decode()  # network/___torch_mangle_3.py -> network.py
        writer.write_record(renamed, content, len(content))
    writer.write_end_of_file()
    return result.getvalue()


_WRITTEN_BY_TORCH = ("version", "byteorder", ".data/serialization_id")
_COUNTER = re.compile(rb"[./]___torch_mangle_\d+")
