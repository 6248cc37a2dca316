"""One server of the S3 protocol for the tests of this folder, empty for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cd_pipeline_tests.stores import Store, served, use


@pytest.fixture(scope="package")
def _server() -> Iterator[Store]:
    with served() as store:
        yield store


@pytest.fixture
def store(_server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty bucket, which this process is pointed at."""
    _server.clear()
    use(_server, tmp_path / "cache", monkeypatch)
    return _server
