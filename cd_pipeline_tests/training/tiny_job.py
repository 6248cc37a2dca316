"""A training job on a few drawn pairs."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from cd_pipeline.data.images import write_png
from cd_pipeline.data.manifest import write_pairs
from cd_pipeline.data.settings import InputSettings
from cd_pipeline.data.task import Task
from cd_pipeline.models.runtime import Runtime
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.synthesis.settings import PublishedSynthesis
from cd_pipeline.training.job import TrainingJob
from cd_pipeline.training.settings import TrainingSettings
from cd_pipeline_tests.tiny_pairs import draw_pair, write_pair


def draw_job(folder: Path, train_pairs: int, **training: object) -> TrainingJob:
    """A network with group norm, whose result does not depend on how a batch is divided."""
    rows = [
        write_pair(
            folder, f"p{i}", draw_pair(i, 32, changed=i % 4 != 3), "train" if i < train_pairs else "val"
        )
        for i in range(train_pairs + 4)
    ]
    part = np.zeros((32, 32), np.uint8)
    part[:4] = 255  # of every third pair only these rows count
    write_png(folder / "valid" / "part.png", part)
    rows = [replace(row, valid="source:valid/part.png") if i % 3 == 0 else row for i, row in enumerate(rows)]
    write_pairs(folder / "pairs.parquet", rows)
    settings = {
        "preset": "siamese",
        "epochs": 3,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "max_pos_weight": 10,
    }
    return TrainingJob(
        manifest=folder / "pairs.parquet",
        source=folder,
        workspace=folder,
        input=InputSettings(size=32),
        task=Task(),
        synthesis=PublishedSynthesis(),
        augmentation=None,
        model=ModelSettings(name="siamese_unet", width=8, norm="group"),
        training=TrainingSettings.model_validate({**settings, **training}),
        runtime=Runtime(threads=1),
    )
