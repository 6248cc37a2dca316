"""Shards on a Ray cluster of two workers: the same pictures, figures and errors as on this machine alone."""

import json
import logging
import os
import pickle
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from cd_pipeline.data.images import PhotoError
from cd_pipeline.engine.build import build_engine
from cd_pipeline.engine.ray_data import RayEngine, portable
from cd_pipeline.engine.settings import EngineSettings
from cd_pipeline.recipe import Recipe
from cd_pipeline_tests.assets.test_memo import materialize
from cd_pipeline_tests.assets.test_shards import TEST_PAIRS, Made, made, version  # noqa: F401 - a fixture
from cd_pipeline_tests.assets.tiny import failure
from cd_pipeline_tests.faults.files import contents

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_torch_thread")]

SETTINGS = EngineSettings(engine="ray", workers=2)
LOGGER = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster of this machine with two cores, and a GPU that it is told of but that is not there."""
    import ray

    ray.init(
        num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING
    )
    yield
    ray.shutdown()


def on_ray(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"compute": SETTINGS})


class Squares:
    """Work that knows how many shards it has been given: loaded once, it goes on counting."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, shard: int) -> tuple[int, int, int]:
        time.sleep((shard * 7 % 5) / 50)  # so that they do not end in their order
        self.count += 1
        return shard * shard, os.getpid(), self.count


def refuse(shard: int) -> int:
    if shard == 3:
        raise PhotoError("a.jpg: the file has changed")
    return shard


def where(shard: int) -> tuple[int, str, list[str]]:
    import ray
    import torch

    ids = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    return torch.get_num_threads(), str(Path.cwd()), ids


def die_once(folder: Path, shard: int) -> int:
    if shard == 1 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return shard


@pytest.mark.usefixtures("cluster")
def test_results_come_in_order_from_workers_that_load_the_work_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cd_pipeline.engine.ray_data.SHARDS_AT_ONCE", 12)  # then all begins anew
    with build_engine(SETTINGS, threads=1, logger=LOGGER) as engine:
        found = list(engine.map(Squares(), (number for number in range(14))))
    assert [square for square, _, _ in found] == [number * number for number in range(14)]
    workers = {pid for _, pid, _ in found[:12]}
    assert os.getpid() not in workers
    assert len(workers) <= 2
    for worker in workers:
        counts = [count for _, pid, count in found[:12] if pid == worker]
        assert sorted(counts) == list(range(1, len(counts) + 1))


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("gpu", "has"), [(False, "2 CPUs"), (True, "1 GPUs")])
def test_more_workers_than_the_cluster_has_cores_or_gpus_are_refused(gpu: bool, has: str) -> None:
    settings = EngineSettings(engine="ray", workers=3)
    with (
        pytest.raises(ValueError, match=f"compute.workers is 3; the Ray cluster has {has}"),
        build_engine(settings, threads=1, logger=LOGGER, gpu=gpu),
    ):
        pass


@pytest.mark.usefixtures("cluster")
def test_a_shard_whose_worker_died_is_done_by_another(tmp_path: Path) -> None:
    assert list(RayEngine(1).map(partial(die_once, tmp_path), range(3))) == [0, 1, 2]
    assert (tmp_path / "died").exists()


@pytest.mark.usefixtures("cluster")
def test_a_worker_has_one_thread_the_drivers_folder_and_a_gpu_if_asked() -> None:
    assert list(RayEngine(1, gpu=True).map(where, [0])) == [(1, str(Path.cwd()), ["0"])]


@pytest.mark.usefixtures("cluster")
def test_an_error_in_a_worker_is_raised_in_its_turn_as_it_was() -> None:
    results = RayEngine(1).map(refuse, range(8))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(PhotoError) as raised:
        next(results)
    assert str(raised.value) == "a.jpg: the file has changed"
    assert "in refuse" in raised.value.__notes__[0]  # where it was


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory", "a.jpg"),
        OSError(28, "No space left on device", "mask.png"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "why"),
    ],
)
def test_errors_travel_between_processes_as_they_are(error: Exception) -> None:
    found = pickle.loads(pickle.dumps(portable(error)))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found).keys() == vars(error).keys()
    assert getattr(found, "filename", None) == getattr(error, "filename", None)


def test_an_error_that_cannot_be_pickled_is_told_all_the_same() -> None:
    class StrangeError(Exception):
        def __init__(self, first: str, second: str) -> None:
            super().__init__(f"{first} and {second}")

    found = portable(StrangeError("this", "that"))
    assert type(found) is RuntimeError
    assert str(found) == "StrangeError: this and that"


def made_on_ray(made: Made, asset: str, root: Path) -> Path:  # noqa: F811
    """A copy of the workspace in which one asset was made on Ray."""
    recipe, data = made
    shutil.copytree(data, root)
    shutil.rmtree(root / "rooms" / asset)
    assert materialize(on_ray(recipe), root, (asset,), workers=0).success
    return root / "rooms" / asset


@pytest.mark.usefixtures("cluster")
def test_pairs_rendered_on_ray_are_the_same_to_the_byte(made: Made, tmp_path: Path) -> None:  # noqa: F811
    here, there = made[1] / "rooms" / "change_masks", made_on_ray(made, "change_masks", tmp_path / "data")
    assert len(list(there.rglob("*.png"))) > 100
    assert contents(there) == contents(here)
    assert version(tmp_path / "data", "change_masks") == version(made[1], "change_masks")


@pytest.mark.usefixtures("cluster")
def test_predictions_on_ray_score_the_same(made: Made, tmp_path: Path) -> None:  # noqa: F811
    here, there = (
        made[1] / "rooms" / "test_predictions",
        made_on_ray(made, "test_predictions", tmp_path / "data"),
    )
    (expected, scores), (found, its_scores) = (
        (json.loads((folder / "metrics.json").read_text()), pd.read_parquet(folder / "predictions.parquet"))
        for folder in (here, there)
    )
    assert found["pairs"] == len(its_scores) == TEST_PAIRS
    for name, value in expected.items():
        near = pytest.approx(value, abs=1e-6) if isinstance(value, float) else value
        assert found[name] == near, name
    pd.testing.assert_frame_equal(its_scores, scores, atol=1e-6)
    assert {path.name for path in there.glob("*.png")} == {path.name for path in here.glob("*.png")}


@pytest.mark.usefixtures("cluster")
def test_a_photo_that_is_gone_is_the_same_error_on_ray(made: Made, tmp_path: Path) -> None:  # noqa: F811
    recipe, data = made
    shutil.copytree(data, tmp_path / "data")
    shutil.copytree(data.parent / "photos", tmp_path / "photos")
    moved = recipe.model_copy(
        update={"source": recipe.source.model_copy(update={"folder": str(tmp_path / "photos")})}
    )
    gone = sorted((tmp_path / "photos" / "test").rglob("*.jpg"))[0]
    gone.unlink()
    shutil.rmtree(tmp_path / "data" / "rooms" / "change_masks")
    told = []
    for one in (moved, on_ray(moved)):
        result = materialize(one, tmp_path / "data", ("change_masks",), workers=0)
        told.append(failure(result, "change_masks"))
    assert told[0] == told[1]
    assert str(gone) in told[0]
    assert "\n" not in told[0]
