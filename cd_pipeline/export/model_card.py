"""The model card: what an app developer should know of a delivered network, as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cd_pipeline.export.coreml import PackageLabel
from cd_pipeline.export.interface import ModelInterface

FORMS = {
    "package": "Core ML package, op by op in its own precision",
    "float32": "Core ML package, op by op without rounding",
    "core_ml": "Core ML package, by Core ML on this Mac",
    "torchscript": "TorchScript",
    "onnx": "ONNX, by ONNX Runtime",
}
"""The forms that agreement is measured of, as a reader knows them."""


@dataclass(frozen=True)
class CardFacts:
    """What the card says, as plain values.

    Attributes:
        title: of the card.
        description: what the model does, in a sentence.
        label: author, licence and version.
        interface: how the model is used.
        ports: inputs and outputs of the package, a sentence each.
        preparation: how pictures of other sizes become the inputs.
        marking: how masks are made of the probability.
        network: its name and number of parameters.
        pretrained: its encoder started from ImageNet weights.
        samples: rows of the manifest by split.
        metrics: of the test set, by name; what is not a plain number is left out.
        delivery: as of `Delivery.plain`.
        versions: of packages and data, by name.
    """

    title: str
    description: str
    label: PackageLabel
    interface: ModelInterface
    ports: Sequence[str]
    preparation: str
    marking: str
    network: str
    pretrained: bool
    samples: Mapping[str, int]
    metrics: Mapping[str, Any]
    delivery: Mapping[str, Any]
    versions: Mapping[str, str]


def model_card(facts: CardFacts) -> str:
    """Write the card; the same facts give the same text."""
    parts = [
        f"# {facts.title}",
        facts.description,
        *_section("Use", _use(facts)),
        *_section("Results on the test set", _results(facts)),
        *_section("Training", _training(facts)),
        *_section("Agreement with the checkpoint", _agreement(facts)),
        *_section("Limits", _limits(facts)),
        *_section("Versions", [_list(f"{name}: `{version}`" for name, version in facts.versions.items())]),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, parts: Iterable[str]) -> list[str]:
    return [f"## {title}", *parts]


def _use(facts: CardFacts) -> list[str]:
    label = facts.label
    lines = [
        *facts.ports,
        f"Pictures of other sizes: {facts.preparation}.",
        f"Marking: {facts.marking}.",
        f"Author: {label.author or 'not stated'}. Licence: {label.license or 'not stated'}. "
        f"Version: {label.version}.",
    ]
    if facts.interface.clahe is not None:
        lines.insert(
            -2, f"Before anything else the app equalises the whole image (CLAHE {facts.interface.clahe:g})."
        )
    if facts.interface.class_names:
        names = ", ".join(f"{i} {name}" for i, name in enumerate(facts.interface.class_names))
        lines.append(f"Classes: {names}.")
    return [_list(lines)]


def _results(facts: CardFacts) -> list[str]:
    numbers = {
        name: value
        for name, value in facts.metrics.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    rows = [(name.replace("_", " "), _figure(value)) for name, value in numbers.items()]
    found = [_table(("figure", "value"), rows)]
    if "differencing_oracle_f1" in numbers:
        found.append(
            "`differencing oracle f1` is what plain differencing of the two photos reaches with its best "
            "threshold on the same set: the floor that a model has to beat."
        )
    return found


def _training(facts: CardFacts) -> list[str]:
    counts = ", ".join(f"{count} {split}" for split, count in facts.samples.items())
    start = "ImageNet weights in the encoder" if facts.pretrained else "fresh weights"
    return [
        f"Network: {facts.network}, from {start}. Rows of the manifest: {counts}. Recipe: `{facts.interface.recipe}`."
    ]


def _agreement(facts: CardFacts) -> list[str]:
    header = (
        "form",
        "samples",
        "largest difference",
        "mean difference",
        "pixels flipped",
        "IoU of the masks",
    )
    rows = [
        (
            FORMS.get(name, name),
            str(form["samples"]),
            f"{form['max_probability_difference']:.2g}",
            f"{form['mean_probability_difference']:.2g}",
            f"{form['flipped_share']:.4%}",
            "every prediction is empty"
            if form["mask_iou"] is None
            else f"{form['mask_iou']:.4f} over {form['non_empty_samples']} non-empty",
        )
        for name, form in facts.delivery["forms"].items()
    ]
    found = [
        "Of probabilities, against the checkpoint in float32, on the test set.",
        _table(header, rows),
        f"Precision of the package: {facts.delivery['precision']}.",
    ]
    if facts.delivery["given_up"]:
        found.append("Lower precisions were given up: " + " ".join(facts.delivery["given_up"]))
    if kept := facts.delivery["float32_ops"]:
        found.append(f"Computed in float32: {', '.join(f'`{name}`' for name in kept)}.")
    return found


def _limits(facts: CardFacts) -> list[str]:
    if "core_ml" in facts.delivery["forms"]:
        verified = "The package was run by Core ML on a Mac. It was not run on a phone."
    else:
        verified = (
            "The package was read back and executed op by op, with values rounded to the types it declares. "
            "**It was not run by Core ML, nor on any device.**"
        )
    return [
        verified
        + " Sums inside an op are kept in float32 here; a device that sums in float16 (the Neural Engine may) "
        "differs more. Known of MobileNetV3 in Core ML: large float16 errors (coremltools issue 2625) and drift "
        "of hard-swish on the Neural Engine. If a device disagrees, export with `precision: float32`, or train "
        "with `model: {encoder: tf_mobilenetv3_small_minimal_100}`, which has neither hard-swish nor "
        "squeeze-excite.",
        "The figures hold for pictures like those of the test set: other places, cameras or light can do worse.",
    ]


def _figure(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
