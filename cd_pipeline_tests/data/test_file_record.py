import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PosixPath

import pytest

from cd_pipeline.data import file_record as module
from cd_pipeline.data.file_record import FileRecord


class Listed(PosixPath):
    """A file on no disk; its name is its number."""

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        del follow_symlinks
        return os.stat_result((0o100644, int(self.name), 0, 1, 0, 0, 10, 0, 0, 0))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The files that are hashed from now on."""
    found: list[Path] = []

    def file_digest(path: Path) -> str:
        found.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.suffix else "of a listed one"

    monkeypatch.setattr(module, "file_digest", file_digest)
    module._file_digest.cache_clear()
    yield found
    module._file_digest.cache_clear()


def test_a_file_is_hashed_once_until_it_is_touched(tmp_path: Path, hashed: list[Path]) -> None:
    path = tmp_path / "a.png"
    for content in (b"one", b"two"):
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        for _ in range(3):
            assert FileRecord.of(path) == FileRecord(size=3, sha256=hashlib.sha256(content).hexdigest())
    assert hashed == [path, path]


def test_a_file_is_still_known_after_a_hundred_thousand_others(hashed: list[Path]) -> None:
    files = [Listed(f"/photos/{number}") for number in range(100_000)]
    for path in (*files, files[0]):
        FileRecord.of(path)
    assert len(hashed) == 100_000
