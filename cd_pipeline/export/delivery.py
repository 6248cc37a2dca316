"""All forms of a trained network that are delivered, each proven against the checkpoint."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cd_pipeline.export.agreeing import PackageExport, broken_limits, export_agreeing
from cd_pipeline.export.agreement import (
    Agreement,
    AgreementLimits,
    Form,
    Pictures,
    Reference,
    measure_agreement,
)
from cd_pipeline.export.coreml import PackageLabel, Precision
from cd_pipeline.export.interface import ModelInterface
from cd_pipeline.export.onnx import OnnxForm, export_onnx
from cd_pipeline.export.torchscript import TorchScriptForm, export_torchscript


@dataclass(frozen=True)
class DeliveryPlan:
    """What is written, and what is said in it.

    Attributes:
        interface: How the network is used.
        package: Name of the Core ML package.
        torchscript: Name of the TorchScript file.
        onnx: Name of the ONNX file; None: there is none.
        description: Short description.
        label: Author, licence and version.
        metadata: Further user metadata, text to text.
        precision: Of the package, tried first.
        limits: What "agrees" means, for every form.
        mask: The package gives a mask too.
    """

    interface: ModelInterface
    package: str
    torchscript: str
    onnx: str | None
    description: str
    label: PackageLabel = field(default_factory=PackageLabel)
    metadata: Mapping[str, str] = field(default_factory=dict)
    precision: Precision = "float16"
    limits: AgreementLimits = field(default_factory=AgreementLimits)
    mask: bool = False

    def texts(self) -> dict[str, str]:
        """Return what every form says of itself."""
        return {**self.interface.to_metadata(), **self.metadata}


@dataclass(frozen=True)
class Delivery:
    """What was written, and how each form agrees with the checkpoint."""

    package: PackageExport
    agreements: Mapping[str, Agreement]
    broken: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "precision": self.package.precision,
            "given_up": list(self.package.given_up),
            "float32_ops": list(self.package.float32_ops),
            "forms": {name: asdict(agreement) for name, agreement in self.agreements.items()},
        }


def deliver(
    reference: Reference, folder: Path, samples: Callable[[], Iterable[Pictures]], plan: DeliveryPlan
) -> Delivery:
    """Write every form into a folder and compare each with the checkpoint.

    Args:
        reference: The checkpoint's model with its task and threshold.
        folder: Is made if needed.
        samples: As of `export_agreeing`.
        plan: What is written.

    Returns:
        The delivery; limits may be broken, which is for the caller to judge.

    Raises:
        OnnxMissingError: ONNX is asked for, and its extra is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    task, size, texts = reference.task, plan.interface.size, plan.texts()
    script = folder / plan.torchscript
    export_torchscript(reference.model, script, task=task, size=size, metadata=texts)
    forms: dict[str, Form] = {"torchscript": TorchScriptForm(script, reference)}
    if plan.onnx is not None:
        export_onnx(reference.model, folder / plan.onnx, task=task, size=size, metadata=texts)
        forms["onnx"] = OnnxForm(folder / plan.onnx, reference)
    package = export_agreeing(
        reference,
        folder / plan.package,
        samples,
        precision=plan.precision,
        limits=plan.limits,
        size=size,
        metadata=texts,
        description=plan.description,
        label=plan.label,
        mask=plan.mask,
    )
    agreements = {**package.agreements, **measure_agreement(reference, forms, samples())}
    return Delivery(package, agreements, tuple(broken_limits(plan.limits, agreements)))
