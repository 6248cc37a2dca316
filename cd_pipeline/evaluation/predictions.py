"""Test predictions: a PNG a pair at its own size, and the scores of each."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import nn

from cd_pipeline.data.files import keep_only
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.pairs import PairArrays, Roots, at_input_size, load_pair, spread
from cd_pipeline.data.preprocessing import resize_mask
from cd_pipeline.evaluation.breakdown import FoundChange, found_changes
from cd_pipeline.evaluation.differencing import DifferencingOracle, OracleResult
from cd_pipeline.evaluation.figures import pair_row
from cd_pipeline.evaluation.metrics import (
    Confusion,
    has_alarm,
    mean_image_f1,
    mean_image_iou,
    pooled,
    wilson_interval,
)
from cd_pipeline.evaluation.postprocess import smooth_mask
from cd_pipeline.evaluation.predict import predict_probability, predict_tiled
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.synthesis.pairs import change_owners
from cd_pipeline.synthesis.photo_store import PhotoStore


@dataclass(frozen=True, slots=True)
class PairScore:
    """One test pair: pixel counts at the size it is scored at, and at its own size.

    Pairs really taken at two times are scored at their own size, others at the input size. The own size is the
    photo's for published pairs; realistic ones are rendered at the input size. `exchanged` counts what the network marks
    when it is given the second picture as the first.
    """

    pair_id: str
    class_name: str
    changed: bool
    alarm: bool
    confusion: Confusion
    own_size: Confusion
    exchanged: Confusion

    def to_row(self) -> dict[str, Any]:
        """Return the score as a flat row of plain values."""
        counts = {f"own_size_{key}": value for key, value in asdict(self.own_size).items()}
        return {
            "pair_id": self.pair_id,
            "file": f"{self.pair_id}.png",
            "class_name": self.class_name,
            "changed": self.changed,
            "alarm": self.alarm,
            "f1": self.confusion.f1,
            "iou": self.confusion.iou,
            "exchanged_f1": self.exchanged.f1,
            **asdict(self.confusion),
            **counts,
        }


def binarise(probability: npt.NDArray[np.float32], threshold: float, *, smooth: bool = False) -> Image:
    """Return HW uint8: 255 where the probability is above the threshold, smoothed 3x3 when asked."""
    mask = (probability > threshold).astype(np.uint8) * np.uint8(255)
    return smooth_mask(mask) if smooth else mask


class Prediction(NamedTuple):
    """A pair at the size it is scored at, and the masks HW uint8 0/255, at that size and at the pair's own."""

    pair: PairArrays
    mask: Image
    own_size: Image


@dataclass(frozen=True, slots=True)
class Predictor:
    """A network with all that turns its probabilities into masks.

    Attributes:
        model: on the runtime's device.
        size: of the network's input.
        threshold: above it a pixel is changed.
        runtime: device and precision.
        smooth: 3x3 smoothing of the masks.
        overlap: of the tiles of tiled pairs, px.
    """

    model: nn.Module
    size: int
    threshold: float
    runtime: Runtime
    smooth: bool = False
    overlap: int = 0

    def probability(self, before: Image, after: Image) -> npt.NDArray[np.float32]:
        """Predict HWC uint8 RGB at the input size: HW float32 in [0, 1]."""
        return predict_probability(self.model, before, after, self.runtime)

    def predict(self, pair: PairArrays, *, tiled: bool = False, own_size: bool = False) -> "Prediction":
        """Predict one pair, given at its own size.

        Args:
            pair: the pictures and their truth.
            tiled: it is predicted in tiles at its own scale. Otherwise it is resized to the network's input,
                and its own mask thresholds the enlarged probability.
            own_size: it is scored at its own size; a tiled one always is.
        """
        if tiled:
            mask = self._binarise(self.probability_at_own_size(pair.before, pair.after))
            return Prediction(pair, mask, mask)
        sized = at_input_size(pair, self.size)
        probability = self.probability(sized.before, sized.after)
        height, width = pair.mask.shape
        enlarged = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
        own_mask = self._binarise(np.asarray(enlarged, np.float32))
        if own_size:
            return Prediction(pair, own_mask, own_mask)
        return Prediction(sized, self._binarise(probability), own_mask)

    def probability_at_own_size(self, before: Image, after: Image) -> npt.NDArray[np.float32]:
        """Predict HWC uint8 RGB of any size in tiles: HW float32 in [0, 1]."""
        return predict_tiled(self.model, before, after, self.runtime, side=self.size, overlap=self.overlap)

    def _binarise(self, probability: npt.NDArray[np.float32]) -> Image:
        return binarise(probability, self.threshold, smooth=self.smooth)


def write_predictions(
    predictor: Predictor,
    pairs: Sequence[Pair],
    roots: Roots,
    folder: Path,
    *,
    on_pair: Callable[[Pair, PairArrays, Image], None] = lambda row, pair, prediction: None,
) -> list[PairScore]:
    """Predict pairs and write `<folder>/<pair_id>.png` (0/255, the pair's own size) for each.

    Anything else in the folder is of an earlier run and is deleted first.

    Args:
        predictor: the network and its threshold.
        pairs: rows of the manifest.
        roots: where their pictures are.
        folder: is made if needed.
        on_pair: gets each row, and its pair and prediction at the size they are scored at.
    """
    keep_only(folder, {f"{pair.pair_id}.png" for pair in pairs})
    scores = []
    for pair in pairs:
        arrays = load_pair(pair, roots)
        predict = partial(predictor.predict, tiled=pair.tiled, own_size=pair.own_size)
        sized, prediction, own = predict(arrays)
        turned = predict(arrays._replace(before=arrays.after, after=arrays.before))
        write_png(folder / f"{pair.pair_id}.png", own)
        on_pair(pair, sized, prediction)
        scores.append(
            PairScore(
                pair_id=pair.pair_id,
                class_name=pair.class_name,
                changed=bool(arrays.mask.any()),
                alarm=has_alarm(prediction if sized.valid is None else prediction & sized.valid),
                confusion=Confusion.of(prediction, sized.mask, sized.valid),
                own_size=Confusion.of(own, arrays.mask, arrays.valid),
                exchanged=Confusion.of(turned.mask, sized.mask, sized.valid),
            )
        )
    return scores


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is reported of a set.

    Attributes:
        scores: of each pair.
        rows: pairs as gallery rows, evenly spaced.
        oracle: plain differencing at its best on the set.
        changes: what was found of each synthesised change.
    """

    scores: list[PairScore]
    rows: list[Image]
    oracle: OracleResult
    changes: list[FoundChange]


def measure(
    predictor: Predictor, pairs: Sequence[Pair], roots: Roots, folder: Path, *, shown: int = 12
) -> Measurement:
    """Predict pairs as `write_predictions` does, and gather what is reported of them in the same pass.

    Args:
        predictor: the network and its threshold.
        pairs: rows of the manifest.
        roots: where their pictures are.
        folder: for the PNGs.
        shown: pairs in the gallery.
    """
    drawn = {pair.pair_id for pair in spread(pairs, shown)}
    rows: list[Image] = []
    changes: list[FoundChange] = []
    oracle, photos = DifferencingOracle(), PhotoStore(roots)

    def look(row: Pair, pair: PairArrays, prediction: Image) -> None:
        if row.plan or row.realistic_plan:  # only synthesised changes have a kind
            changes.extend(found_changes(*change_owners(row, photos), prediction, pair.valid))
        oracle.update(pair.before, pair.after, pair.mask, pair.valid)
        if row.pair_id in drawn:
            shown = at_input_size(pair, predictor.size)
            rows.append(pair_row(shown, resize_mask(prediction, predictor.size)))

    scores = write_predictions(predictor, pairs, roots, folder, on_pair=look)
    return Measurement(scores, rows, oracle.best(), changes)


def summarise(scores: Sequence[PairScore]) -> dict[str, float | None]:
    """Return the figures of a set.

    Pooled, mean per image, at own size, with before and after exchanged, and alarms on no-change pairs.

    The alarm rate is None where there is no no-change pair.

    Raises:
        ValueError: there is no pair.
    """
    total = pooled(score.confusion for score in scores)
    unchanged = [score for score in scores if not score.changed]
    alarms = sum(score.alarm for score in unchanged)
    low, high = wilson_interval(alarms, len(unchanged))
    return {
        "pairs": len(scores),
        "precision": total.precision,
        "recall": total.recall,
        "f1": total.f1,
        "iou": total.iou,
        "own_size_f1": pooled(score.own_size for score in scores).f1,
        "exchanged_f1": pooled(score.exchanged for score in scores).f1,
        "mean_image_f1": mean_image_f1(score.confusion for score in scores),
        "mean_image_iou": mean_image_iou(score.confusion for score in scores),
        "no_change_pairs": len(unchanged),
        "no_change_alarm_rate": alarms / len(unchanged) if unchanged else None,
        "no_change_alarm_rate_low": low,
        "no_change_alarm_rate_high": high,
    }


def scores_by_class(scores: Sequence[PairScore]) -> pd.DataFrame:
    """Return a row a class: pairs, and F1 and IoU pooled over the class's pixels."""
    counts = pd.DataFrame([score.to_row() for score in scores]).groupby("class_name", sort=True)
    rows = []
    for name, members in counts[["tp", "fp", "fn", "tn"]]:
        total = Confusion(*(int(value) for value in members.sum()))
        rows.append({"class": str(name), "pairs": len(members), "f1": total.f1, "iou": total.iou})
    return pd.DataFrame(rows)
