"""The benchmark of quality runs on any checkpoint and any folder of pairs, and prints every row."""

import json
from pathlib import Path

import cv2
import pytest
import torch

from cd_pipeline.models.build import build_model
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.recipe import Recipe
from cd_pipeline.training.checkpoint import Checkpoint, save_checkpoint
from cd_pipeline_tests.benchmarks import quality

SETS = ("published test", "realistic test", "office", "office + nuisance")
FIGURES = {
    "precision",
    "recall",
    "f1",
    "iou",
    "best_f1",
    "gap",
    "mean_image_f1",
    "oracle_f1",
    "pairs",
    "version",
}


@pytest.mark.slow
def test_it_prints_every_row_for_a_checkpoint_and_for_a_published_state_dict(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    settings = ModelSettings(name="tiny_siamese_unet", pretrained=False)
    recipe = Recipe(name="rooms", model=settings).plain()
    saved = Checkpoint(dict(build_model(settings).state_dict()), recipe, [], {}, False, "", 1)
    save_checkpoint(tmp_path / "model.pt", saved)
    torch.save(build_model(ModelSettings()).state_dict(), tmp_path / "published.pt")
    arguments = [str(tmp_path / "model.pt"), str(tmp_path / "published.pt")]
    arguments += ["--rooms", str(real_data / "rooms"), "--pairs", str(real_data / "real_pairs" / "office")]
    arguments += ["--count", "40", "--json", str(tmp_path / "report.json")]
    monkeypatch.setattr("sys.argv", ["quality", *arguments, "--gallery", str(tmp_path / "gallery.jpg")])
    quality.main()
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["checkpoints"]) == 2
    for rows in report["checkpoints"].values():
        for name in SETS:
            assert set(rows[name]) == FIGURES
            assert rows[name]["gap"] == pytest.approx(rows[name]["best_f1"] - rows[name]["f1"])
        assert rows["no change + nuisance"]["pairs"] == 40
        assert [rows[name]["pairs"] for name in SETS] == [35, 40, 21, 21]
    first, second = (rows["realistic test"]["oracle_f1"] for rows in report["checkpoints"].values())
    assert first == second  # the set does not depend on the network
    for name in (*SETS, "no change + nuisance"):
        assert len({rows[name]["version"] for rows in report["checkpoints"].values()}) == 1
    printed = capsys.readouterr().out
    assert set(report["summary"]["office f1"]) and all(name in printed for name in SETS)
    sheet = cv2.imread(str(tmp_path / "gallery.jpg"))
    assert sheet is not None and sheet.shape == (22 + 3 * 4 * 256, 5 * 256, 3)
