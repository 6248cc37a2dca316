"""What the published siamese U-Net can learn of real tiles."""

from pathlib import Path

import pytest
import torch

from cd_pipeline.data.datasets import SampleDataset
from cd_pipeline.data.samples import Roots
from cd_pipeline.data.settings import InputSettings
from cd_pipeline.data.two_date import scan_two_date
from cd_pipeline.data.two_date_pairs import two_date_rows
from cd_pipeline.models.runtime import resolve_runtime
from cd_pipeline.models.siamese_unet import SiameseUNet
from cd_pipeline.training.loop import train
from cd_pipeline.training.progress import EpochRecord
from cd_pipeline.training.settings import TrainingSettings


class Fitted(Exception):  # noqa: N818 - what is hoped for
    """It knows the tiles; further epochs would only take time."""


def until_fitted(record: EpochRecord) -> None:
    if record.val_f1 >= 0.95:  # pooled over the pixels of the tiles it was trained on
        raise Fitted


@pytest.mark.slow
def test_it_fits_six_real_tiles(real_data: Path) -> None:
    root = real_data / "levir"
    rows = two_date_rows(root, scan_two_date(root).pairs, InputSettings(fit="tile"))
    tiles = SampleDataset([row for row in rows if row.split == "train"], Roots(root, root), 256)
    assert len(tiles) == 6
    settings = TrainingSettings.model_validate(
        {"preset": "siamese", "epochs": 60, "batch_size": 2, "learning_rate": 1e-3, "best_by": "f1"}
    )
    torch.manual_seed(0)
    with pytest.raises(Fitted):
        train(SiameseUNet(), tiles, tiles, settings, resolve_runtime(device="cpu"), on_epoch=until_fitted)
