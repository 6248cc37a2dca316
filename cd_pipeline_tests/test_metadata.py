"""Tables and warnings of the UI stay small, and say what they leave out."""

import logging

import pandas as pd
import pytest

from cd_pipeline.metadata import TABLE_LIMIT, TOLD_LIMIT, table, warn_of_left_out


@pytest.mark.parametrize("count", [1, TABLE_LIMIT])
def test_a_table_of_up_to_200_rows_is_whole(count: int) -> None:
    shown = table([{"file": f"f{number}", "size": number} for number in range(count)], "photos.parquet")
    assert [record.data for record in shown.records] == [{"file": f"f{n}", "size": n} for n in range(count)]
    assert {column.name: column.type for column in shown.schema.columns} == {"file": "string", "size": "int"}


@pytest.mark.parametrize("framed", [False, True])
def test_a_longer_table_says_how_many_rows_there_are_and_where(framed: bool) -> None:
    rows = [{"file": f"f{number}", "size": number} for number in range(5000)]
    shown = table(pd.DataFrame(rows) if framed else rows, "photos.parquet")
    assert len(shown.records) == TABLE_LIMIT + 1
    assert [record.data["file"] for record in shown.records[:-1]] == [f"f{n}" for n in range(TABLE_LIMIT)]
    assert shown.records[-1].data == {
        "file": "... and 4,800 of 5,000 rows more, in photos.parquet",
        "size": "",
    }
    assert {column.name: column.type for column in shown.schema.columns} == {"file": "string", "size": "int"}


def test_a_table_without_rows_is_one() -> None:
    assert table([]).records == []


@pytest.mark.parametrize("count", [0, 1, TOLD_LIMIT, TOLD_LIMIT + 1, 20_000])
def test_of_many_left_out_files_some_are_named_and_the_rest_counted(
    caplog: pytest.LogCaptureFixture, count: int
) -> None:
    left_out = [(f"f{number}", "too dark") for number in range(count)]
    warn_of_left_out(logging.getLogger("x"), "quarantined", left_out, "photos.parquet")  # type: ignore[arg-type]
    named = [f"quarantined {name}: too dark" for name, _ in left_out[:TOLD_LIMIT]]
    assert caplog.messages[:TOLD_LIMIT] == named
    rest = caplog.messages[TOLD_LIMIT:]
    if count > TOLD_LIMIT:
        assert rest == [f"quarantined {count - 50:,} more, {count:,} in all, listed in photos.parquet"]
    else:
        assert rest == []
