"""Test predictions of images with several classes: a palette PNG an image at its own size, scores, a gallery."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from cd_pipeline.data.classes import VOID_NAME
from cd_pipeline.data.files import file_digest, keep_only
from cd_pipeline.data.image_manifest import LabelledImage
from cd_pipeline.data.images import Image
from cd_pipeline.data.palette import VOID_COLOUR, Palette, colourise, write_palette_png
from cd_pipeline.data.samples import Roots, Sample, load_sample, spread
from cd_pipeline.engine.runner import ShardRunner
from cd_pipeline.engine.shards import Shards
from cd_pipeline.evaluation.class_confusion import ClassConfusion, pooled_classes
from cd_pipeline.evaluation.figures import Cell, cell_size, class_row, sheet_with_legend
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.evaluation.report import TestReport
from cd_pipeline.evaluation.sample_prediction import EXAMPLES_A_SHARD, named_rows, rows_named, settings_of

SHOWN_COLUMNS = ("file", "dataset", "miou", "pixel_accuracy")
DATASET_COLUMNS = ("dataset", "images", "miou", "pixel_accuracy", "miou_without_void", "mean_dice")
_PIXELS_AT_ONCE = 1 << 20
"""Counted together: the 8-byte codes of a whole large image would not fit a small memory."""


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One test image at its own size: the confusion of its counted pixels."""

    name: str
    dataset: str
    confusion: ClassConfusion

    def to_row(self) -> dict[str, Any]:
        """Return the score as a flat row of plain values; NaN where no pixel counts.

        `miou` is the mean over the classes in the truth or the prediction of this image.
        """
        counted = bool(self.confusion.counts.any())
        return {
            "name": self.name,
            "file": f"{self.name}.png",
            "dataset": self.dataset,
            "miou": self.confusion.mean_iou() if counted else nan,
            "pixel_accuracy": self.confusion.pixel_accuracy() if counted else nan,
        }


@dataclass(slots=True)
class ClassSheet:
    """A gallery of images, their classes and the predicted ones, below a legend of the classes in it.

    Attributes:
        rows: of pictures.
        seen: the classes in them.
        uncounted: whether there are pixels that do not count.
    """

    rows: list[Image] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    uncounted: bool = False

    def draw(self, sample: Sample, prediction: Image, palette: Palette, cell: Cell) -> None:
        """Draw one image and its predicted classes, HW uint8; what does not count is shown as void."""
        truth = colourise(sample.mask, palette)
        counted = np.ones(sample.mask.shape, bool) if sample.valid is None else sample.valid > 0
        truth[~counted] = VOID_COLOUR
        self.rows.append(class_row(sample.pictures[0], truth, colourise(prediction, palette), cell))
        self.seen |= {*np.unique(sample.mask[counted]).tolist(), *np.unique(prediction).tolist()}
        self.uncounted |= not counted.all()

    def add(self, other: "ClassSheet") -> None:
        """Add the rows that follow."""
        self.rows += other.rows
        self.seen |= other.seen
        self.uncounted |= other.uncounted

    def picture(self, names: Sequence[str], palette: Palette) -> Image:
        """Return the gallery: HWC uint8 RGB, with the names of the classes in it.

        Raises:
            ValueError: no image has been drawn.
        """
        entries = {names[index]: palette[index] for index in sorted(self.seen)}
        if self.uncounted:
            entries.setdefault(VOID_NAME, np.array(VOID_COLOUR, np.uint8))
        colours = {name: colour.tolist() for name, colour in entries.items()}
        return sheet_with_legend(self.rows, "image, truth, prediction:", colours)


@dataclass(slots=True)
class ClassScores:
    """The scores of a set, gathered shard by shard.

    Attributes:
        scores: of each image.
        sheet: the gallery.
        files: SHA-256 of each PNG by its name.
    """

    scores: list[ClassScore] = field(default_factory=list)
    sheet: ClassSheet = field(default_factory=ClassSheet)
    files: dict[str, str] = field(default_factory=dict)

    def add(self, other: "ClassScores") -> None:
        """Add the images that follow; the hashes of their files are of no use any more."""
        self.scores += other.scores
        self.sheet.add(other.sheet)

    def to_plain(self) -> Mapping[str, Any]:
        """Return all of it by name."""
        return {
            "names": [(score.name, score.dataset) for score in self.scores],
            "counts": np.array([score.confusion.counts for score in self.scores], np.int64),
            "seen": sorted(self.sheet.seen),
            "uncounted": bool(self.sheet.uncounted),
            "files": self.files,
            **named_rows(self.sheet.rows),
        }

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Make it of what `to_plain` returned."""
        pairs = zip(plain["names"], plain["counts"], strict=True)
        scores = [ClassScore(name, dataset, ClassConfusion(counts)) for (name, dataset), counts in pairs]
        sheet = ClassSheet(rows_named(plain), set(plain["seen"]), plain["uncounted"])
        return cls(scores, sheet, plain["files"])


@dataclass(frozen=True, slots=True)
class PredictClasses:
    """Predicts the images of one shard after the other.

    Attributes:
        predictor: the network; the most probable class is taken.
        roots: where pictures are.
        folder: for the PNGs.
        drawn: names of the images of the gallery.
        cell: size of a picture in it.
        classes: that the network tells apart.
        palette: their colours.
    """

    predictor: Predictor
    roots: Roots
    folder: Path
    drawn: frozenset[str]
    cell: Cell
    classes: int
    palette: Palette

    def __call__(self, examples: Sequence[LabelledImage]) -> ClassScores:
        """Predict images, write their PNGs, and gather what is reported of them."""
        done = ClassScores()
        for example in examples:
            sample, path = load_sample(example, self.roots), self.folder / f"{example.name}.png"
            prediction = self.predictor.mask_at_own_size(*sample.pictures, tiled=example.tiled)
            write_palette_png(path, prediction, self.palette)
            done.files[path.name] = file_digest(path)
            confusion = count_classes(prediction, sample, self.classes)
            done.scores.append(ClassScore(example.name, example.class_name, confusion))
            if example.name in self.drawn:
                done.sheet.draw(sample, prediction, self.palette, self.cell)
        return done


def measure_classes(
    predictor: Predictor,
    examples: Sequence[LabelledImage],
    roots: Roots,
    folder: Path,
    *,
    names: Sequence[str],
    palette: Palette,
    void_class: int | None = None,
    shown: int = 12,
    runner: ShardRunner | None = None,
) -> TestReport:
    """Predict images with several classes and measure them at their own size.

    Writes `<folder>/<name>.png` for each, a palette PNG of the predicted indices; anything else in the folder
    is of an earlier run and is deleted first. Pixels that do not count are in no figure.

    Args:
        predictor: the network; the most probable class is taken.
        examples: rows of the manifest.
        roots: where their pictures are.
        folder: for the PNGs; is made if needed.
        names: of the C classes that the network tells apart.
        palette: their colours.
        void_class: the index of void where it is learnt as a class of its own.
        shown: images in the gallery at most, evenly spaced.
        runner: where they are predicted, and what is done already; None: here, and nothing.

    Returns:
        `metrics` are those of `summarise_classes`, and `by_class` and `by_dataset`, lists of rows.

    Raises:
        ValueError: there is no example, no pixel counts, the predictor has a threshold; or as `load_sample`.
        FileNotFoundError: as `load_sample`.
    """
    if not examples or predictor.threshold is not None:
        raise ValueError("measure_classes needs at least one image, and a predictor without a threshold")
    keep_only(folder, {f"{example.name}.png" for example in examples})
    drawn = frozenset(example.name for example in spread(examples, shown))
    cell = cell_size([(example.height, example.width) for example in examples])
    work = PredictClasses(predictor, roots, folder, drawn, cell, len(names), palette)
    made_of = (settings_of(predictor), sorted(drawn), cell, len(names), palette.tolist())
    everything = ClassScores()
    for done in (runner or ShardRunner()).map(work, Shards(examples, EXAMPLES_A_SHARD), ClassScores, made_of):
        everything.add(done)
    scores = everything.scores
    metrics = summarise_classes(scores, void_class)
    by_class, by_dataset = class_rows(scores, names, void_class), dataset_rows(scores, void_class)
    several = {"per_dataset": by_dataset} if len(by_dataset) > 1 else {}
    return TestReport(
        metrics={**metrics, "by_class": by_class, "by_dataset": by_dataset},
        headline=headline(metrics, void_class),
        scores=pd.DataFrame([score.to_row() for score in scores]),
        shown_columns=SHOWN_COLUMNS,
        tables={"per_class": by_class, **several},
        sheet=everything.sheet.picture(names, palette),
    )


def count_classes(prediction: Image, sample: Sample, classes: int) -> ClassConfusion:
    """Count the pixels of a prediction, HW uint8 indices, beside the truth, a part of the rows at a time."""
    height, width = sample.mask.shape
    step = max(1, _PIXELS_AT_ONCE // width)
    parts = []
    for top in range(0, height, step):
        rows = slice(top, top + step)
        found, wanted = prediction[rows], sample.mask[rows]
        if sample.valid is not None:
            counted = sample.valid[rows] > 0
            found, wanted = found[counted], wanted[counted]
        parts.append(ClassConfusion.of(found, wanted, classes))
    return pooled_classes(parts)


def summarise_classes(scores: Sequence[ClassScore], void_class: int | None = None) -> dict[str, Any]:
    """Return the figures of a set, of all pixels together, each in [0, 1] but `images`.

    - miou, mean_dice: means over the classes that are in the truth or are predicted; pixel_accuracy.
    - miou_without_void, pixel_accuracy_without_void: the same without the pixels of `void_class`; None where
      there are no others. Where void is no class they equal the first.
    - baseline_miou, baseline_pixel_accuracy: of the most frequent class of the set everywhere;
      miou_over_baseline: miou less baseline_miou.

    Raises:
        ValueError: there is no image, or no pixel counts.
    """
    total = pooled_classes(score.confusion for score in scores)
    summary = total.summary()
    bare = total if void_class is None else total.without(void_class)
    counted = bool(bare.counts.any())
    return {
        "images": len(scores),
        **summary,
        "mean_dice": total.mean_dice(),
        "miou_over_baseline": summary["miou"] - summary["baseline_miou"],
        "miou_without_void": bare.mean_iou() if counted else None,
        "pixel_accuracy_without_void": bare.pixel_accuracy() if counted else None,
    }


def class_rows(
    scores: Sequence[ClassScore], names: Sequence[str], void_class: int | None = None
) -> list[dict[str, Any]]:
    """Return a row a class: class, pixels in the truth, iou, precision, recall, dice, of all pixels together.

    Where void is a class it has a row, and every row has iou_without_void too. A figure is None where the class
    is neither in the truth nor predicted.

    Raises:
        ValueError: there are more or fewer names than classes, or no image.
    """
    total = pooled_classes(score.confusion for score in scores)
    bare = total if void_class is None else total.without(void_class)
    rows = []
    for row, dice, iou in zip(total.table(names), total.dice(), bare.iou(), strict=True):
        extra = {} if void_class is None else {"iou_without_void": _plain(iou)}
        rows.append({**row, "dice": _plain(dice), **extra})
    return rows


def dataset_rows(scores: Sequence[ClassScore], void_class: int | None = None) -> list[dict[str, Any]]:
    """Return a row a data set that has counted pixels: its name and the figures of `DATASET_COLUMNS`."""
    rows = []
    for name in sorted({score.dataset for score in scores}):
        members = [score for score in scores if score.dataset == name]
        if any(score.confusion.counts.any() for score in members):
            figures: dict[str, Any] = {"dataset": name, **summarise_classes(members, void_class)}
            rows.append({key: figures[key] for key in DATASET_COLUMNS})
    return rows


def headline(metrics: dict[str, Any], void_class: int | None = None) -> str:
    """Return the figures of `summarise_classes` that matter most, in one phrase."""
    bare = metrics["miou_without_void"]
    aside = "" if void_class is None or bare is None else f"without void {bare:.3f}, "
    return (
        f"test mIoU {metrics['miou']:.3f} ({aside}most frequent class everywhere {metrics['baseline_miou']:.3f}), "
        f"pixel accuracy {metrics['pixel_accuracy']:.3f}"
    )


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
