"""Test predictions of images with a binary mask: a PNG an image at its own size, scores, and a gallery."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from cd_pipeline.data.example import Example
from cd_pipeline.data.files import keep_only
from cd_pipeline.data.image_manifest import LabelledImage
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.samples import Roots, Sample, load_sample, spread
from cd_pipeline.engine.runner import ShardRunner
from cd_pipeline.engine.shards import Shards
from cd_pipeline.evaluation.boundary import BoundaryDistance, MeanBoundaryDistance
from cd_pipeline.evaluation.figures import COMPARISON_COLOURS, Cell, cell_size, image_row, sheet_with_legend
from cd_pipeline.evaluation.image_sweep import ImageSweep
from cd_pipeline.evaluation.metrics import Confusion, everything_changed_f1, pooled
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.evaluation.report import TestReport
from cd_pipeline.evaluation.sample_prediction import EXAMPLES_A_SHARD, named_rows, rows_named, settings_of
from cd_pipeline.evaluation.sweep import ConfusionCurve, middle_of_best_run

SHOWN_COLUMNS = ("file", "dataset", "f1", "iou", "precision", "recall", "best_f1", "hausdorff")
DATASET_COLUMNS = ("dataset", "images", "f1", "iou", "precision", "recall", "ods", "ois", "hausdorff_95")
POOLED = ("precision", "recall", "f1", "iou")


@dataclass(frozen=True, slots=True)
class ImageScore:
    """One test image at its own size.

    Attributes:
        name: of the example.
        dataset: that it is from.
        confusion: of its mask at the predictor's threshold.
        distance: between the boundaries of mask and truth, px; infinite where exactly one of them is empty.
    """

    name: str
    dataset: str
    confusion: Confusion
    distance: BoundaryDistance

    @classmethod
    def of(cls, example: Example, sample: Sample, mask: Image) -> "ImageScore":
        """Score a mask, HW uint8, nonzero = marked; pixels that do not count are unmarked in mask and truth."""
        counted = np.full_like(mask, 255) if sample.valid is None else sample.valid
        return cls(
            example.name,
            example.class_name,
            Confusion.of(mask, sample.mask, sample.valid),
            BoundaryDistance.between(mask & counted, sample.mask & counted),
        )

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Make it of what `asdict` returned."""
        parts = {
            "confusion": Confusion(**plain["confusion"]),
            "distance": BoundaryDistance(**plain["distance"]),
        }
        return cls(**{**plain, **parts})

    def to_row(self) -> dict[str, Any]:
        """Return the score as a flat row of plain values; a distance that is infinite is NaN."""
        far = self.distance
        return {
            "name": self.name,
            "file": f"{self.name}.png",
            "dataset": self.dataset,
            **_figures(self.confusion),
            **asdict(self.confusion),
            "hausdorff": far.hausdorff if isfinite(far.hausdorff) else nan,
            "hausdorff_95": far.hausdorff_95 if isfinite(far.hausdorff_95) else nan,
        }


@dataclass(slots=True)
class ImageScores:
    """The scores of a set, gathered shard by shard.

    Attributes:
        scores: of each image.
        sweep: the images' confusions at every threshold, before masks are cleaned.
        rows: of the gallery.
        files: SHA-256 of each PNG by its name.
    """

    scores: list[ImageScore] = field(default_factory=list)
    sweep: ImageSweep = field(default_factory=ImageSweep)
    rows: list[Image] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def add(self, other: "ImageScores") -> None:
        """Add the images that follow; the hashes of their files are of no use any more."""
        self.scores += other.scores
        self.sweep.add_counts(other.sweep.counts)
        self.rows += other.rows

    def of_dataset(self, name: str) -> "ImageScores":
        """Return the scores of a data set's images, without a gallery."""
        members = [index for index, score in enumerate(self.scores) if score.dataset == name]
        found = ImageScores([self.scores[index] for index in members])
        found.sweep.add_counts(self.sweep.counts[members])
        return found

    def to_plain(self) -> Mapping[str, Any]:
        """Return all of it by name."""
        scores = [asdict(score) for score in self.scores]
        return {"scores": scores, "files": self.files, "sweep": self.sweep.counts, **named_rows(self.rows)}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Make it of what `to_plain` returned."""
        scores = [ImageScore.of_plain(score) for score in plain["scores"]]
        found = cls(scores, rows=rows_named(plain), files=plain["files"])
        found.sweep.add_counts(plain["sweep"])
        return found

    def frame(self) -> pd.DataFrame:
        """Return a row an image; `best_f1` is that of its own best threshold, before cleaning."""
        best = self.sweep.confusions().f1().max(axis=1)
        return pd.DataFrame([score.to_row() for score in self.scores]).assign(best_f1=best)

    def summary(self) -> dict[str, Any]:
        """Return the figures of the set, each in [0, 1] but counts and distances.

        - precision, recall, f1, iou: of all pixels together, of the masks as they are written, at the
          predictor's threshold and cleaned; mean_image_…: those of each image, averaged.
        - ods, ods_threshold, ods_precision, ods_recall, ois: of the raw probabilities, means over images. As
          published, their thresholds are chosen on the very set that is scored, one for all images (ODS) or
          one for each (OIS): they say what the best threshold would give, not what the chosen one gives.
        - best_f1, best_f1_threshold: the highest F1 of all pixels together, chosen on the set as well.
        - hausdorff, hausdorff_95: px, means over the images where they are finite, None without any;
          hausdorff_unmeasured counts the others, where exactly one of mask and truth is empty.
        - everything_marked_f1: F1 of marking every pixel, the floor.

        Raises:
            ValueError: there is no image.
        """
        ods, curve = self.sweep.ods(), _pooled_curve(self.sweep.confusions())
        best = middle_of_best_run(curve.f1())
        total = pooled(score.confusion for score in self.scores)
        distance = MeanBoundaryDistance.of(score.distance for score in self.scores)
        each = pd.DataFrame([_figures(score.confusion) for score in self.scores])
        return {
            "images": len(self.scores),
            **_figures(total),
            **{f"mean_image_{key}": float(each[key].mean()) for key in POOLED},
            "ods": ods.f1,
            "ods_threshold": ods.threshold,
            "ods_precision": ods.precision,
            "ods_recall": ods.recall,
            "ois": self.sweep.ois(),
            "best_f1": float(curve.f1()[best]),
            "best_f1_threshold": float(self.sweep.thresholds[best]),
            "hausdorff": distance.hausdorff,
            "hausdorff_95": distance.hausdorff_95,
            "hausdorff_unmeasured": distance.unmeasured,
            "everything_marked_f1": everything_changed_f1(total.tp + total.fn, total.pixels),
        }


@dataclass(frozen=True, slots=True)
class PredictImages:
    """Predicts the images of one shard after the other.

    Attributes:
        predictor: the network, its threshold and how its masks are cleaned.
        roots: where pictures are.
        folder: for the PNGs.
        drawn: names of the images of the gallery.
        cell: size of a picture in it.
    """

    predictor: Predictor
    roots: Roots
    folder: Path
    drawn: frozenset[str]
    cell: Cell

    def __call__(self, examples: Sequence[LabelledImage]) -> ImageScores:
        """Predict images, write their PNGs, and gather what is reported of them."""
        done = ImageScores()
        for example in examples:
            sample, path = load_sample(example, self.roots), self.folder / f"{example.name}.png"
            probability = self.predictor.probability_at_own_size(*sample.pictures, tiled=example.tiled)
            mask = self.predictor.mask_of(probability)
            done.files[path.name] = write_png(path, mask)
            done.scores.append(ImageScore.of(example, sample, mask))
            done.sweep.update(probability, sample.mask, sample.valid)
            if example.name in self.drawn:
                done.rows.append(image_row(sample.pictures[0], sample.mask, mask, self.cell))
        return done


def measure_images(
    predictor: Predictor,
    examples: Sequence[LabelledImage],
    roots: Roots,
    folder: Path,
    *,
    shown: int = 12,
    runner: ShardRunner | None = None,
) -> TestReport:
    """Predict images with a binary mask and measure them at their own size.

    Writes `<folder>/<name>.png` (0/255) for each; anything else in the folder is of an earlier run and is
    deleted first.

    Args:
        predictor: the network, its threshold and how its masks are cleaned.
        examples: rows of the manifest.
        roots: where their pictures are.
        folder: for the PNGs; is made if needed.
        shown: images in the gallery at most, evenly spaced.
        runner: where they are predicted, and what is done already; None: here, and nothing.

    Returns:
        `metrics` are those of `ImageScores.summary`, and `by_dataset`: a list of the same of each data set, ODS
        and OIS with thresholds of its own.

    Raises:
        ValueError: there is no example, or the predictor has no threshold; or as `load_sample`.
        FileNotFoundError: as `load_sample`.
    """
    if not examples or predictor.threshold is None:
        raise ValueError("measure_images needs at least one image, and a predictor with a threshold")
    keep_only(folder, {f"{example.name}.png" for example in examples})
    drawn = frozenset(example.name for example in spread(examples, shown))
    cell = cell_size([(example.height, example.width) for example in examples])
    work, everything = PredictImages(predictor, roots, folder, drawn, cell), ImageScores()
    made_of = (settings_of(predictor), sorted(drawn), cell)
    for done in (runner or ShardRunner()).map(work, Shards(examples, EXAMPLES_A_SHARD), ImageScores, made_of):
        everything.add(done)
    metrics = everything.summary()
    datasets = sorted({example.class_name for example in examples})
    by_dataset = [{"dataset": name, **everything.of_dataset(name).summary()} for name in datasets]
    return TestReport(
        metrics={**metrics, "by_dataset": by_dataset},
        headline=f"test F1 {metrics['f1']:.3f}, ODS {metrics['ods']:.3f}, OIS {metrics['ois']:.3f}",
        scores=everything.frame(),
        shown_columns=SHOWN_COLUMNS,
        tables={"per_dataset": [{key: row[key] for key in DATASET_COLUMNS} for row in by_dataset]},
        sheet=sheet_with_legend(everything.rows, "image, truth, prediction:", COMPARISON_COLOURS),
        sweep=everything.sweep,
    )


def _figures(confusion: Confusion) -> dict[str, float]:
    return {key: getattr(confusion, key) for key in POOLED}


def _pooled_curve(curves: ConfusionCurve) -> ConfusionCurve:
    # N images x 101 thresholds -> 101
    return ConfusionCurve(*(counts.sum(axis=0) for counts in (curves.tp, curves.fp, curves.fn, curves.tn)))
