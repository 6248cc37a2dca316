"""A training that was stopped goes on as if nothing had been."""

import logging
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cd_pipeline.data.datasets import ItemDataset
from cd_pipeline.data.manifest import read_pairs, write_pairs
from cd_pipeline.data.photos import scan_photos
from cd_pipeline.data.samples import Roots
from cd_pipeline.data.settings import AugmentationSettings, SplitSettings
from cd_pipeline.data.split import assign_splits
from cd_pipeline.models.build import build_model
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.synthesis.pairs import plan_pairs
from cd_pipeline.synthesis.rendered_pairs import render_pairs
from cd_pipeline.synthesis.settings import PublishedSynthesis
from cd_pipeline.training.job import TrainingJob, run_job
from cd_pipeline.training.loop import TrainingResult, train
from cd_pipeline.training.progress import EpochRecord
from cd_pipeline.training.settings import TrainingSettings
from cd_pipeline.training.unfinished import TrainingState, UnfinishedFile
from cd_pipeline_tests.drawn import draw_photo_tree
from cd_pipeline_tests.tiny_images import TinyScenes
from cd_pipeline_tests.tiny_pairs import TinyPairs
from cd_pipeline_tests.training.tiny_job import draw_job

pytestmark = pytest.mark.usefixtures("one_torch_thread")

LOGGER = logging.getLogger(__name__)
EPOCHS = 4
MEASURED = ("train_seconds", "val_seconds", "images_per_second", "memory_gb", "gpu_memory_gb")


class StoppedError(Exception):
    """Stands for whatever ends a process."""


class Drawing(nn.Module):
    """A network with batch statistics that draws random numbers in training."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.norm = nn.Conv2d(6, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.drop, self.last = nn.Dropout(0.3), nn.Conv2d(4, 1, 1)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        logits: Tensor = self.last(self.drop(self.norm(self.first(torch.cat([before, after], 1))).relu()))
        return logits


def segmenter(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(ModelSettings(name="unet", widths=(8, 16), norm="batch"), TinyScenes(1).task)


Case = tuple[Callable[[int], nn.Module], Callable[[], tuple[ItemDataset, ItemDataset]], dict[str, object]]
CASES: dict[str, Case] = {
    "averages, warm-up and clipping": (
        Drawing,
        lambda: (TinyPairs(10, 32), TinyPairs(4, 32, seed=1)),
        {"preset": "published", "ema_warmup": True, "schedule": "step", "warmup_epochs": 1},
    ),
    "a plateau that lowers the rate": (
        Drawing,
        lambda: (TinyPairs(10, 32), TinyPairs(4, 32, seed=1)),
        {"preset": "cracks", "loss": "bce_dice", "learning_rate": 3.0, "plateau_patience": 0},
    ),
    "several classes of one image": (
        segmenter,
        lambda: (TinyScenes(6), TinyScenes(3, seed=1)),
        {"preset": "siamese", "loss": "ce_dice", "best_by": "iou", "learning_rate": 0.01},
    ),
}


def settings_of(case: Case, **more: object) -> TrainingSettings:
    return TrainingSettings.model_validate({"epochs": EPOCHS, "batch_size": 4, **case[2], **more})


def follow(
    case: Case, file: UnfinishedFile | None, stop_after: int | None = None, **more: object
) -> tuple[nn.Module, TrainingResult]:
    """Train, going on from the file where it holds a state; stop by an error after an epoch."""
    found = file.read() if file else None
    model = case[0](99 if found else 0)  # what the network starts from does not matter to one that resumes

    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == stop_after:
            raise StoppedError

    def keep(state: TrainingState) -> None:
        if file:
            file.write(state, pretrained=True)

    result = train(
        model,
        *case[1](),
        settings_of(case, **more),
        Runtime(),
        resume=found[0] if found else None,
        keep=keep,
        on_epoch=on_epoch,
    )
    return model, result


def lasting(history: list[EpochRecord]) -> list[dict[str, Any]]:
    """The epochs without what is measured."""
    return [{k: v for k, v in asdict(record).items() if k not in MEASURED} for record in history]


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("name", CASES)
def test_stopped_after_any_epoch_it_ends_with_the_same_weights(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model, whole = follow(case, None)
    for stop_after in range(1, EPOCHS + 1):
        file = UnfinishedFile(tmp_path / f"{stop_after}.pt", "this", EPOCHS, LOGGER)
        with pytest.raises(StoppedError):
            follow(case, file, stop_after)
        resumed, result = follow(case, file)
        assert_same(resumed.state_dict(), model.state_dict())
        assert_same(result.weights, whole.weights)
        assert lasting(result.history) == lasting(whole.history)
        assert (result.best.epoch, result.stop_reason) == (whole.best.epoch, whole.stop_reason)


def test_the_plateau_case_does_lower_the_rate_and_dropout_does_draw() -> None:
    _, whole = follow(CASES["a plateau that lowers the rate"], None)
    assert len({record.learning_rate for record in whole.history}) > 1
    model = Drawing(0).train()
    pictures = torch.rand(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(1)).unbind()
    assert not torch.equal(model(*pictures), model(*pictures))


def test_patience_counts_on_over_a_stop(tmp_path: Path) -> None:
    case = CASES["averages, warm-up and clipping"]
    never = {"patience": 2, "min_improvement": 1.0, "wait_for_floor": False, "epochs": 9}
    _, whole = follow(case, None, **never)
    assert whole.stop_reason == "no better val F1 in 2 epochs"
    file = UnfinishedFile(tmp_path / "state.pt", "this", 9, LOGGER)
    for stop_after in (1, 2, 3):
        with pytest.raises(StoppedError):
            follow(case, file, stop_after, **never)
    _, result = follow(case, file, **never)
    assert (len(result.history), result.stop_reason) == (3, whole.stop_reason)


def drawn_each_epoch(folder: Path) -> TrainingJob:
    """A job whose training pairs are drawn anew in every epoch."""
    synthesis = PublishedSynthesis(train_pairs="fresh")
    photos = draw_photo_tree(folder / "photos", {"trainval": {"A": 12}, "test": {"A": 1}})
    pairs = plan_pairs(assign_splits(scan_photos(photos).photos, SplitSettings()), synthesis)
    render_pairs(pairs, Roots(photos, folder), threads=1)
    write_pairs(folder / "fresh.parquet", pairs)
    job = draw_job(folder, 1)
    return job.model_copy(
        update={"manifest": folder / "fresh.parquet", "source": photos, "synthesis": synthesis}
    )


def cropped_each_epoch(folder: Path) -> TrainingJob:
    """A job whose training pairs are varied anew in every epoch."""
    return draw_job(folder, 5).model_copy(update={"augmentation": AugmentationSettings(epoch_pairs=10)})


JOBS = {"drawn": drawn_each_epoch, "cropped": cropped_each_epoch}


@pytest.fixture(params=JOBS)
def job(request: pytest.FixtureRequest, tmp_path: Path) -> TrainingJob:
    """A job whose samples are other ones in every epoch, with a file for its state."""
    drawn: TrainingJob = JOBS[request.param](tmp_path)
    return drawn.model_copy(
        update={"runtime": replace(drawn.runtime, workers=0), "unfinished": tmp_path / "state.pt"}
    )


def stop(job: TrainingJob, after: int) -> None:
    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == after:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_job(job, LOGGER, on_epoch=on_epoch)


def test_samples_of_each_epoch_are_those_of_a_training_that_never_stopped(
    job: TrainingJob, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    whole = run_job(job.model_copy(update={"unfinished": None}), LOGGER).training
    stop(job, 2)
    told: list[EpochRecord] = []
    again: list[EpochRecord] = []
    result = run_job(job, LOGGER, on_epoch=told.append, on_resume=again.extend).training
    assert "resuming after epoch 2 of 3" in caplog.messages
    assert [record.epoch for record in again] == [1, 2]
    assert [record.epoch for record in told] == [3]
    assert_same(result.weights, whole.weights)
    assert lasting(result.history) == lasting(whole.history)


def test_a_training_that_had_ended_is_not_done_again(job: TrainingJob) -> None:
    whole = run_job(job, LOGGER).training
    assert job.unfinished is not None
    assert job.unfinished.is_file()  # until its result is saved
    told: list[EpochRecord] = []
    result = run_job(job, LOGGER, on_epoch=told.append).training
    assert not told
    assert_same(result.weights, whole.weights)
    assert result.history == whole.history


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, TrainingState]:
    """The file of a state, and the state."""
    path = tmp_path_factory.mktemp("state") / "state.pt"
    file = UnfinishedFile(path, "this", EPOCHS, LOGGER)
    with pytest.raises(StoppedError):
        follow(CASES["averages, warm-up and clipping"], file, 2)
    found = file.read()
    assert found is not None
    return path.read_bytes(), found[0]


def test_a_state_is_read_as_it_was_written(state: tuple[bytes, TrainingState], tmp_path: Path) -> None:
    file = UnfinishedFile(tmp_path / "state.pt", "this", EPOCHS, LOGGER)
    for pretrained in (True, False):
        file.write(state[1], pretrained=pretrained)
        found = file.read()
        assert found is not None
        assert found[1] is pretrained
        assert_same(found[0].average, state[1].average)
        assert found[0].history == state[1].history
    assert {part.name for part in fields(found[0])} == set(TrainingState.__annotations__)


def damaged(whole: bytes) -> Iterator[bytes]:
    """Every kind of half a file, and single bytes gone wrong all over it."""
    yield from (b"", b"\0" * len(whole), whole + b"x", b"no state at all")
    for length in np.linspace(0, len(whole) - 1, 40, dtype=int):
        yield whole[:length]
    for place in np.linspace(0, len(whole) - 1, 40, dtype=int):
        yield whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


def test_a_damaged_state_is_never_read(
    state: tuple[bytes, TrainingState], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "state.pt"
    for content in damaged(state[0]):
        path.write_bytes(content)
        caplog.clear()
        assert UnfinishedFile(path, "this", EPOCHS, LOGGER).read() is None
        assert not path.exists()
        (message,) = caplog.messages
        assert message.startswith(f"{path}: ")
        assert message.endswith("training starts anew")


def test_a_state_of_another_training_is_deleted_with_one_line(
    state: tuple[bytes, TrainingState], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "state.pt"
    path.write_bytes(state[0])
    (tmp_path / ".tmp-1-0.pt").write_bytes(state[0][:99])  # a process was killed while it wrote
    assert UnfinishedFile(path, "another", EPOCHS, LOGGER).read() is None
    assert not list(tmp_path.iterdir())
    assert caplog.messages == [
        f"{path}: of a training with other data, settings, versions or device; training starts anew"
    ]


def changed(job: TrainingJob, part: str, **values: object) -> TrainingJob:
    return job.model_copy(update={part: getattr(job, part).model_copy(update=values)})


@pytest.mark.parametrize(
    "change",
    [
        lambda job: changed(job, "training", learning_rate=0.5),
        lambda job: changed(job, "training", epochs=7),
        lambda job: changed(job, "synthesis", seed=7),
        lambda job: changed(job, "model", width=16),
        lambda job: changed(job, "input", size=64),
        lambda job: job.model_copy(update={"augmentation": AugmentationSettings()}),
        lambda job: job.model_copy(update={"data_set": "one"}),
        lambda job: job.model_copy(update={"runtime": replace(job.runtime, threads=2)}),
        lambda job: job.model_copy(update={"runtime": replace(job.runtime, precision="bfloat16")}),
        lambda job: job.model_copy(update={"runtime": replace(job.runtime, processes=2)}),
        lambda job: job.model_copy(update={"runtime": replace(job.runtime, channels_last=False)}),
    ],
)
def test_whatever_determines_the_weights_makes_another_training(
    change: Callable[[TrainingJob], TrainingJob], tmp_path: Path
) -> None:
    job = draw_job(tmp_path, 3)
    assert change(job).identity != job.identity


def test_the_manifests_content_start_weights_and_versions_make_another_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "start.pt"
    start.write_bytes(b"one")
    job = changed(draw_job(tmp_path, 3), "model", start_from=str(start))
    seen = {job.identity}
    start.write_bytes(b"two")
    seen.add(job.identity)
    write_pairs(job.manifest, read_pairs(job.manifest)[1:])
    seen.add(job.identity)
    monkeypatch.setattr("cd_pipeline.training.job.package_version", lambda name: "9.9")
    seen.add(job.identity)
    assert len(seen) == 4


def test_where_files_lie_and_how_they_are_loaded_does_not(tmp_path: Path) -> None:
    job = draw_job(tmp_path, 3)
    moved = tmp_path / "moved.parquet"
    moved.write_bytes(job.manifest.read_bytes())
    update = {"manifest": moved, "source": tmp_path / "x", "workspace": tmp_path / "y"}
    elsewhere = job.model_copy(update={**update, "runtime": replace(job.runtime, workers=3)})
    assert elsewhere.identity == job.identity
    assert changed(job, "training", tensorboard=True).identity == job.identity


def test_a_full_disk_is_told_and_does_not_stop_a_training(
    state: tuple[bytes, TrainingState], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    UnfinishedFile(tmp_path / "file" / "state.pt", "this", 2, LOGGER).write(state[1], pretrained=False)
    (message,) = caplog.messages
    assert "cannot be written" in message


def killed_again_and_again(file: Path, result: Path, seconds: Iterator[float]) -> tuple[int, list[str]]:
    """Start the training of a file until it ends, killing it after so many seconds; return kills and log."""
    command = [sys.executable, "-m", "cd_pipeline.training.job", str(file), str(result)]
    kills, log = 0, []
    while not result.is_file():
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            log.append(running.stdout.readline())  # from the first line on it trains
            try:
                running.wait(next(seconds))
            except subprocess.TimeoutExpired:
                running.send_signal(signal.SIGKILL)
                kills += 1
            log += running.stdout.readlines()
    return kills, log


@pytest.mark.slow
def test_killed_at_random_times_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    job = draw_job(tmp_path, 13, epochs=40).model_copy(update={"unfinished": tmp_path / "state.pt"})
    started = time.perf_counter()
    whole = run_job(job.model_copy(update={"unfinished": None}), LOGGER).training
    trained = time.perf_counter() - started
    (tmp_path / "job.json").write_text(job.model_dump_json())
    rng = random.Random(4)
    times = chain((rng.uniform(0, trained / 4) for _ in range(4)), repeat(600.0))
    kills, log = killed_again_and_again(tmp_path / "job.json", tmp_path / "result.pt", times)
    resumed = [int(n) for n in re.findall(r"resuming after epoch (\d+) of 40", "".join(log))]
    assert kills >= 3
    assert resumed  # the others were killed in the first epoch
    assert sorted(resumed) == resumed
    found = torch.load(tmp_path / "result.pt", weights_only=True)
    assert_same(found["weights"], whole.weights)
    assert [row["train_loss"] for row in found["training"]["history"]] == [
        record.train_loss for record in whole.history
    ]


@pytest.mark.slow
def test_two_processes_resume_to_the_same_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    job = draw_job(tmp_path, 13)
    job = changed(job, "model", norm="batch")
    job = job.model_copy(update={"runtime": replace(job.runtime, processes=2, threads=2)})
    whole = run_job(job, LOGGER).training
    kept = job.model_copy(update={"unfinished": tmp_path / "state.pt"})
    stop(kept, 2)
    again: list[EpochRecord] = []
    result = run_job(kept, LOGGER, on_resume=again.extend).training
    assert any(re.fullmatch(r"resuming after epoch [23] of 3", message) for message in caplog.messages)
    assert [record.epoch for record in again][:2] == [1, 2]
    assert_same(result.weights, whole.weights)
    assert lasting(result.history) == lasting(whole.history)
