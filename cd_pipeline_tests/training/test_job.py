"""Training as a job, in one process and under torchrun."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cd_pipeline.data.datasets import EpochSampler
from cd_pipeline.data.images import write_png
from cd_pipeline.data.manifest import write_pairs
from cd_pipeline.data.settings import InputSettings
from cd_pipeline.data.task import Task
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.synthesis.settings import PublishedSynthesis
from cd_pipeline.training.job import TrainingJob, run_job
from cd_pipeline.training.loop import EpochRecord
from cd_pipeline.training.settings import TrainingSettings
from cd_pipeline_tests.tiny_pairs import draw_pair, write_pair

LOGGER = logging.getLogger(__name__)
TRAIN_PAIRS = 13
"""With batches of 4 the last one holds a single pair: one of two processes gets nothing of it."""


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    """A network with group norm, whose result does not depend on how a batch is divided."""
    rows = [
        write_pair(
            tmp_path, f"p{i}", draw_pair(i, 32, changed=i % 4 != 3), "train" if i < TRAIN_PAIRS else "val"
        )
        for i in range(TRAIN_PAIRS + 4)
    ]
    part = np.zeros((32, 32), np.uint8)
    part[:4] = 255  # of every third pair only these rows count
    write_png(tmp_path / "valid" / "part.png", part)
    rows = [replace(row, valid="source:valid/part.png") if i % 3 == 0 else row for i, row in enumerate(rows)]
    write_pairs(tmp_path / "pairs.parquet", rows)
    return TrainingJob(
        manifest=tmp_path / "pairs.parquet",
        source=tmp_path,
        workspace=tmp_path,
        input=InputSettings(size=32),
        task=Task(),
        synthesis=PublishedSynthesis(),
        augmentation=None,
        model=ModelSettings(name="siamese_unet", width=8, norm="group"),
        training=TrainingSettings.model_validate(
            {"preset": "siamese", "epochs": 3, "batch_size": 4, "learning_rate": 1e-3, "max_pos_weight": 10}
        ),
        runtime=Runtime(threads=1),
    )


def test_a_job_survives_being_written_to_a_file(job: TrainingJob) -> None:
    assert TrainingJob.model_validate_json(job.model_dump_json()) == job


@pytest.mark.slow
def test_two_processes_under_torchrun_follow_the_loss_curve_of_one(job: TrainingJob) -> None:
    told: list[EpochRecord] = []
    one = run_job(job, LOGGER).training
    two = run_job(
        job.model_copy(update={"runtime": replace(job.runtime, processes=2, threads=2)}),
        LOGGER,
        on_epoch=told.append,
    ).training
    assert told == two.history
    assert two.pos_weight == pytest.approx(one.pos_weight)
    for alone, together in zip(one.history, two.history, strict=True):
        assert together.train_loss == pytest.approx(alone.train_loss, rel=1e-4)
        assert together.val_loss == pytest.approx(alone.val_loss, rel=1e-3)
    assert two.history[-1].train_loss < two.history[0].train_loss - 0.1  # it does learn
    assert set(two.weights) == set(one.weights)


@pytest.mark.slow
def test_an_error_in_one_of_several_processes_is_told_in_one_line(job: TrainingJob, tmp_path: Path) -> None:
    (tmp_path / "pairs.parquet").write_bytes(b"no table")
    several = job.model_copy(update={"runtime": replace(job.runtime, processes=2)})
    with pytest.raises(ValueError, match=r"pairs\.parquet: not a readable Parquet file"):
        run_job(several, LOGGER)


@pytest.mark.slow
def test_a_picture_that_only_the_second_process_reads_is_named_too(job: TrainingJob, tmp_path: Path) -> None:
    order = list(EpochSampler(TRAIN_PAIRS, shuffle_seed=job.training.seed))
    _, second = order[1]  # dealt out like cards
    (tmp_path / "after" / f"p{second}.png").write_bytes(b"no picture")
    several = job.model_copy(
        update={
            "runtime": replace(job.runtime, processes=2),
            "training": job.training.model_copy(update={"max_pos_weight": 1.0, "epochs": 1}),
        }
    )
    with pytest.raises(ValueError, match=rf"p{second}\.png: cannot be decoded"):
        run_job(several, LOGGER)
