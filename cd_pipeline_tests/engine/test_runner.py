import logging
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from cd_pipeline.data.files import file_digest
from cd_pipeline.engine.local import LocalEngine
from cd_pipeline.engine.records import FOLDER, ShardRecords
from cd_pipeline.engine.runner import ShardRunner
from cd_pipeline.engine.shards import Shards

ROWS = list(range(10))
SIZE = 3


@dataclass
class Squares:
    """A result: squares as an array, their sum, and a file with each."""

    squares: np.ndarray
    total: int
    files: dict[str, str]

    def to_plain(self) -> Mapping[str, Any]:
        return {"squares": self.squares, "total": self.total, "files": self.files}

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        return cls(**plain)


class Square:
    """Work that writes files, remembers which rows it was given, and can fail."""

    def __init__(self, folder: Path, fails_at: int | None = None) -> None:
        self.folder, self.fails_at, self.given = folder, fails_at, list[int]()

    def __call__(self, rows: Sequence[int]) -> Squares:
        files = {}
        for row in rows:
            if row == self.fails_at:
                raise ValueError(f"row {row}")
            path = self.folder / f"{row}.txt"
            path.write_text(str(row * row))
            files[path.name] = file_digest(path)
        self.given += rows
        squares = np.array([row * row for row in rows])
        return Squares(squares, int(squares.sum()), files)


def run(
    work: Square, identity: str = "a", rows: Sequence[int] = ROWS, made_of: Sequence[object] = ()
) -> list[int]:
    runner = ShardRunner(LocalEngine(), ShardRecords(work.folder, identity))
    results = list(runner.map(work, Shards(rows, SIZE), Squares, made_of))
    assert [result.total for result in results] == [int(result.squares.sum()) for result in results]
    return [int(square) for result in results for square in result.squares]


def stopped(folder: Path, at: int) -> None:
    with pytest.raises(ValueError, match=f"row {at}"):
        run(Square(folder, fails_at=at))


def test_rows_are_cut_into_shards_in_their_order() -> None:
    assert list(Shards(ROWS, 4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(Shards([], 4)) == []


def test_rows_that_can_be_gone_through_only_once_are_refused() -> None:
    with pytest.raises(TypeError, match="gone through again"):
        Shards(iter(ROWS), 4)


def test_a_stopped_run_goes_on_with_the_shards_that_are_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(tmp_path, at=7)
    again = Square(tmp_path)
    with caplog.at_level(logging.INFO):
        assert run(again) == [row * row for row in ROWS]
    assert again.given == [6, 7, 8, 9]
    assert "resumed: 2 of 4 shards were done" in caplog.messages


def test_a_first_run_is_no_resumed_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(Square(tmp_path))
    assert caplog.messages == []


def test_shards_that_are_missing_in_the_middle_take_their_places(tmp_path: Path) -> None:
    stopped(tmp_path, at=9)
    records = ShardRecords(tmp_path, "a").of("Squares")
    records.path(ROWS[3:6]).unlink()
    again = Square(tmp_path)
    assert run(again) == [row * row for row in ROWS]
    assert again.given == [3, 4, 5, 9]


@pytest.mark.parametrize(
    ("identity", "rows", "made_of"),
    [("b", ROWS, ()), ("a", [row + 100 for row in ROWS], ()), ("a", ROWS, ("another threshold",))],
)
def test_what_was_made_of_something_else_is_not_believed(
    tmp_path: Path, identity: str, rows: list[int], made_of: tuple[str, ...]
) -> None:
    run(Square(tmp_path))
    again = Square(tmp_path)
    assert run(again, identity, rows, made_of) == [row * row for row in rows]
    assert again.given == rows


def test_rows_that_move_to_other_shards_are_done_again(tmp_path: Path) -> None:
    run(Square(tmp_path))
    again = Square(tmp_path)
    run(again, rows=ROWS[1:])
    assert again.given == ROWS[1:]


@pytest.mark.parametrize("change", ["cut", "gone", "other"])
def test_a_file_that_is_not_what_was_written_is_made_again_with_its_shard(
    tmp_path: Path, change: str
) -> None:
    run(Square(tmp_path))
    file = tmp_path / "4.txt"
    if change == "gone":
        file.unlink()
    else:
        file.write_text("1" if change == "cut" else "17")
    again = Square(tmp_path)
    run(again)
    assert again.given == [3, 4, 5]
    assert file.read_text() == "16"


@pytest.mark.parametrize("keep", [0, 10, 60, 200])
def test_a_record_that_is_cut_or_changed_is_none(tmp_path: Path, keep: int) -> None:
    run(Square(tmp_path))
    for number, record in enumerate(sorted((tmp_path / FOLDER).iterdir())):
        content = bytearray(record.read_bytes())
        if number % 2:
            record.write_bytes(content[:keep])
        else:
            content[-1 - keep] ^= 1
            record.write_bytes(content)
    again = Square(tmp_path)
    assert run(again) == [row * row for row in ROWS]
    assert again.given == ROWS


def test_records_lie_in_a_hidden_folder_and_are_deleted_all_together(tmp_path: Path) -> None:
    run(Square(tmp_path))
    run(Square(tmp_path), identity="b")
    records = ShardRecords(tmp_path, "a")
    assert records.any()
    assert len(list((tmp_path / ".shards").iterdir())) == 8
    records.discard()
    assert not records.any()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{row}.txt" for row in ROWS]


def test_records_can_be_pickled(tmp_path: Path) -> None:
    records = ShardRecords(tmp_path, "a").of("x", 1.5)
    assert pickle.loads(pickle.dumps(records)).path(ROWS) == records.path(ROWS)
