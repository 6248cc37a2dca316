import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.data.labels import Box
from cd_pipeline.data.manifest import Pair, read_pairs, write_pairs
from cd_pipeline.synthesis.realistic_plan import (
    Area,
    Patch,
    PhotoSource,
    RealisticChange,
    RealisticPlan,
    View,
    plan_realistic,
)
from cd_pipeline.synthesis.settings import REALISTIC_WEIGHTS, RealisticSynthesis

OWN = PhotoSource(
    "source:own.jpg", "a" * 64, 640, 480, (Box(0, 0.4, 0.5, 0.3, 0.4), Box(1, 0.7, 0.3, 0.1, 0.2))
)
OTHERS = [
    PhotoSource(
        "source:b.jpg", "b" * 64, 300, 400, (Box(0, 0.5, 0.5, 0.5, 0.25), Box(2, 0.2, 0.2, 0.3, 0.3))
    ),
    PhotoSource("source:c.jpg", "c" * 64, 800, 600, ()),
]
seeds = st.integers(0, 2**32 - 1)


def options(**values: object) -> RealisticSynthesis:
    return RealisticSynthesis.model_validate({"preset": "realistic", **values})


def drawn(seed: int, photo: PhotoSource = OWN, **values: object) -> RealisticPlan:
    chosen = options(**values)
    rng = np.random.default_rng(seed)
    return plan_realistic(rng, photo, OTHERS, chosen, chosen.weights_of("train"))


def changes(count: int, **values: object) -> list[RealisticChange]:
    return [change for seed in range(count) for change in drawn(seed, **values).changes]


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_a_seed_gives_the_same_plan_and_its_row_brings_it_back(seed: int) -> None:
    plan = drawn(seed)
    assert plan == drawn(seed)
    assert RealisticPlan.from_row(plan.to_row()) == plan


def test_seeds_give_other_plans() -> None:
    plans = [drawn(seed) for seed in range(50)]
    assert all(first != second for i, first in enumerate(plans) for second in plans[:i])


def test_plans_survive_the_manifest(tmp_path: Path) -> None:
    plans = [drawn(seed) for seed in range(40)]
    none_drawn = replace(plans[0], changes=(), before_nuisance=None, after_nuisance=None)
    plans.append(none_drawn)
    pairs = [
        Pair(
            pair_id=f"p{number}",
            split="val",
            class_name="A",
            before=f"workspace:before/{number}.png",
            after=f"workspace:after/{number}.png",
            mask=f"workspace:mask/{number}.png",
            photo=OWN.photo,
            photo_sha256=OWN.sha256,
            width=OWN.width,
            height=OWN.height,
            boxes=OWN.boxes,
            seed=number,
            changed=bool(plan.changes),
            plan=None,
            valid=f"workspace:valid/{number}.png" if plan.uncovers else None,
            side=64,
            realistic_plan=plan.to_row(),
        )
        for number, plan in enumerate(plans)
    ]
    write_pairs(tmp_path / "pairs.parquet", pairs)
    again = read_pairs(tmp_path / "pairs.parquet")
    assert [replace(pair, realistic_plan=None) for pair in again] == [
        replace(pair, realistic_plan=None) for pair in pairs
    ]
    assert [RealisticPlan.from_row(pair.realistic_plan or {}) for pair in again] == plans


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View(0, 0, 1, 1, False), Area(0.25, 0.4, 0.3, 0.2)),
        (View(0.1, 0.2, 0.5, 0.8, False), Area(0.3, 0.25, 0.6, 0.25)),
        (View(0.1, 0.2, 0.5, 0.8, True), Area(0.1, 0.25, 0.6, 0.25)),
        (View(0, 0, 1, 1, True), Area(0.45, 0.4, 0.3, 0.2)),
        (View(0.4, 0.5, 0.6, 0.5, False), Area(-0.25, -0.2, 0.5, 0.4)),
        (View(0.4, 0.5, 0.6, 0.5, True), Area(0.75, -0.2, 0.5, 0.4)),
    ],
)
def test_a_box_is_placed_in_the_view(view: View, expected: Area) -> None:
    # the box reaches from 0.25 to 0.55 across and from 0.4 to 0.6 down
    assert view.place(Box(0, 0.4, 0.5, 0.3, 0.2)) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_views_and_changes_lie_inside(seed: int) -> None:
    plan = drawn(seed)
    view = plan.view
    assert 0.6 <= min(view.width, view.height) <= max(view.width, view.height) <= 1
    assert min(view.left, view.top) >= 0
    assert max(view.left + view.width, view.top + view.height) <= 1 + 1e-9
    assert len(plan.changes) <= 4
    for change in plan.changes:
        for left, top in ((change.left, change.top), (change.to_left, change.to_top)):
            assert min(left, top) >= 0
            assert left + change.width <= 1 + 1e-9
            assert top + change.height <= 1 + 1e-9
        for patch in (change.outline, change.source):
            if patch is not None:
                assert min(patch.left, patch.top) >= 0
                assert min(patch.width, patch.height) > 0
                assert max(patch.left + patch.width, patch.top + patch.height) <= 1 + 1e-9


def test_free_changes_have_sides_within_the_shares_drawn_log_uniformly() -> None:
    weights = {kind: weight for kind, weight in REALISTIC_WEIGHTS.items() if kind != "insert"}
    free = changes(600, box_share=0.0, side_shares=(0.05, 0.4), kind_weights=weights)
    sides = np.array([side for change in free for side in (change.width, change.height)])
    assert 0.05 <= sides.min() < 0.053
    assert 0.38 < sides.max() <= 0.4
    assert np.median(sides) == pytest.approx(np.sqrt(0.05 * 0.4), rel=0.1)


def test_inserted_objects_keep_their_proportions_where_the_size_limits_allow() -> None:
    inserted = changes(400, kind_weights={"insert": 1}, side_shares=(0.05, 0.4), max_changes=2)
    objects = [change for change in inserted if change.source and change.source.photo == "source:b.jpg"]
    assert len(objects) > 100
    ratios = Counter[float]()
    for change in objects:
        sides = sorted((change.width, change.height))
        assert sides[0] >= 0.05
        assert sides[1] <= 0.4
        if sides[0] > 0.05 and sides[1] < 0.4:
            ratios[round(change.width / change.height, 6)] += 1
    # boxes of 150x100 px and 90x120 px
    assert set(ratios) == {1.5, 0.75}


def test_about_the_share_asked_for_is_without_a_change() -> None:
    unchanged = [not drawn(seed, no_change_share=0.3).changes for seed in range(1500)]
    assert np.mean(unchanged) == pytest.approx(0.3, abs=0.05)  # 4 sigma
    assert not any(drawn(seed, no_change_share=1.0).changes for seed in range(50))
    assert all(drawn(seed, no_change_share=0.0).changes for seed in range(50))


def test_counts_kinds_shapes_and_swaps_follow_their_weights() -> None:
    plans = [drawn(seed, no_change_share=0.0, max_changes=3, box_share=1.0) for seed in range(1500)]
    counts = Counter(len(plan.changes) for plan in plans)
    assert set(counts) == {1, 2, 3}
    for count in counts.values():
        assert count / 1500 == pytest.approx(1 / 3, abs=0.05)
    kinds = Counter(change.kind for plan in plans for change in plan.changes)
    total = sum(REALISTIC_WEIGHTS.values())
    for kind, weight in REALISTIC_WEIGHTS.items():
        assert kinds[kind] / kinds.total() == pytest.approx(weight / total, abs=0.03), kind
    assert np.mean([plan.swapped for plan in plans]) == pytest.approx(0.5, abs=0.05)
    shapes = Counter(change.shape for plan in plans for change in plan.changes if change.outline)
    assert set(shapes) == {"cutout"}
    assert {change.shape for plan in plans for change in plan.changes} == {
        "rectangle",
        "ellipse",
        "polygon",
        "cutout",
    }


def test_sources_come_from_the_pool_alone_and_outlines_from_what_they_lie_on() -> None:
    pool = {photo.photo for photo in OTHERS}
    for change in changes(400):
        needs_source = change.kind in ("insert", "replace", "retexture")
        assert (change.source is not None) == needs_source
        if change.source is not None:
            assert change.source.photo in pool
        assert (change.outline is not None) == (change.shape == "cutout")
        if change.outline is not None:
            assert change.outline.photo == (OWN.photo if change.kind != "insert" else "source:b.jpg")


def test_a_cutout_lies_exactly_on_its_labelled_box() -> None:
    found = 0
    for seed in range(300):
        plan = drawn(seed, box_share=1.0)
        for change in plan.changes:
            if change.outline is None or change.kind == "insert":
                continue
            places = [plan.view.place(box) for box in OWN.boxes]
            area = (change.left, change.top, change.width, change.height)
            assert any(area == pytest.approx(place) for place in places)
            patches = [
                Patch(OWN.photo, OWN.sha256, 0.25, 0.3, 0.3, 0.4),
                Patch(OWN.photo, OWN.sha256, 0.65, 0.2, 0.1, 0.2),
            ]
            corner = (change.outline.left, change.outline.top, change.outline.width, change.outline.height)
            assert any(corner == pytest.approx((p.left, p.top, p.width, p.height)) for p in patches)
            found += 1
    assert found > 50


def test_a_photo_without_labels_gets_changes_without_cutouts() -> None:
    bare = OWN._replace(boxes=())
    chosen = options()
    weights = {"blur": 1.0}
    plans = [
        plan_realistic(np.random.default_rng(seed), bare, [bare], chosen, weights) for seed in range(100)
    ]
    assert {change.shape for plan in plans for change in plan.changes} == {"rectangle", "ellipse", "polygon"}


def test_pairs_without_a_change_always_have_nuisance_on_both_photos() -> None:
    plans = [drawn(seed, nuisance={"probability": 0.4}) for seed in range(800)]
    for plan in plans:
        if not plan.changes:
            assert plan.before_nuisance is not None
            assert plan.after_nuisance is not None
    changed = [plan for plan in plans if plan.changes]
    for name in ("before_nuisance", "after_nuisance"):
        drawn_ = [getattr(plan, name) is not None for plan in changed]
        assert np.mean(drawn_) == pytest.approx(0.4, abs=0.08)


def test_the_nuisance_of_pairs_without_a_change_is_stronger() -> None:
    def reach(share: float) -> float:
        plans = [drawn(seed, no_change_share=share, no_change_strength=1.6) for seed in range(300)]
        return max(abs(plan.after_nuisance.offset) for plan in plans if plan.after_nuisance)

    assert 16 < reach(0.0) <= 18
    assert 18 < reach(1.0) <= 18 * 1.6


def test_only_the_before_photo_is_warped() -> None:
    plans = [drawn(seed, nuisance={"warp_probability": 1.0, "probability": 1.0}) for seed in range(50)]
    for plan in plans:
        assert plan.before_nuisance is not None
        assert plan.after_nuisance is not None
        assert (
            len(set(zip(plan.before_nuisance.corners[::2], plan.before_nuisance.corners[1::2], strict=True)))
            == 4
        )
        assert (
            len(set(zip(plan.after_nuisance.corners[::2], plan.after_nuisance.corners[1::2], strict=True)))
            == 1
        )
        assert plan.uncovers


def test_a_plan_without_shift_and_warp_uncovers_nothing() -> None:
    still = {"shift": 0.0, "warp": 0.0}
    assert not any(drawn(seed, nuisance=still).uncovers for seed in range(30))
    assert not any(
        drawn(seed, nuisance={"probability": 0.0}, no_change_share=0.0).uncovers for seed in range(30)
    )


def test_plans_do_not_use_other_generators() -> None:
    first = drawn(5)
    random.seed(1)
    np.random.seed(1)
    np.random.random(3)
    assert drawn(5) == first


def test_the_part_of_a_box_inside_the_photo_is_what_is_inserted() -> None:
    outside = PhotoSource("source:b.jpg", "b", 100, 100, (Box(0, 0.1, 0.95, 0.4, 0.2),))
    wanted = RealisticSynthesis(preset="realistic", kind_weights={"insert": 1}, no_change_share=0)
    plan = plan_realistic(np.random.default_rng(0), outside, [outside], wanted, {"insert": 1.0})
    source = plan.changes[0].source
    assert source is not None
    left, top, width, height = source.left, source.top, source.width, source.height
    assert (left, top, width, height) == pytest.approx((0.0, 0.85, 0.3, 0.15))
