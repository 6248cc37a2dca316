"""Training as a job, in one process and under torchrun."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from cd_pipeline.data.datasets import EpochSampler
from cd_pipeline.training.job import TrainingJob, run_job
from cd_pipeline.training.progress import EpochRecord
from cd_pipeline_tests.training.tiny_job import draw_job

LOGGER = logging.getLogger(__name__)
TRAIN_PAIRS = 13
"""With batches of 4 the last one holds a single pair: one of two processes gets nothing of it."""


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return draw_job(tmp_path, TRAIN_PAIRS)


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
