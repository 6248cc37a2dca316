"""The plans against an independent simulation of the published rules, in plain Python."""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from cd_pipeline.data.labels import Box
from cd_pipeline.synthesis.geometry import Rect
from cd_pipeline.synthesis.plan import (
    Change,
    ChangePlan,
    fill_polygons,
    label_mask,
    label_owners,
    label_rects,
    plan_changes,
)
from cd_pipeline.synthesis.settings import PublishedSynthesis

WIDTH, HEIGHT = 200, 150
BOXES = [
    Box(0, 0.2, 0.25, 0.25, 0.3),
    Box(1, 0.7, 0.3, 0.3, 0.25),
    Box(2, 0.25, 0.75, 0.2, 0.4),
    Box(3, 0.75, 0.8, 0.35, 0.2),
    Box(4, 0.95, 0.55, 0.06, 0.08),  # 12 x 12 px: skipped
]
DRAWS = 4000
STRICT = 1e-3
"""Seeds are fixed: a test that passes once passes always."""


class Drawn(NamedTuple):
    """One draw: (kind, x, y, w, h, paste x, paste y) for each changed box, and what the mask holds."""

    changes: list[tuple[str, int, int, int, int, int | None, int | None]]
    erasures: int
    mask_pixels: int


def simulate(dice: random.Random, boxes: Sequence[Box], width: int, height: int) -> Drawn:
    """Follow the published sentences one by one, with the masks that changes truly have."""
    changes: list[tuple[str, int, int, int, int, int | None, int | None]] = []
    mask = np.zeros((height, width), bool)
    erasures = 0
    if boxes and dice.random() < 0.85:
        for box in dice.sample(list(boxes), dice.randint(1, len(boxes))):
            change = simulate_change(dice, box, width, height)
            if change is None:
                continue
            changes.append(change)
            kind, x, y, w, h, to_x, to_y = change
            edge = 1 if kind in ("black", "inpaint") else 0
            mask[y : y + h + edge, x : x + w + edge] = True
            if to_x is not None and to_y is not None:
                mask[to_y : to_y + h, to_x : to_x + w] = True
            if dice.random() < 0.25:
                erasures += simulate_partial_keep(dice, mask)
    return Drawn(changes, erasures, int(mask.sum()))


def simulate_change(
    dice: random.Random, box: Box, width: int, height: int
) -> tuple[str, int, int, int, int, int | None, int | None] | None:
    x, y = max(0, int((box.cx - box.w / 2) * width)), max(0, int((box.cy - box.h / 2) * height))
    w = max(2, min(width - 1, x + int(box.w * width)) - x)
    h = max(2, min(height - 1, y + int(box.h * height)) - y)
    if w * h < 20 * 20:
        return None
    across, down = int(0.12 * w), int(0.12 * h)
    x, y = x + dice.randint(-across, across), y + dice.randint(-down, down)
    w, h = max(2, w + dice.randint(-across, across)), max(2, h + dice.randint(-down, down))
    right, bottom = min(width, x + w), min(height, y + h)
    x, y = max(0, x), max(0, y)
    w, h = right - x, bottom - y
    kind = dice.choice(["black", "inpaint", "rect", "blur", "pixel", "move", "move"])
    if kind != "move":
        return kind, x, y, w, h, None, None
    return kind, x, y, w, h, dice.randint(0, width - w), dice.randint(0, height - h)


def simulate_partial_keep(dice: random.Random, mask: npt.NDArray[np.bool_]) -> int:
    # Outer contours are the 8-connected regions with their holes filled.
    regions, count = ndimage.label(mask, np.ones((3, 3)))
    erased = 0
    for number in range(1, count + 1):
        region = ndimage.binary_fill_holes(regions == number)
        if outline_area(region) >= 400 and dice.random() < 0.5:
            mask[region] = False
            erased += 1
    return erased


def outline_area(region: npt.NDArray[np.bool_]) -> float:
    """Area within the polygon through the centres of the border pixels, by Pick's theorem."""
    padded = np.pad(region, 1)
    inner = ndimage.binary_erosion(padded, ndimage.generate_binary_structure(2, 1))
    return float(inner.sum() + (padded & ~inner).sum() / 2 - 1)


def published(count: int = DRAWS, boxes: Sequence[Box] = BOXES, seed: int = 11) -> list[Drawn]:
    dice = random.Random(seed)
    return [simulate(dice, boxes, WIDTH, HEIGHT) for _ in range(count)]


def ours(
    count: int = DRAWS,
    boxes: Sequence[Box] = BOXES,
    seed: int = 12,
    **changed: Any,  # noqa: ANN401 - settings
) -> list[Drawn]:
    rng = np.random.default_rng(seed)
    chosen = PublishedSynthesis(**changed)
    plans = [plan_changes(rng, boxes, (WIDTH, HEIGHT), chosen) for _ in range(count)]
    return [
        Drawn(
            [(c.kind, c.x, c.y, c.width, c.height, c.to_x, c.to_y) for c in plan.changes],
            sum(len(c.erased) for c in plan.changes),
            int((label_mask(plan, WIDTH, HEIGHT) > 0).sum()),
        )
        for plan in plans
    ]


@pytest.fixture(scope="module")
def reference() -> list[Drawn]:
    return published()


@pytest.fixture(scope="module")
def drawn() -> list[Drawn]:
    return ours()


def same_frequencies(left: Sequence[object], right: Sequence[object]) -> float:
    """Return the p-value of a chi-square test that two lists come from one distribution."""
    counts = Counter(left), Counter(right)
    keys = sorted({*left, *right}, key=str)
    table = np.array([[count[key] for key in keys] for count in counts])
    common = table.sum(axis=0) >= 20  # the rare values are counted together
    table = np.column_stack([table[:, common], table[:, ~common].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    return 1.0 if table.shape[1] < 2 else float(stats.chi2_contingency(table).pvalue)


def box_number(change: tuple[Any, ...]) -> int:
    """Tell which box a change came from: the drawn boxes lie in four quarters."""
    _, x, y, w, h, *_ = change
    return int(x + w / 2 > WIDTH / 2) + 2 * int(y + h / 2 > HEIGHT / 2)


def moves(draws: list[Drawn]) -> list[tuple[Any, ...]]:
    return [change for draw in draws for change in draw.changes if change[0] == "move"]


STATISTICS: dict[str, Callable[[list[Drawn]], list[Any]]] = {
    "changed or not": lambda draws: [bool(draw.changes) for draw in draws],
    "number of changes": lambda draws: [len(draw.changes) for draw in draws],
    "boxes together": lambda draws: [tuple(sorted(map(box_number, draw.changes))) for draw in draws],
    "order of boxes": lambda draws: [tuple(map(box_number, d.changes)) for d in draws if len(d.changes) == 2],
    "kinds": lambda draws: [change[0] for draw in draws for change in draw.changes],
    "kinds of a pair": lambda draws: [
        (d.changes[0][0], d.changes[1][0]) for d in draws if len(d.changes) > 1
    ],
    "erased regions": lambda draws: [draw.erasures for draw in draws],
    "empty mask": lambda draws: [draw.mask_pixels == 0 for draw in draws],
}
for _name, _column in {"x": 1, "y": 2, "width": 3, "height": 4}.items():
    STATISTICS[_name] = lambda draws, column=_column: [
        (box_number(change), change[column]) for draw in draws for change in draw.changes
    ]
STATISTICS["x with width"] = lambda draws: [
    (box_number(c) % 2, c[1] // 4, c[3] // 4) for draw in draws for c in draw.changes
]
NUMBERS: dict[str, Callable[[list[Drawn]], list[float]]] = {
    "pixels in the mask": lambda draws: [draw.mask_pixels for draw in draws],
    "paste x": lambda draws: [change[5] for change in moves(draws)],
    "paste y": lambda draws: [change[6] for change in moves(draws)],
    "paste x as a share of the free room": lambda draws: [c[5] / (WIDTH - c[3]) for c in moves(draws)],
}


def p_value(name: str, left: list[Drawn], right: list[Drawn]) -> float:
    if name in STATISTICS:
        return same_frequencies(STATISTICS[name](left), STATISTICS[name](right))
    return float(stats.ks_2samp(NUMBERS[name](left), NUMBERS[name](right)).pvalue)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*STATISTICS, *NUMBERS])
def test_plans_have_the_published_distribution(name: str, reference: list[Drawn], drawn: list[Drawn]) -> None:
    assert p_value(name, reference, drawn) > STRICT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("changed or not", {"change_probability": 0.82}),
        (
            "kinds",
            {"kind_weights": dict.fromkeys(("black", "inpaint", "rect", "blur", "pixel", "move"), 1.0)},
        ),
        ("x", {"jitter": 0.14}),
        ("height", {"jitter": 0.14}),
        ("number of changes", {"min_box_area": 100}),
        ("erased regions", {"partial_keep_probability": 0.35}),
        ("erased regions", {"partial_keep_drop_probability": 0.65}),
        ("pixels in the mask", {"partial_keep_probability": 0.5}),
    ],
)
def test_another_setting_is_told_apart_from_the_published_one(
    name: str, changed: dict[str, Any], reference: list[Drawn]
) -> None:
    assert p_value(name, reference, ours(seed=13, **changed)) < STRICT


def test_a_box_reaching_over_the_edge_has_the_published_distribution() -> None:
    boxes = [Box(0, 1.0, 0.02, 0.4, 0.3)]
    left, right = published(2000, boxes), ours(2000, boxes)
    for name in ("x", "y", "width", "height"):
        assert p_value(name, left, right) > STRICT, name
    assert any(change[2] == 0 for draw in right for change in draw.changes)
    assert any(change[1] + change[3] == WIDTH for draw in right for change in draw.changes)


@pytest.mark.parametrize(("sides", "erasable"), [((20, 20), False), ((26, 20), True)])
def test_regions_are_erased_by_the_area_within_their_outline(sides: tuple[int, int], erasable: bool) -> None:
    box = Box(0, 0.5, 0.5, (sides[0] + 0.5) / WIDTH, (sides[1] + 0.5) / HEIGHT)
    options: dict[str, Any] = {"jitter": 0, "kind_weights": {"blur": 1}, "change_probability": 1}
    draws = ours(3000, [box], **options)
    erased = sum(draw.erasures for draw in draws)
    # a 20x20 region is 19x19 within its outline, below 400; 26x20 is 25x19 = 475
    if not erasable:
        assert erased == 0
    else:
        assert stats.binomtest(erased, 3000, 0.25 * 0.5).pvalue > STRICT


def test_boxes_below_400_px_are_skipped_and_400_px_are_not() -> None:
    options = PublishedSynthesis(change_probability=1)
    rng = np.random.default_rng(0)
    for width, height, expected in ((20, 20, 1), (40, 10, 1), (21, 19, 0), (199, 2, 0), (133, 3, 0)):
        box = Box(0, 0.5, 0.5, (width + 0.01) / WIDTH, (height + 0.01) / HEIGHT)
        for _ in range(20):
            assert len(plan_changes(rng, [box], (WIDTH, HEIGHT), options).changes) == expected


def test_without_boxes_nothing_changes() -> None:
    for seed in range(20):
        plan = plan_changes(np.random.default_rng(seed), [], (WIDTH, HEIGHT), PublishedSynthesis())
        assert plan.changes == ()


def test_a_box_is_changed_at_most_once_a_pair(drawn: list[Drawn]) -> None:
    for draw in drawn:
        assert len(set(map(box_number, draw.changes))) == len(draw.changes)


def test_a_change_that_jitter_pushes_out_of_the_image_is_left_out() -> None:
    box = Box(0, 0.02, 0.5, 0.5, 0.5)
    options = PublishedSynthesis(jitter=0.99, change_probability=1)
    rng = np.random.default_rng(0)
    plans = [plan_changes(rng, [box], (WIDTH, HEIGHT), options) for _ in range(500)]
    assert 0 < sum(not plan.changes for plan in plans) < 500
    assert all(change.width and change.height for plan in plans for change in plan.changes)


shares = st.floats(0, 1)
widths = st.floats(0, 1, exclude_min=True)
boxes_of_a_photo = st.lists(st.builds(Box, st.just(0), shares, shares, widths, widths), max_size=4)


@settings(max_examples=150, deadline=None)
@given(boxes_of_a_photo, st.integers(16, 300), st.integers(16, 300), st.integers(0, 2**63 - 1), st.booleans())
def test_every_change_lies_in_the_photo(
    boxes: list[Box], width: int, height: int, seed: int, truthful: bool
) -> None:
    options = PublishedSynthesis(truthful_masks=truthful, min_box_area=0, partial_keep_probability=0.7)
    plan = plan_changes(np.random.default_rng(seed), boxes, (width, height), options)
    assert plan == plan_changes(np.random.default_rng(seed), boxes, (width, height), options)
    for change in plan.changes:
        places = [change.rect]
        if change.kind == "move":
            assert change.to_x is not None
            assert change.to_y is not None
            places.append(Rect(change.to_x, change.to_y, change.width, change.height))
        else:
            assert change.to_x is change.to_y is None
        for place in places:
            assert place == place.clipped(width, height)
            assert place.width >= 1
            assert place.height >= 1
        assert (change.noise_seed is not None) == (change.kind == "rect")
        assert all(0 <= value < max(width, height) for polygon in change.erased for value in polygon)


def test_plans_survive_their_row() -> None:
    options = PublishedSynthesis(partial_keep_probability=1, reencode_jpeg=True, truthful_masks=False)
    for seed in range(50):
        plan = plan_changes(np.random.default_rng(seed), BOXES, (WIDTH, HEIGHT), options)
        assert ChangePlan.from_row(plan.to_row()) == plan
        assert (plan.truthful, plan.jpeg_quality) == (False, 95)


def test_a_kind_of_weight_0_is_never_drawn() -> None:
    weights = {"black": 1.0, "move": 0.0, "blur": 3.0}
    kinds = Counter(c[0] for draw in ours(1500, kind_weights=weights) for c in draw.changes)
    assert set(kinds) == {"black", "blur"}
    assert stats.binomtest(kinds["blur"], kinds.total(), 0.75).pvalue > STRICT


@pytest.mark.parametrize("kind", ["black", "inpaint", "rect", "blur", "pixel", "move"])
def test_untruthful_labels_are_one_pixel_larger_for_four_kinds(kind: str) -> None:
    target = {"to_x": 50, "to_y": 60} if kind == "move" else {}
    change = Change(kind, 10, 20, 30, 40, **target)
    truthful, published_ = (label_rects(change, 100, 100, truthful=flag) for flag in (True, False))
    grown = [Rect(10, 20, 31, 41)] + ([Rect(50, 60, 31, 40)] if kind == "move" else [])
    exact = [Rect(10, 20, 30, 40)] + ([Rect(50, 60, 30, 40)] if kind == "move" else [])
    assert published_ == grown  # the paste ends at row 99: it grows to the right only
    assert truthful == (grown if kind in ("black", "inpaint") else exact)


def test_filled_polygons_are_their_outer_regions() -> None:
    rng = np.random.default_rng(4)
    for _ in range(30):
        mask = np.zeros((60, 80), np.uint8)
        for _ in range(5):
            x, y, w, h = (int(value) for value in rng.integers((0, 0, 2, 2), (70, 50, 40, 30)))
            mask[y : y + h, x : x + w] = 255
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        filled = fill_polygons(mask.shape, [contour.ravel().tolist() for contour in contours])
        np.testing.assert_array_equal(filled > 0, ndimage.binary_fill_holes(mask))


def test_the_mask_of_a_plan_can_be_empty_although_it_has_changes() -> None:
    change = Change("black", 10, 10, 29, 29, erased=((10, 10, 39, 10, 39, 39, 10, 39),))
    assert not label_mask(ChangePlan((change,)), 100, 80).any()
    kept = label_mask(ChangePlan((change, Change("blur", 50, 5, 10, 20))), 100, 80)
    assert int((kept > 0).sum()) == 200
    assert math.isclose(kept.mean(), 255 * 200 / 8000)


def test_where_changes_overlap_the_later_one_owns_the_pixels() -> None:
    first, second = Change("blur", 10, 5, 30, 20), Change("rect", 25, 15, 40, 20)
    move = Change("move", 0, 40, 10, 10, to_x=60, to_y=0)
    owners = label_owners(ChangePlan((first, second, move)), 80, 60)
    for y in range(60):
        for x in range(80):
            expected = -1
            if 10 <= x < 40 and 5 <= y < 25:
                expected = 0
            if 25 <= x < 65 and 15 <= y < 35:
                expected = 1
            if (x < 10 and 40 <= y < 50) or (60 <= x < 70 and y < 10):
                expected = 2
            assert owners[y, x] == expected


def test_erased_pixels_have_no_owner_until_a_later_change() -> None:
    erased = ((10, 5, 39, 5, 39, 24, 10, 24),)
    first = Change("blur", 10, 5, 30, 20, erased=erased)
    owners = label_owners(ChangePlan((first, Change("rect", 30, 10, 20, 10))), 80, 60)
    expected = np.full((60, 80), -1)
    expected[10:20, 30:50] = 1
    np.testing.assert_array_equal(owners, expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_mask_is_where_someone_owns_the_pixel(seed: int) -> None:
    options = PublishedSynthesis(partial_keep_probability=0.5)
    plan = plan_changes(np.random.default_rng(seed), BOXES, (WIDTH, HEIGHT), options)
    owners = label_owners(plan, WIDTH, HEIGHT)
    assert (owners.dtype, owners.shape) == (np.int16, (HEIGHT, WIDTH))
    assert owners.max() < len(plan.changes)
    np.testing.assert_array_equal(owners >= 0, label_mask(plan, WIDTH, HEIGHT) == 255)
