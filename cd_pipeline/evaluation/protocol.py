"""The rows of the measuring protocol: what is printed of every model, always beside plain differencing."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cd_pipeline.data.files import digest
from cd_pipeline.data.images import Image
from cd_pipeline.data.samples import Sample
from cd_pipeline.evaluation.differencing import DifferencingOracle
from cd_pipeline.evaluation.metrics import Confusion, has_alarm, mean_image_f1, pooled, wilson_interval
from cd_pipeline.evaluation.nuisance import nuisance_seed, standard_nuisance
from cd_pipeline.evaluation.predict import Predict
from cd_pipeline.evaluation.realistic_pairs import (
    PAIR_COUNT,
    SEED,
    PhotoLoader,
    draw_realistic_pairs,
    no_change_pairs,
)
from cd_pipeline.evaluation.sweep import ThresholdSweep, linear_thresholds

ORACLE_LIMIT = 0.50
"""Realistic pairs on which plain differencing does better are too easy (measuring protocol)."""

VERSION_DIGITS = 12
FINE_THRESHOLDS = linear_thresholds(0.01, 0.99, 99)


@dataclass(frozen=True, slots=True)
class SetScores:
    """A model on a set of pairs.

    precision, recall, f1 and iou are pooled over pixels at the given threshold; `best_f1` is that of the
    threshold that is best on this set (the gap is the calibration error); `oracle_f1` is plain
    differencing at its best on this set; `version` is a hash of the set's pixels.
    """

    pairs: int
    precision: float
    recall: float
    f1: float
    iou: float
    best_f1: float
    mean_image_f1: float
    oracle_f1: float
    version: str

    @property
    def gap(self) -> float:
        """Calibration error: what a threshold chosen on this very set would gain in F1."""
        return self.best_f1 - self.f1


@dataclass(frozen=True, slots=True)
class AlarmRate:
    """False alarms on no-change pairs, with the 95 % Wilson interval, and a hash of the pairs' pixels."""

    pairs: int
    alarms: int
    low: float
    high: float
    version: str

    @property
    def rate(self) -> float:
        """Share of pairs with an alarm."""
        return self.alarms / self.pairs


def score_set(predict: Predict, pairs: Iterable[Sample], threshold: float) -> SetScores:
    """Score a model on pairs at its input size, one at a time.

    Raises:
        ValueError: there is no pair.
    """
    confusions: list[Confusion] = []
    pixels: list[str] = []
    sweep, oracle = ThresholdSweep(FINE_THRESHOLDS), DifferencingOracle()
    for pair in pairs:
        pixels.append(digest(*(array.tobytes() for array in pair.arrays)))
        probability = predict(pair.before, pair.after)
        confusions.append(Confusion.of(probability > threshold, pair.mask, pair.valid))
        sweep.update(probability, pair.mask, pair.valid)
        oracle.update(pair.before, pair.after, pair.mask, pair.valid)
    total = pooled(confusions)
    return SetScores(
        pairs=len(confusions),
        precision=total.precision,
        recall=total.recall,
        f1=total.f1,
        iou=total.iou,
        best_f1=float(sweep.f1().max()),
        mean_image_f1=mean_image_f1(confusions),
        oracle_f1=oracle.best().f1,
        version=digest(*pixels)[:VERSION_DIGITS],
    )


def alarm_rate(predict: Predict, pairs: Iterable[tuple[Image, Image]], threshold: float) -> AlarmRate:
    """Count the no-change pairs on which a model raises an alarm: a component of 0.5 % of the image.

    Raises:
        ValueError: there is no pair.
    """
    alarms, pixels = [], []
    for before, after in pairs:
        alarms.append(has_alarm(predict(before, after) > threshold))
        pixels.append(digest(before.tobytes(), after.tobytes()))
    if not alarms:
        raise ValueError("alarm_rate: at least one no-change pair is needed")
    low, high = wilson_interval(sum(alarms), len(alarms))
    return AlarmRate(len(alarms), sum(alarms), low, high, digest(*pixels)[:VERSION_DIGITS])


def with_nuisance_on_after(pairs: Iterable[tuple[str, Sample]]) -> Iterator[Sample]:
    """Put the standard nuisance, seeded by the pair's name, on the second photo of each named pair."""
    for name, pair in pairs:
        after = standard_nuisance(pair.after, nuisance_seed(name, "after"))
        yield pair._replace(pictures=(pair.before, after))


def realistic_set(loaders: Sequence[PhotoLoader], size: int, count: int = PAIR_COUNT) -> Iterator[Sample]:
    """Yield the frozen realistic pairs of some photos."""
    return (pair.arrays for pair in draw_realistic_pairs(loaders, count, seed=SEED, size=size))


def false_alarms(
    predict: Predict, threshold: float, loaders: Sequence[PhotoLoader], size: int, count: int = PAIR_COUNT
) -> AlarmRate:
    """Count false alarms on the frozen no-change pairs of some photos."""
    unchanged = no_change_pairs(loaders, count, seed=SEED, size=size)
    return alarm_rate(predict, ((pair.before, pair.after) for pair in unchanged), threshold)
