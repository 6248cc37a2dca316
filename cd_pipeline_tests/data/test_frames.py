"""Tables of figures on disk."""

from pathlib import Path

import pandas as pd
import pytest

from cd_pipeline.data.frames import read_frame, write_frame

ROWS = pd.DataFrame({"epoch": [1, 2], "val_f1": [0.25, float("nan")], "name": ["a", "b"]})


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_frame(tmp_path / "history.parquet", ROWS)
    pd.testing.assert_frame_equal(read_frame(tmp_path / "history.parquet"), ROWS)
    assert [path.name for path in tmp_path.iterdir()] == ["history.parquet"]


def test_an_unreadable_table_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint" / "history.parquet"
    path.parent.mkdir()
    path.write_bytes(b"PAR1 cut")
    with pytest.raises(ValueError, match=r"history\.parquet: .* delete it and materialize checkpoint again"):
        read_frame(path)
