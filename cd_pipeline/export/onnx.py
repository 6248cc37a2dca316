"""Export as ONNX, for Windows, Android and the web: needs the extra `onnx`."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cd_pipeline.data.files import write_bytes
from cd_pipeline.data.task import Task
from cd_pipeline.export.agreement import Answer, Pictures, Reference, as_tensors
from cd_pipeline.export.network import (
    CLASS_MAP,
    PROBABILITY,
    ExportedNetwork,
    evaluation_copy,
    example_pictures,
)

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
REMEDY = "install the extra with: pip install -c constraints.txt -e '.[onnx]'"


class OnnxMissingError(ValueError):
    """The packages of the extra `onnx` are not installed."""


def export_onnx(model: nn.Module, path: Path, *, task: Task, size: int, metadata: Mapping[str, str]) -> None:
    """Write a network as ONNX of opset 18, whole or not at all.

    Inputs `before` and `after`, or `image`: float32 1x3xSxS, RGB in [0, 1]. Outputs `probability`, float32
    1xCxSxS in [0, 1], and of several classes `class_map`, int64 1xSxS. The same model and metadata give the
    same bytes with the same package versions.

    Args:
        model: As of `export_mlpackage`.
        path: Where to write; the folder exists.
        task: How many pictures the network takes and how many classes it gives.
        size: S, px.
        metadata: Text to text, kept as the model's metadata properties.

    Raises:
        OnnxMissingError: The extra is not installed.
    """
    proto = _convert(ExportedNetwork(evaluation_copy(model), task).eval(), size)
    _forget_origin(proto)
    for key in sorted(metadata):
        proto.metadata_props.add(key=key, value=metadata[key])
    write_bytes(path, proto.SerializeToString(deterministic=True))


class OnnxForm:
    """An ONNX file read back from disk and run by ONNX Runtime on the CPU.

    Args:
        path: Written by `export_onnx`.
        reference: What it is compared with.

    Raises:
        OnnxMissingError: The extra is not installed.
    """

    non_finite_ops: tuple[str, ...] = ()

    def __init__(self, path: Path, reference: Reference) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise OnnxMissingError(f"export.onnx: {error}; {REMEDY}") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._reference = reference

    def answer(self, pictures: Pictures) -> Answer:
        """Run it on one sample."""
        names = self._reference.task.picture_names
        tensors = [tensor.numpy() for tensor in as_tensors(pictures)]
        probability, *classes = self._session.run(None, dict(zip(names, tensors, strict=True)))
        if classes:
            return Answer(probability, classes[0])
        return Answer.of(probability, self._reference.threshold)


def _convert(wrapper: ExportedNetwork, size: int) -> "ModelProto":
    task = wrapper.task
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise OnnxMissingError(f"export.onnx: {error}; {REMEDY}") from None
    with torch.inference_mode(), _quiet():
        program: Any = torch.onnx.export(
            wrapper,
            example_pictures(task, size),
            input_names=list(task.picture_names),
            output_names=[PROBABILITY, CLASS_MAP][: 2 if task.multi_class else 1],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    proto: ModelProto = program.model_proto
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling its progress inside the block."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _forget_origin(proto: "ModelProto") -> None:
    """Remove what names files and lines of the machine that exported."""
    proto.doc_string = proto.graph.doc_string = ""
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    for function in proto.functions:
        function.doc_string = ""
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]
    for weight in proto.graph.initializer:
        weight.doc_string = ""
        del weight.metadata_props[:]
