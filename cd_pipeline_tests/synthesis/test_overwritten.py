from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.data.labels import Box
from cd_pipeline.synthesis.overwritten import traceless
from cd_pipeline.synthesis.plan import Change, ChangePlan, fill_polygons, plan_changes
from cd_pipeline.synthesis.published_kinds import PUBLISHED_KINDS
from cd_pipeline.synthesis.render import render
from cd_pipeline.synthesis.settings import KINDS, PublishedSynthesis
from cd_pipeline_tests.drawn import Pixels, draw_photo

WIDTH, HEIGHT = 96, 72
PHOTO = draw_photo(np.random.default_rng(3), (WIDTH, HEIGHT))[0]
WHOLE = (0, 0, WIDTH, HEIGHT)
SQUARE = (20, 20, 20, 20)
AROUND = (10, 10, 45, 45)


def all_made(plan: ChangePlan) -> Pixels:
    """The after picture with every change made, in order."""
    after = PHOTO.copy()
    for change in plan.changes:
        PUBLISHED_KINDS[change.kind](after, change)
        if change.erased and plan.truthful:
            dropped = fill_polygons((HEIGHT, WIDTH), change.erased) > 0
            after[dropped] = PHOTO[dropped]
    return after


def left_out(*changes: Change, truthful: bool = True) -> list[bool]:
    return traceless(ChangePlan(changes, truthful), WIDTH, HEIGHT)


def change_of(kind: str, x: int, y: int, width: int, height: int) -> Change:
    seed = 7 if kind == "rect" else None
    if kind == "move":
        return Change(kind, x, y, width, height, to_x=WIDTH - width, to_y=HEIGHT - height)
    return Change(kind, x, y, width, height, noise_seed=seed)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "move"])
@pytest.mark.parametrize(
    ("over", "expected"),
    [("black", True), ("rect", True), ("inpaint", True), ("blur", False), ("pixel", False), ("move", False)],
)
def test_a_change_is_left_out_under_one_that_does_not_read_it(kind: str, over: str, expected: bool) -> None:
    found = left_out(change_of(kind, *SQUARE), change_of(over, *AROUND))
    assert found == [expected, False]


def test_a_change_whose_edge_shows_is_made() -> None:
    assert left_out(change_of("blur", *SQUARE), change_of("rect", 20, 20, 20, 19)) == [False, False]
    # black and inpaint also change the row and column behind the rectangle
    assert left_out(change_of("black", *SQUARE), change_of("rect", *SQUARE)) == [False, False]


def test_what_inpainting_reads_around_its_hole_is_made() -> None:
    inside, beside = change_of("rect", 22, 22, 10, 10), change_of("rect", 42, 20, 5, 5)
    over = change_of("inpaint", *SQUARE)
    covered = change_of("black", 40, 10, 30, 30)
    assert left_out(inside, over) == [True, False]
    assert left_out(beside, over, covered) == [False, False, False]


def test_what_was_moved_elsewhere_before_it_was_overwritten_is_made() -> None:
    change, move = change_of("rect", *SQUARE), Change("move", *SQUARE, to_x=60, to_y=40)
    assert left_out(change, move) == [False, False]
    assert left_out(change, move, change_of("black", 55, 35, 30, 30)) == [True, False, False]


def test_a_dropped_change_is_left_out_where_its_region_is_restored() -> None:
    corners = (15, 15, 50, 15, 50, 50, 15, 50)
    change = replace(change_of("inpaint", *SQUARE), erased=(corners,))
    assert left_out(change) == [True]
    assert left_out(change, truthful=False) == [False]


def test_a_single_change_and_none_are_not_left_out() -> None:
    assert left_out() == []
    assert left_out(change_of("inpaint", *WHOLE)) == [False]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9), st.booleans())
def test_the_picture_is_the_one_with_every_change_made(seed: int, boxes: int, truthful: bool) -> None:
    rng = np.random.default_rng(seed)
    labelled = [Box(0, *rng.uniform(0.2, 0.8, 2), *rng.uniform(0.1, 0.7, 2)) for _ in range(boxes)]
    rules = PublishedSynthesis(
        change_probability=1, min_box_area=0, partial_keep_probability=0.5, truthful_masks=truthful
    )
    plan = plan_changes(rng, labelled, (WIDTH, HEIGHT), rules)
    np.testing.assert_array_equal(render(PHOTO, plan).after, all_made(plan))
