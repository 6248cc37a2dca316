"""Test predictions of images with a binary mask: a PNG an image at its own size, scores, and a gallery."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cd_pipeline.data.example import Example
from cd_pipeline.data.files import keep_only
from cd_pipeline.data.image_manifest import LabelledImage
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.samples import Roots, Sample, load_sample, spread
from cd_pipeline.evaluation.boundary import BoundaryDistance, MeanBoundaryDistance
from cd_pipeline.evaluation.figures import COMPARISON_COLOURS, cell_size, image_row, sheet_with_legend
from cd_pipeline.evaluation.image_sweep import ImageSweep
from cd_pipeline.evaluation.metrics import Confusion, everything_changed_f1, pooled
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.evaluation.report import TestReport
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


class ImageScores:
    """The scores of a set, gathered image by image."""

    def __init__(self) -> None:
        self._scores: list[ImageScore] = []
        self.sweep = ImageSweep()

    def add(self, score: ImageScore, probability: npt.NDArray[np.float32], sample: Sample) -> None:
        """Add one image: its score, and its raw probability, HxW in [0, 1], beside the truth."""
        self._scores.append(score)
        self.sweep.update(probability, sample.mask, sample.valid)

    def frame(self) -> pd.DataFrame:
        """Return a row an image; `best_f1` is that of its own best threshold, before cleaning."""
        best = self.sweep.confusions().f1().max(axis=1)
        return pd.DataFrame([score.to_row() for score in self._scores]).assign(best_f1=best)

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
        total = pooled(score.confusion for score in self._scores)
        distance = MeanBoundaryDistance.of(score.distance for score in self._scores)
        each = pd.DataFrame([_figures(score.confusion) for score in self._scores])
        return {
            "images": len(self._scores),
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


def measure_images(
    predictor: Predictor, examples: Sequence[LabelledImage], roots: Roots, folder: Path, *, shown: int = 12
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
    drawn = {example.name for example in spread(examples, shown)}
    cell = cell_size([(example.height, example.width) for example in examples])
    everything, rows = ImageScores(), []
    datasets = {example.class_name: ImageScores() for example in examples}
    for example in examples:
        sample = load_sample(example, roots)
        probability = predictor.probability_at_own_size(*sample.pictures, tiled=example.tiled)
        mask = predictor.mask_of(probability)
        write_png(folder / f"{example.name}.png", mask)
        score = ImageScore.of(example, sample, mask)
        for scores in (everything, datasets[example.class_name]):
            scores.add(score, probability, sample)
        if example.name in drawn:
            rows.append(image_row(sample.pictures[0], sample.mask, mask, cell))
    metrics = everything.summary()
    by_dataset = [{"dataset": name, **datasets[name].summary()} for name in sorted(datasets)]
    return TestReport(
        metrics={**metrics, "by_dataset": by_dataset},
        headline=f"test F1 {metrics['f1']:.3f}, ODS {metrics['ods']:.3f}, OIS {metrics['ois']:.3f}",
        scores=everything.frame(),
        shown_columns=SHOWN_COLUMNS,
        tables={"per_dataset": [{key: row[key] for key in DATASET_COLUMNS} for row in by_dataset]},
        sheet=sheet_with_legend(rows, "image, truth, prediction:", COMPARISON_COLOURS),
        sweep=everything.sweep,
    )


def _figures(confusion: Confusion) -> dict[str, float]:
    return {key: getattr(confusion, key) for key in POOLED}


def _pooled_curve(curves: ConfusionCurve) -> ConfusionCurve:
    # N images x 101 thresholds -> 101
    return ConfusionCurve(*(counts.sum(axis=0) for counts in (curves.tp, curves.fp, curves.fn, curves.tn)))
