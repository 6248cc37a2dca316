import re
from collections import Counter
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare, kstest

from cd_pipeline.evaluation.differencing import DifferencingOracle
from cd_pipeline.evaluation.nuisance import nuisance_seed, standard_nuisance
from cd_pipeline.evaluation.realistic_pairs import (
    KIND_WEIGHTS,
    PhotoLoader,
    RealisticPlan,
    draw_realistic_pairs,
    no_change_pairs,
    plan_no_change_pair,
    plan_realistic_pair,
    render_realistic_pair,
)


@cache
def textured(seed: int) -> NDArray[np.uint8]:
    """A colourful photo-like picture, 100 x 130, never black."""
    coarse = np.random.default_rng(seed).integers(40, 256, (10, 13, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (130, 100), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


PHOTOS: list[PhotoLoader] = [partial(textured, seed) for seed in range(4)]


def plans(count: int) -> list[RealisticPlan]:
    return [plan_realistic_pair(index, 42, 7) for index in range(count)]


def without_nuisance(plan: RealisticPlan) -> RealisticPlan:
    return replace(plan, before_nuisance=None, after_nuisance=None)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_every_pixel_that_differs_before_nuisance_is_in_the_mask(index: int, seed: int) -> None:
    plan = without_nuisance(plan_realistic_pair(index, seed, len(PHOTOS)))
    pair = render_realistic_pair(plan, PHOTOS, size=64)
    differs = (pair.before != pair.after).any(axis=2)
    assert (pair.mask[differs] == 255).all()
    assert set(np.unique(pair.mask)) <= {0, 255}
    assert (len(pair.kinds) == 0) == (not pair.mask.any())


@pytest.mark.parametrize("kind", sorted(KIND_WEIGHTS))
@pytest.mark.parametrize("shape", ["rectangle", "ellipse", "polygon"])
def test_each_kind_changes_most_of_its_region(kind: str, shape: str) -> None:
    plan = next(plan for plan in plans(50) if plan.changes)
    change = replace(plan.changes[0], kind=kind, shape=shape, width=0.5, height=0.4, left=0.1, top=0.2)
    change = replace(change, target_left=0.9, target_top=0.9, source=replace(change.source, photo=3))
    plan = replace(without_nuisance(plan), changes=(change,), crop=replace(plan.crop, photo=0))
    pair = render_realistic_pair(plan, PHOTOS, size=64)
    differs = (pair.before != pair.after).any(axis=2)
    assert pair.kinds == (kind,)
    assert differs.sum() > 0.9 * (pair.mask == 255).sum() > 0


@pytest.mark.parametrize(("shape", "share"), [("rectangle", 1.0), ("ellipse", np.pi / 4)])
def test_region_fills_its_box_as_its_shape_says(shape: str, share: float) -> None:
    plan = next(plan for plan in plans(50) if plan.changes)
    change = replace(plan.changes[0], kind="black", shape=shape, width=0.5, height=0.25, left=0.0, top=0.999)
    pair = render_realistic_pair(replace(plan, changes=(change,), crop=replace(plan.crop, photo=0)), PHOTOS)
    rows, columns = np.nonzero(pair.mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (192, 255, 0, 127)
    assert len(rows) == pytest.approx(share * 128 * 64, rel=0.03)


def test_polygons_lie_inside_their_box_and_leave_its_corners() -> None:
    plan = next(plan for plan in plans(50) if plan.changes)
    for seed in range(30):
        change = replace(plan.changes[0], kind="black", shape="polygon", width=0.5, height=0.25, seed=seed)
        change = replace(change, left=0.0, top=0.0)
        pair = render_realistic_pair(
            replace(plan, changes=(change,), crop=replace(plan.crop, photo=0)), PHOTOS
        )
        assert not pair.mask[64:].any() and not pair.mask[:, 128:].any()
        assert 0.2 < (pair.mask[:64, :128] == 255).mean() < np.pi / 4


def test_moved_region_is_marked_at_both_places() -> None:
    plan = next(plan for plan in plans(50) if plan.changes)
    change = replace(plan.changes[0], kind="move", shape="rectangle", width=0.25, height=0.25)
    change = replace(change, left=0.0, top=0.0, target_left=0.999, target_top=0.999)
    plan = replace(without_nuisance(plan), changes=(change,), swapped=False, crop=replace(plan.crop, photo=0))
    pair = render_realistic_pair(plan, PHOTOS)
    expected = np.zeros((256, 256))
    expected[:64, :64] = expected[192:, 192:] = 255
    np.testing.assert_array_equal(pair.mask, expected)
    np.testing.assert_array_equal(pair.after[192:, 192:], pair.before[:64, :64])


def test_pasted_region_comes_from_another_photo() -> None:
    flat: list[PhotoLoader] = [partial(np.full, (60, 80, 3), 10 + value, np.uint8) for value in range(3)]
    pastes = 0
    for plan in plans(200):
        change = plan.changes[0] if plan.changes else None
        if change is None or change.kind != "paste":
            continue
        plan = plan_realistic_pair(int(plan.pair_id[-5:]), 42, 3)
        plan = replace(without_nuisance(plan), changes=plan.changes[:1], swapped=False)
        pair = render_realistic_pair(plan, flat, size=32)
        assert (pair.after[pair.mask == 255] != pair.before[0, 0]).all()
        pastes += 1
    assert pastes > 20


def test_mixture_follows_the_protocol() -> None:
    sample = plans(4000)
    assert np.mean([not plan.changes for plan in sample]) == pytest.approx(0.15, abs=0.02)
    counts = Counter(len(plan.changes) for plan in sample if plan.changes)
    assert sorted(counts) == [1, 2, 3, 4]
    assert chisquare(list(counts.values())).pvalue > 0.001
    changes = [change for plan in sample for change in plan.changes]
    kinds = Counter(change.kind for change in changes)
    expected = {kind: len(changes) / 9 for kind in kinds} | {"paste": 2 * len(changes) / 9}
    assert len(kinds) == 8
    assert chisquare([kinds[k] for k in expected], list(expected.values())).pvalue > 0.001
    shapes = Counter(change.shape for change in changes)
    shares = {"rectangle": 0.4, "ellipse": 0.3, "polygon": 0.3}
    assert chisquare([shapes[s] for s in shares], [len(changes) * p for p in shares.values()]).pvalue > 0.001


def test_sides_places_and_crops_follow_the_protocol() -> None:
    sample = plans(1500)
    changes = [change for plan in sample for change in plan.changes]
    low, high = np.log(0.06), np.log(0.55)
    for sides in ([c.width for c in changes], [c.height for c in changes]):
        assert kstest(np.log(sides), "uniform", (low, high - low)).pvalue > 0.001
    for places in ([c.left for c in changes], [c.target_top for c in changes]):
        assert kstest(places, "uniform").pvalue > 0.001
    assert kstest([plan.crop.side for plan in sample], "uniform", (0.6, 0.4)).pvalue > 0.001
    assert all(change.source.photo != plan.crop.photo for plan in sample for change in plan.changes)


def test_nuisance_and_order_follow_the_protocol() -> None:
    sample = plans(3000)
    before = np.array([plan.before_nuisance is not None for plan in sample])
    after = np.array([plan.after_nuisance is not None for plan in sample])
    assert before.mean() == pytest.approx(0.7, abs=0.03)
    assert after.mean() == pytest.approx(0.7, abs=0.03)
    assert (before & after).mean() == pytest.approx(0.49, abs=0.03)
    assert np.mean([plan.swapped for plan in sample]) == pytest.approx(0.5, abs=0.03)


def test_rendered_nuisance_is_the_standard_one_seeded_by_pair_and_role() -> None:
    plan = next(p for p in plans(100) if p.before_nuisance is not None and p.after_nuisance is not None)
    pair = render_realistic_pair(plan, PHOTOS * 2, size=64)
    clean = render_realistic_pair(without_nuisance(plan), PHOTOS * 2, size=64)
    for role, noisy, photo in (("before", pair.before, clean.before), ("after", pair.after, clean.after)):
        np.testing.assert_array_equal(noisy, standard_nuisance(photo, nuisance_seed(pair.pair_id, role)))
    np.testing.assert_array_equal(pair.mask, clean.mask)


def test_swapping_exchanges_the_photos_and_keeps_the_mask() -> None:
    plan = without_nuisance(next(plan for plan in plans(50) if plan.changes))
    there = render_realistic_pair(replace(plan, swapped=False), PHOTOS * 2, size=64)
    back = render_realistic_pair(replace(plan, swapped=True), PHOTOS * 2, size=64)
    np.testing.assert_array_equal(there.before, back.after)
    np.testing.assert_array_equal(there.after, back.before)
    np.testing.assert_array_equal(there.mask, back.mask)


def test_the_same_seed_gives_the_same_pairs_and_a_larger_count_only_adds() -> None:
    few = list(draw_realistic_pairs(PHOTOS, 6, seed=1, size=64))
    many = list(draw_realistic_pairs(PHOTOS, 9, seed=1, size=64))
    other = list(draw_realistic_pairs(PHOTOS, 6, seed=2, size=64))
    assert len({pair.pair_id for pair in [*many, *other]}) == 15
    for first, second in zip(few, many[:6], strict=True):
        assert (first.pair_id, first.kinds) == (second.pair_id, second.kinds)
        for name in ("before", "after", "mask"):
            assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    assert any((a.before != b.before).any() for a, b in zip(few, other, strict=True))


def test_photos_are_loaded_only_when_a_pair_is_asked_for() -> None:
    loaded = []

    def load(number: int) -> NDArray[np.uint8]:
        loaded.append(number)
        return textured(number)

    pairs = draw_realistic_pairs([partial(load, number) for number in range(4)], 300, seed=1, size=64)
    assert loaded == []
    next(pairs)
    assert loaded[0] == 0 and len(loaded) <= 5


def test_no_change_pairs_show_one_crop_with_two_nuisances() -> None:
    for index, pair in enumerate(no_change_pairs(PHOTOS, 8, seed=3, size=64)):
        plan = without_nuisance(plan_no_change_pair(index, 3, len(PHOTOS)))
        clean = render_realistic_pair(plan, PHOTOS, size=64)
        np.testing.assert_array_equal(clean.before, clean.after)
        for role in ("before", "after"):
            expected = standard_nuisance(clean.before, nuisance_seed(pair.pair_id, role))
            np.testing.assert_array_equal(getattr(pair, role), expected)
        assert (pair.before != pair.after).any()
        assert (pair.kinds, pair.mask.any(), pair.mask.shape) == ((), False, (64, 64))


def test_crop_is_a_square_of_the_photo_at_the_asked_size() -> None:
    across = np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (100, 1, 3))
    plan = without_nuisance(plan_no_change_pair(0, 0, 1))
    plan = replace(plan, crop=replace(plan.crop, side=0.64, left=0.5, top=0.0))
    pair = render_realistic_pair(plan, [lambda: across], size=64)
    first = int(0.5 * (200 - 64 + 1))
    np.testing.assert_array_equal(pair.before[0, :, 0], np.arange(first, first + 64))


def test_too_few_photos_are_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match="at least 2 photos, got 1"):
        draw_realistic_pairs(PHOTOS[:1], seed=0)
    with pytest.raises(ValueError, match="at least 1 photos, got 0"):
        no_change_pairs([], seed=0)


def test_grey_photos_are_refused_with_their_shape() -> None:
    grey: list[PhotoLoader] = [lambda: np.zeros((50, 60), dtype=np.uint8)]
    with pytest.raises(ValueError, match=re.escape("got uint8 of shape (50, 60)")):
        next(no_change_pairs(grey, seed=0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.slow), 42])
def test_differencing_oracle_stays_low_on_realistic_pairs_of_real_photos(seed: int, real_data: Path) -> None:
    @cache
    def load(path: Path) -> NDArray[np.uint8]:
        return np.asarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), dtype=np.uint8)

    paths = sorted((real_data / "rooms" / "test" / "images").rglob("*.jpg"))
    assert len(paths) == 35
    oracle = DifferencingOracle()
    for pair in draw_realistic_pairs([partial(load, path) for path in paths], 300, seed=seed):
        oracle.update(pair.before, pair.after, pair.mask)
    assert 0.3 < oracle.best().f1 <= 0.50
