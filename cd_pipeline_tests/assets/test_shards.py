"""Assets that work on shards: killed at half, the next run does the other half, and all ends as it would have."""

import multiprocessing
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from cd_pipeline.assets.memo import read_receipt
from cd_pipeline.recipe import Recipe
from cd_pipeline_tests.assets.test_memo import materialize, recipe_of
from cd_pipeline_tests.drawn import draw_photo_tree
from cd_pipeline_tests.faults.driver import wait_until
from cd_pipeline_tests.faults.files import contents

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_torch_thread")]

MADE = ("raw_photos", "split", "pair_manifest", "change_masks", "checkpoint", "threshold", "test_predictions")
PAIRS, TEST_PAIRS = 29, 14
"""Frozen pairs of 3 val and 7 test photos, and those of the test."""
WORK = {
    "change_masks": ("cd_pipeline.synthesis.rendered_pairs.render_pair", PAIRS, 4),
    "test_predictions": ("cd_pipeline.evaluation.pair_shard.load_sample", TEST_PAIRS, 2),
}
"""Of each asset: a function that is called once a pair, how many pairs there are, and how many are a shard."""
Made = tuple[Recipe, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A workspace in which all has been made, in shards of few pairs."""
    root = tmp_path_factory.mktemp("shards")
    counts = {"trainval": {"KITCHEN": 10, "STUDY": 4}, "test": {"KITCHEN": 4, "STUDY": 3}}
    draw_photo_tree(root / "photos", counts, size=(64, 48))
    synthesis = {"preset": "realistic", "epoch_pairs": 12, "frozen_pairs": 14}
    recipe = recipe_of(root / "photos", synthesis=synthesis)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cd_pipeline.synthesis.rendered_pairs.PAIRS_A_SHARD", WORK["change_masks"][2])
        patched.setattr("cd_pipeline.evaluation.predictions.EXAMPLES_A_SHARD", WORK["test_predictions"][2])
        result = materialize(recipe, root / "data", MADE, workers=0)
        assert result.success
        yield recipe, root / "data"


@pytest.fixture
def before(made: Made, asset: str, tmp_path: Path) -> Made:
    """A copy of the workspace in which one asset has not been made."""
    recipe, data = made
    shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "rooms" / asset)
    return recipe, tmp_path / "data"


def watched(asset: str, log: Path, block_at: int | None) -> Callable[..., Any]:
    """Wrap the function that is called once a pair: it writes the pair down, and hangs at one of them."""
    from importlib import import_module

    module, _, name = WORK[asset][0].rpartition(".")
    original = getattr(import_module(module), name)

    def call(pair: Any, *rest: Any, **options: Any) -> Any:  # noqa: ANN401 - as the function it stands for
        with log.open("a") as stream:
            stream.write(f"{pair.pair_id}\n")
        while block_at is not None and len(log.read_text().split()) > block_at:
            time.sleep(1)
        return original(pair, *rest, **options)

    return call


def make(recipe: Recipe, data: Path, asset: str, log: Path, told: Path, block_at: int | None) -> None:
    """Make an asset, as a process of its own."""
    with told.open("w") as stream, redirect_stderr(stream), pytest.MonkeyPatch.context() as patched:
        patched.setattr(WORK[asset][0], watched(asset, log, block_at))
        result = materialize(recipe, data, (asset,), workers=0)
        stream.flush()
        os._exit(0 if result.success else 1)


def started(made: Made, asset: str, name: str, block_at: int | None = None) -> Any:  # noqa: ANN401 - a process
    recipe, data = made
    arguments = (recipe, data, asset, data.parent / f"{name}.pairs", data.parent / f"{name}.log", block_at)
    process = multiprocessing.get_context("fork").Process(target=make, args=arguments)
    process.start()
    return process


def pairs_of(made: Made, name: str) -> Counter[str]:
    """The pairs that a process worked on."""
    log = made[1].parent / f"{name}.pairs"
    return Counter(log.read_text().split() if log.exists() else [])


def kill_at_half(made: Made, asset: str) -> None:
    half = WORK[asset][1] // 2  # the next pair is begun, but not done
    process = started(made, asset, "killed", block_at=half)
    wait_until(lambda: pairs_of(made, "killed").total() > half or not process.is_alive(), "half of the pairs")
    process.kill()
    process.join()
    assert process.exitcode == -9, (made[1].parent / "killed.log").read_text()[-4000:]


def complete(made: Made, asset: str, name: str = "again") -> str:
    process = started(made, asset, name)
    process.join()
    told = (made[1].parent / f"{name}.log").read_text()
    assert process.exitcode == 0, told[-4000:]
    return told


def version(data: Path, asset: str) -> str:
    receipt = read_receipt(data / "rooms" / asset)
    assert receipt is not None
    return receipt.data_version


@pytest.mark.parametrize("asset", WORK)
def test_a_run_that_was_killed_at_half_is_resumed_by_shard(made: Made, before: Made, asset: str) -> None:
    _, pairs, size = WORK[asset]
    kill_at_half(before, asset)
    done = pairs // 2 // size
    told = complete(before, asset)
    assert f"resumed: {done} of {-(-pairs // size)} shards were done" in told
    first, second = pairs_of(before, "killed"), pairs_of(before, "again")
    assert second.total() == pairs - done * size
    assert len(first | second) == pairs
    assert (first + second).total() <= pairs + size  # no more is done again than the shard it was killed in
    assert contents(before[1] / "rooms" / asset) == contents(made[1] / "rooms" / asset)
    assert version(before[1], asset) == version(made[1], asset)
    assert not (before[1] / "rooms" / asset / ".shards").exists()


@pytest.mark.parametrize("asset", WORK)
def test_a_picture_that_was_cut_after_the_kill_is_made_again(made: Made, before: Made, asset: str) -> None:
    _, pairs, size = WORK[asset]
    kill_at_half(before, asset)
    name = next(iter(pairs_of(before, "killed")))
    (picture, *_) = sorted((before[1] / "rooms" / asset).rglob(f"{name}.png"))
    picture.write_bytes(picture.read_bytes()[:40])
    complete(before, asset)
    assert pairs_of(before, "again").total() == pairs - (pairs // 2 // size - 1) * size
    assert contents(before[1] / "rooms" / asset) == contents(made[1] / "rooms" / asset)


@pytest.mark.parametrize("asset", ["test_predictions"])
def test_predictions_at_another_threshold_are_not_believed(before: Made, asset: str) -> None:
    recipe, data = before
    kill_at_half(before, asset)
    recipe.threshold.fixed = 0.4
    try:
        assert materialize(recipe, data, ("threshold",), workers=0).success
        told = complete(before, asset)
    finally:
        recipe.threshold.fixed = None
    assert "resumed" not in told
    assert pairs_of(before, "again").total() == WORK[asset][1]


@pytest.mark.parametrize("asset", ["change_masks"])
def test_what_is_made_by_force_is_made_from_the_start(
    before: Made, asset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at_half(before, asset)
    monkeypatch.setenv("CD_PIPELINE_FORCE", "1")
    complete(before, asset)
    assert pairs_of(before, "again").total() == PAIRS
