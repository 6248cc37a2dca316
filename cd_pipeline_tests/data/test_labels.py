import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cd_pipeline.data.labels import Box, parse_labels


def test_each_line_becomes_a_box_in_file_order() -> None:
    boxes, dropped = parse_labels("3 0.5 0.25 0.1 0.2\n0 1 1 0.5 1\n")
    assert boxes == [Box(3, 0.5, 0.25, 0.1, 0.2), Box(0, 1.0, 1.0, 0.5, 1.0)]
    assert dropped == []


def test_columns_after_the_fifth_are_ignored() -> None:
    assert parse_labels("1 .5 .5 .2 .2 0.93 chair") == ([Box(1, 0.5, 0.5, 0.2, 0.2)], [])


@pytest.mark.parametrize("text", ["", "\n\n", "   \n\t\n", "\r\n\r\n"])
def test_an_empty_file_has_no_boxes_and_nothing_wrong(text: str) -> None:
    assert parse_labels(text) == ([], [])


def test_windows_line_ends_tabs_and_blank_lines_are_accepted() -> None:
    boxes, dropped = parse_labels("0\t.5 .5   .2 .2\r\n\r\n1 .5 .5 .2 .2\r\n")
    assert [box.class_id for box in boxes] == [0, 1]
    assert dropped == []


def test_a_class_written_as_a_float_is_accepted() -> None:
    assert parse_labels("2.0 .5 .5 .2 .2")[0][0].class_id == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.2", "4 columns"),
        ("0", "1 columns"),
        ("0 nan 0.5 0.2 0.2", "cx=nan is not finite"),
        ("0 0.5 0.5 inf 0.2", "w=inf is not finite"),
        ("nan 0.5 0.5 0.2 0.2", "not numbers"),
        ("inf 0.5 0.5 0.2 0.2", "not numbers"),
        ("0 1.2 0.5 0.2 0.2", r"cx=1.2 outside \[0, 1\]"),
        ("0 0.5 -0.1 0.2 0.2", r"cy=-0.1 outside \[0, 1\]"),
        ("0 0.5 0.5 640 480", r"w=640 outside \[0, 1\]"),
        ("0 0.5 0.5 0 0.2", "empty box"),
        ("0 0.5 0.5 0.2 0.0", "empty box"),
        ("chair 0.5 0.5 0.2 0.2", "not numbers"),
        ("0,0.5,0.5,0.2,0.2", "1 columns"),
        ("0 0,5 0,5 0,2 0,2", "not numbers"),
        ("\x00\x01 \x02 \x03 \x04 \x05", "not numbers"),
        ("1e300 0.5 0.5 0.2 0.2", "class=.* is not a class number"),
        ("-9223372036854775809 0.5 0.5 0.2 0.2", "class=.* is not a class number"),
    ],
)
def test_a_bad_line_is_dropped_with_its_number_and_reason(line: str, reason: str) -> None:
    boxes, dropped = parse_labels(f"0 .5 .5 .2 .2\n\n{line}\n1 .5 .5 .2 .2")
    assert [box.class_id for box in boxes] == [0, 1]
    assert len(dropped) == 1
    with pytest.raises(ValueError, match=rf"line 3: {reason}"):
        raise ValueError(dropped[0])


def test_rounding_slack_at_the_edges_is_clipped() -> None:
    assert parse_labels("0 1.0005 -0.0005 1.001 0.5") == ([Box(0, 1.0, 0.0, 1.0, 0.5)], [])


def test_a_byte_order_mark_costs_just_the_line_when_it_is_not_removed() -> None:
    boxes, dropped = parse_labels("\ufeff0 .5 .5 .2 .2\n1 .5 .5 .2 .2")
    assert [box.class_id for box in boxes] == [1]
    assert len(dropped) == 1


words = st.one_of(
    st.floats(width=32).map(str),
    st.floats(0, 1).map(str),
    st.integers().map(str),
    st.text(max_size=4),
    st.sampled_from(["nan", "-inf", "1e999", "0x1", "1_0", "\x00", "\ufeff"]),
)
lines = st.lists(words, max_size=7).map(" ".join)


@given(st.lists(lines, max_size=6).map("\n".join))
def test_each_line_is_a_box_or_a_reason_and_nothing_raises(text: str) -> None:
    boxes, dropped = parse_labels(text)
    assert len(boxes) + len(dropped) == sum(bool(line.strip()) for line in text.splitlines())
    for box in boxes:
        assert all(math.isfinite(value) and 0 <= value <= 1 for value in box[1:])
        assert box.w > 0
        assert box.h > 0
        assert abs(box.class_id) < 2**31


@given(st.text())
def test_garbage_never_raises(text: str) -> None:
    boxes, dropped = parse_labels(text)
    assert all(reason.startswith("line ") for reason in dropped)
    assert len(boxes) + len(dropped) <= len(text.splitlines())


shares = st.floats(0, 1, allow_subnormal=False)
sides = st.floats(1e-6, 1)


@given(st.lists(st.builds(Box, st.integers(0, 999), shares, shares, sides, sides), max_size=5))
def test_written_boxes_read_back_exactly(boxes: list[Box]) -> None:
    text = "\n".join(" ".join(repr(value) for value in box) for box in boxes)
    assert parse_labels(text) == (boxes, [])
