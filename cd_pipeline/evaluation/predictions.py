"""Test predictions: a PNG a pair at its own size, and the scores of each."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cd_pipeline.data.files import keep_only
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.preprocessing import resize_mask
from cd_pipeline.data.samples import Roots, at_input_size, load_sample, spread
from cd_pipeline.evaluation.breakdown import FoundChange, found_changes, recall_by
from cd_pipeline.evaluation.differencing import DifferencingOracle
from cd_pipeline.evaluation.figures import gallery, pair_row
from cd_pipeline.evaluation.image_sweep import ImageSweep
from cd_pipeline.evaluation.metrics import (
    Confusion,
    has_alarm,
    mean_image_f1,
    mean_image_iou,
    pooled,
    wilson_interval,
)
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.evaluation.report import TestReport
from cd_pipeline.evaluation.sample_prediction import Prediction, predict_sample
from cd_pipeline.synthesis.photo_store import PhotoStore
from cd_pipeline.synthesis.rendered_pairs import change_owners


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


def write_predictions(
    predictor: Predictor,
    pairs: Sequence[Pair],
    roots: Roots,
    folder: Path,
    *,
    on_pair: Callable[[Pair, Prediction], None] = lambda pair, prediction: None,
) -> list[PairScore]:
    """Predict pairs and write `<folder>/<pair_id>.png` (0/255, the pair's own size) for each.

    Anything else in the folder is of an earlier run and is deleted first.

    Args:
        predictor: the network and its threshold.
        pairs: rows of the manifest.
        roots: where their pictures are.
        folder: is made if needed.
        on_pair: gets each row and what is predicted.
    """
    keep_only(folder, {f"{pair.pair_id}.png" for pair in pairs})
    scores = []
    for pair in pairs:
        arrays = load_sample(pair, roots)
        predict = partial(predict_sample, predictor, tiled=pair.tiled, own_size=pair.own_size)
        found = predict(arrays)
        sized, _, prediction, own = found
        turned = predict(arrays._replace(pictures=arrays.pictures[::-1]))
        write_png(folder / f"{pair.pair_id}.png", own)
        on_pair(pair, found)
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


def measure_pairs(
    predictor: Predictor,
    pairs: Sequence[Pair],
    roots: Roots,
    folder: Path,
    *,
    held_out_kinds: Sequence[str] = (),
    shown: int = 12,
) -> TestReport:
    """Predict pairs as `write_predictions` does, and gather what is reported of them in the same pass.

    Args:
        predictor: the network and its threshold.
        pairs: rows of the manifest.
        roots: where their pictures are.
        folder: for the PNGs.
        held_out_kinds: kinds of change that no training pair had.
        shown: pairs in the gallery.
    """
    drawn = {pair.pair_id for pair in spread(pairs, shown)}
    rows: list[Image] = []
    changes: list[FoundChange] = []
    oracle, photos, sweep = DifferencingOracle(), PhotoStore(roots), ImageSweep()

    def look(row: Pair, found: Prediction) -> None:
        pair, probability, prediction, _ = found
        sweep.update(probability, pair.mask, pair.valid)
        if row.plan or row.realistic_plan:  # only synthesised changes have a kind
            changes.extend(found_changes(*change_owners(row, photos), prediction, pair.valid))
        oracle.update(pair.before, pair.after, pair.mask, pair.valid)
        if row.pair_id in drawn:
            shown = at_input_size(pair, predictor.size)
            rows.append(pair_row(shown, resize_mask(prediction, predictor.size)))

    scores = write_predictions(predictor, pairs, roots, folder, on_pair=look)
    figures, best = summarise(scores), oracle.best().f1
    classes = [
        {str(key): value for key, value in row.items()} for row in scores_by_class(scores).to_dict("records")
    ]
    kinds, sizes = recall_by(changes, "kind"), recall_by(changes, "size")
    return TestReport(
        metrics={
            **figures,
            "differencing_oracle_f1": best,
            "by_class": classes,
            "recall_by_kind": kinds,
            "recall_by_size": sizes,
            "held_out_kinds": list(held_out_kinds),
        },
        headline=f"test F1 {figures['f1']:.3f}, IoU {figures['iou']:.3f} "
        f"(plain differencing at its best: F1 {best:.3f})",
        scores=pd.DataFrame([score.to_row() for score in scores]),
        shown_columns=("file", "f1", "iou", "alarm"),
        tables={"per_class": classes, "per_kind": kinds, "per_size": sizes},
        sheet=gallery(rows),
        sweep=sweep,
    )


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
