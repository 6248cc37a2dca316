"""Fixtures shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cd_pipeline_tests.stores import Store

REAL_DATA = "CD_PIPELINE_REAL_DATA"

if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # a process a core, and a core a process: threads of several that share cores wait for each other
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(cores)]})


LONGEST = (
    "test_command_line.py",
    "training/test_ray_job.py",
    "models/test_siamese_unet_real.py",
    "faults/test_kills.py",
)
"""Files whose slow tests take minutes one after the other: begun last, one would keep a single core busy at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    paths = [Path(__file__).parent / name for name in LONGEST]
    items.sort(key=lambda item: paths.index(item.path) if item.path in paths else len(paths))


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    # A developer's own settings must not leak into tests, nor a hub into the network.
    for name in ("DATA", "CACHE", "ROOMS", "ROOMS_PAIRS", "LEVIR", "CRACKS", "VOC", "FORCE"):
        monkeypatch.delenv(f"CD_PIPELINE_{name}", raising=False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; the test is skipped where there is none."""
    if REAL_DATA not in os.environ:
        pytest.skip(f"{REAL_DATA} is not set: no real data to test on")
    return Path(os.environ[REAL_DATA])


@pytest.fixture(scope="session")
def _store_server() -> Iterator["Store"]:
    from cd_pipeline_tests.stores import served

    with served() as store:
        yield store


@pytest.fixture
def store(_store_server: "Store", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Store":
    """An empty bucket of a server of the S3 protocol, which this process is pointed at."""
    from cd_pipeline_tests.stores import use

    _store_server.clear()
    use(_store_server, tmp_path / "cache", monkeypatch)
    return _store_server


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """Run torch in one thread, fast for tiny networks even on a busy machine; undo what tests set."""
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
