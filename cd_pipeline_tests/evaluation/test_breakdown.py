import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.evaluation.breakdown import SIZES, FoundChange, found_changes, recall_by


def test_two_changes_counted_by_hand() -> None:
    owners = np.full((10, 10), -1, np.int16)
    owners[0:2, 0:2] = 0  # 4 px, 4 % of the picture
    owners[4:10, 4:10] = 1  # 36 px
    prediction = np.zeros((10, 10), np.uint8)
    prediction[0, 0:2] = 255
    prediction[4:10, 4] = 255
    prediction[3, 3] = 255  # outside every change
    assert found_changes(owners, ["move", "blur"], prediction) == [
        FoundChange("move", "1 to 5 %", 4, 2),
        FoundChange("blur", "above 5 %", 36, 6),
    ]


def test_pixels_that_do_not_count_are_left_out() -> None:
    owners = np.zeros((4, 4), np.int16)
    prediction = np.full((4, 4), 255, np.uint8)
    valid = np.zeros((4, 4), np.uint8)
    assert found_changes(owners, ["insert"], prediction, valid) == []
    valid[0] = 255
    assert found_changes(owners, ["insert"], prediction, valid) == [FoundChange("insert", "above 5 %", 4, 4)]


def test_a_change_that_a_later_one_covers_is_not_listed() -> None:
    owners = np.ones((4, 4), np.int16)
    (found,) = found_changes(owners, ["remove", "insert"], np.zeros((4, 4), np.uint8))
    assert (found.kind, found.found) == ("insert", 0)


def test_owners_of_a_larger_picture_are_brought_to_the_predictions_size() -> None:
    small = np.array([[-1, 0], [1, -1]], np.int16)
    owners = small.repeat(6, axis=0).repeat(5, axis=1)
    prediction = np.array([[0, 255], [0, 0]], np.uint8)
    kinds = [
        (change.kind, change.pixels, change.found) for change in found_changes(owners, ["a", "b"], prediction)
    ]
    assert kinds == [("a", 1, 1), ("b", 1, 0)]


def test_recall_by_kind_worked_out_by_hand() -> None:
    changes = [
        FoundChange("move", "below 1 %", 10, 10),
        FoundChange("move", "above 5 %", 90, 40),
        FoundChange("blur", "above 5 %", 50, 0),
    ]
    assert recall_by(changes, "kind") == [
        {"kind": "blur", "changes": 1, "recall": 0.0, "half_found": 0.0},
        {"kind": "move", "changes": 2, "recall": 0.5, "half_found": 0.5},
    ]
    assert [row["size"] for row in recall_by(changes, "size")] == ["below 1 %", "above 5 %"]
    assert recall_by(changes, "size")[1]["recall"] == pytest.approx(40 / 140)


def test_without_changes_there_is_nothing_to_recall() -> None:
    assert recall_by([], "kind") == recall_by([], "size") == []


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_counts_agree_with_a_loop_over_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    owners = rng.integers(-1, 3, (6, 7)).astype(np.int16)
    prediction, valid = (rng.integers(0, 2, (6, 7)).astype(np.uint8) for _ in range(2))
    found = {change.kind: change for change in found_changes(owners, ["x", "y", "z"], prediction, valid)}
    for number, kind in enumerate("xyz"):
        places = [(r, c) for r in range(6) for c in range(7) if owners[r, c] == number]
        counted = [place for place in places if valid[place]]
        assert (kind in found) == bool(counted)
        if counted:
            assert found[kind].pixels == len(counted)
            assert found[kind].found == sum(int(prediction[place]) for place in counted)
            limits = dict(SIZES)
            assert len(places) / 42 <= limits[found[kind].size]
