"""Test predictions: a PNG a pair at its own size, and the scores of each."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cd_pipeline.data.files import keep_only
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.samples import Roots, spread
from cd_pipeline.engine.runner import ShardRunner
from cd_pipeline.engine.shards import Shards
from cd_pipeline.evaluation.breakdown import recall_by
from cd_pipeline.evaluation.figures import gallery
from cd_pipeline.evaluation.metrics import (
    Confusion,
    mean_image_f1,
    mean_image_iou,
    pooled,
    wilson_interval,
)
from cd_pipeline.evaluation.pair_shard import PairScore, PairShard, PredictPairs
from cd_pipeline.evaluation.predictor import Predictor
from cd_pipeline.evaluation.report import TestReport
from cd_pipeline.evaluation.sample_prediction import EXAMPLES_A_SHARD, settings_of


def measure_pairs(
    predictor: Predictor,
    pairs: Sequence[Pair],
    roots: Roots,
    folder: Path,
    *,
    held_out_kinds: Sequence[str] = (),
    shown: int = 12,
    runner: ShardRunner | None = None,
) -> TestReport:
    """Write `<folder>/<pair_id>.png` (0/255, the pair's own size) for each pair, and gather what is reported.

    Anything else in the folder is of an earlier run and is deleted first.

    Args:
        predictor: the network and its threshold.
        pairs: rows of the manifest.
        roots: where their pictures are.
        folder: for the PNGs.
        held_out_kinds: kinds of change that no training pair had.
        shown: pairs in the gallery.
        runner: where they are predicted, and what is done already; None: here, and nothing.
    """
    keep_only(folder, {f"{pair.pair_id}.png" for pair in pairs})
    drawn = frozenset(pair.pair_id for pair in spread(pairs, shown))
    work, total = PredictPairs(predictor, roots, folder, drawn), PairShard()
    made_of = (settings_of(predictor), sorted(drawn))
    for done in (runner or ShardRunner()).map(work, Shards(pairs, EXAMPLES_A_SHARD), PairShard, made_of):
        total.add(done)
    scores, changes = total.scores, total.changes
    figures, best = summarise(scores), total.oracle.best().f1
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
        sheet=gallery(total.rows),
        sweep=total.sweep,
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
