"""The paired cluster bootstrap, against loops, scipy and known answers."""

from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cd_pipeline.evaluation.paired_bootstrap import (
    PairedInterval,
    mean_score,
    paired_interval,
    pooled_f1,
    student_quantile,
    widened_tail,
)

Counts = npt.NDArray[np.int64]


def draw_counts(seed: int, examples: int) -> tuple[Counts, Counts, list[str]]:
    """Counts tp, fp, fn of two models on examples of about three a cluster."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 500, (2, examples, 3))
    return first, second, [f"photo {number}" for number in rng.integers(0, max(2, examples // 3), examples)]


def looped(
    first: Counts, second: Counts, clusters: list[str], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """The bounds by loops and plain numbers, with the same draws."""
    names = sorted(set(clusters))
    rng = np.random.default_rng(seed)
    differences = []
    for _ in range(resamples):
        sums = [[0, 0, 0], [0, 0, 0]]
        for drawn in rng.integers(len(names), size=len(names)):
            for example, name in enumerate(clusters):
                if name == names[drawn]:
                    for model, counts in enumerate((first, second)):
                        for part in range(3):
                            sums[model][part] += int(counts[example, part])
        scores = [2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0 for tp, fp, fn in sums]
        differences.append(scores[1] - scores[0])
    count = len(names)
    tail = stats.norm.cdf(-np.sqrt(count / (count - 1)) * stats.t.ppf(confidence, count - 1))
    ordered = sorted(differences)

    def percentile(share: float) -> float:
        place = share * (resamples - 1)
        below = int(place)
        above = min(below + 1, resamples - 1)
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])

    return percentile(tail), percentile(1 - tail)


@pytest.mark.parametrize("seed", range(4))
def test_the_bounds_are_those_of_a_loop_over_photos_and_pairs(seed: int) -> None:
    first, second, clusters = draw_counts(seed, 30)
    found = paired_interval(first, second, clusters, pooled_f1, confidence=0.9, resamples=200, seed=seed)
    low, high = looped(first, second, clusters, 0.9, 200, seed)
    # the t quantile is an expansion: the tail, and with it the percentile, differs in its last digits
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)
    assert (found.examples, found.clusters) == (30, len(set(clusters)))


def test_the_scores_are_those_of_all_pixels_together() -> None:
    first, second, clusters = draw_counts(5, 20)
    found = paired_interval(first, second, clusters, pooled_f1)
    for score, counts in ((found.first, first), (found.second, second)):
        tp, fp, fn = counts.sum(axis=0)
        assert score == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert found.low < found.difference < found.high


def test_the_percentiles_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(0, 1, 80)
    second = np.clip(first + rng.normal(0.02, 0.1, 80), 0, 1)
    tail = widened_tail(0.95, 80)
    reference = stats.bootstrap(
        (second, first),
        lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        paired=True,
        n_resamples=20_000,
        confidence_level=1 - 2 * tail,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    ones = np.ones(80)
    names = [str(number) for number in range(80)]
    found = paired_interval(
        np.stack([first, ones], 1), np.stack([second, ones], 1), names, mean_score, resamples=20_000
    )
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-3)


def test_the_mean_of_many_images_has_the_interval_of_the_normal_distribution() -> None:
    rng = np.random.default_rng(3)
    gains, ones = rng.normal(0.05, 0.1, 400), np.ones(400)
    base = np.full(400, 0.4)
    names = [str(number) for number in range(400)]
    found = paired_interval(
        np.stack([base, ones], 1), np.stack([base + gains, ones], 1), names, mean_score, resamples=10_000
    )
    reach = 1.645 * gains.std() / 20
    assert found.low == pytest.approx(gains.mean() - reach, abs=5e-4)
    assert found.high == pytest.approx(gains.mean() + reach, abs=5e-4)


@given(seed=st.integers(0, 1000), examples=st.integers(2, 40))
def test_identical_models_differ_by_nothing_at_all(seed: int, examples: int) -> None:
    counts, _, _ = draw_counts(seed, examples)
    names = [str(number) for number in range(examples)]
    found = paired_interval(counts, counts, names, pooled_f1, resamples=50)
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_a_model_that_is_worse_on_every_photo_is_worse_for_sure() -> None:
    rng = np.random.default_rng(0)
    found = rng.integers(400, 500, 30)
    better = np.stack([found, found // 10, found // 10], 1)
    worse = np.stack([found - 100, found // 10, found // 10 + 100], 1)
    names = [str(number) for number in range(30)]
    assert paired_interval(better, worse, names, pooled_f1).high < -0.05
    assert paired_interval(worse, better, names, pooled_f1).low > 0.05


def test_differences_of_noise_alone_stay_within_a_small_margin() -> None:
    rng = np.random.default_rng(1)
    found = rng.integers(4000, 5000, 100)
    noise = rng.integers(-40, 40, 50)
    first, second = (np.concatenate(parts) for parts in ((noise, -noise), (-noise, noise)))  # equal in sum
    models = [np.stack([found + moved, found // 5, 1000 - moved], 1) for moved in (first, second)]
    told = paired_interval(*models, [str(number) for number in range(100)], pooled_f1)
    assert told.difference == 0
    assert -0.01 < told.low < 0 < told.high < 0.01


@given(seed=st.integers(0, 1000), order=st.randoms(use_true_random=False))
def test_the_order_of_the_examples_does_not_matter(seed: int, order: Random) -> None:
    rng = np.random.default_rng(seed)
    figures = rng.uniform(0, 1, (2, 12, 2))  # shares: their sums depend on the order of adding
    clusters = [f"photo {number}" for number in rng.integers(0, 4, 12)]
    places = list(range(12))
    order.shuffle(places)
    shuffled = figures[:, places], [clusters[place] for place in places]
    results = [
        paired_interval(parts[0], parts[1], names, mean_score, resamples=30)
        for parts, names in ((figures, clusters), shuffled)
    ]
    assert results[0].low.hex() == results[1].low.hex()
    assert results[0] == results[1]


def test_pairs_of_one_photo_count_as_one_draw_and_not_as_many() -> None:
    rng = np.random.default_rng(2)
    first, second = (rng.integers(100, 900, (10, 3)) for _ in range(2))
    alone = paired_interval(first, second, [str(number) for number in range(10)], pooled_f1)
    copied = [np.repeat(counts, 20, axis=0) for counts in (first, second)]
    together = paired_interval(*copied, [str(number // 20) for number in range(200)], pooled_f1)
    apart = paired_interval(*copied, [str(number) for number in range(200)], pooled_f1)
    assert alone.difference == pytest.approx(together.difference)
    width = together.high - together.low
    assert width > 3 * (apart.high - apart.low)  # 20 times as many photos that say nothing new
    assert 0.7 < width / (alone.high - alone.low) < 1.4


def test_of_one_photo_nothing_is_known() -> None:
    counts = np.array([[5, 1, 1], [7, 2, 0]])
    found = paired_interval(counts, counts + 1, ["same", "same"], pooled_f1)
    assert (found.low, found.high, found.clusters) == (-1, 1, 1)


def test_the_same_seed_gives_the_same_bounds_and_another_one_others() -> None:
    first, second, clusters = draw_counts(9, 40)
    results = [paired_interval(first, second, clusters, pooled_f1, seed=seed) for seed in (1, 1, 2)]
    assert results[0] == results[1] != results[2]


def test_many_photos_are_resampled_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, clusters = draw_counts(9, 40)
    whole = paired_interval(first, second, clusters, pooled_f1, resamples=101)
    monkeypatch.setattr("cd_pipeline.evaluation.paired_bootstrap._DRAWS_AT_ONCE", 500)
    assert paired_interval(first, second, clusters, pooled_f1, resamples=101) == whole


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 10, 40, 300])
@pytest.mark.parametrize("probability", [0.6, 0.9, 0.95, 0.975, 0.99])
def test_the_t_quantile_is_that_of_scipy(freedom: int, probability: float) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(
        stats.t.ppf(probability, freedom), rel=0.004
    )


def test_few_photos_widen_the_interval_and_many_do_not() -> None:
    tails = [widened_tail(0.95, clusters) for clusters in (2, 5, 20, 10_000)]
    assert tails == sorted(tails)
    assert tails[0] < 1e-6
    assert tails[-1] == pytest.approx(0.05, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"second": np.ones((3, 3))}, r"first has shape \(2, 3\), but second has shape \(3, 3\)"),
        ({"clusters": ["a"]}, "1 clusters; expected NxK and N >= 1"),
        ({"confidence": 0.4}, "confidence is 0.4, resamples 2000; expected 0.5 to 1"),
        ({"resamples": 0}, "resamples 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: dict[str, object], message: str) -> None:
    settings: dict[str, object] = {
        "first": np.ones((2, 3)),
        "second": np.ones((2, 3)),
        "clusters": ["a", "b"],
        "statistic": pooled_f1,
    }
    with pytest.raises(ValueError, match=message):
        paired_interval(**{**settings, **change})  # type: ignore[arg-type]


def drawn_test_set(rng: np.random.Generator, photos: int) -> tuple[Counts, Counts]:
    """Three pairs a photo of two models; what is hard in a photo is hard for both, and for all its pairs."""
    hardness = np.repeat(rng.normal(0, 1, photos), 3)
    size = rng.lognormal(6, 1, 3 * photos)
    counts = []
    for gain in (0.0, 0.2):
        recall = 1 / (1 + np.exp(-(1.5 + gain + 0.7 * hardness + rng.normal(0, 0.6, 3 * photos))))
        wrong = size * rng.gamma(1, 0.25, 3 * photos)
        counts.append(np.round(np.stack([size * recall, wrong, size * (1 - recall)], 1)).astype(np.int64))
    return counts[0], counts[1]


@pytest.mark.slow
@pytest.mark.parametrize("photos", [5, 12, 35])
def test_the_true_difference_lies_above_the_bound_about_as_often_as_promised(photos: int) -> None:
    rng = np.random.default_rng(photos)
    truth = np.diff([float(pooled_f1(part.sum(axis=0))) for part in drawn_test_set(rng, 200_000)])[0]
    names = [str(number // 3) for number in range(3 * photos)]
    trials: list[PairedInterval] = [
        paired_interval(*drawn_test_set(rng, photos), names, pooled_f1, resamples=600, seed=trial)
        for trial in range(800)
    ]
    assert 0.91 <= np.mean([trial.low <= truth for trial in trials]) <= 0.985
    assert 0.91 <= np.mean([trial.high >= truth for trial in trials]) <= 0.985
