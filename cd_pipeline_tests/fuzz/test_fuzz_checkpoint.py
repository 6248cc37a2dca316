"""Damaged checkpoints: read, or refused in a line; no code in them is run."""

import io
from pathlib import Path

import pytest
import torch

from cd_pipeline.training.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from cd_pipeline_tests.fuzz.mutations import damaged, outcomes

pytestmark = [pytest.mark.usefixtures("one_torch_thread"), pytest.mark.filterwarnings("ignore")]


def whole_file(folder: Path) -> bytes:
    weights = {"a.weight": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}
    save_checkpoint(
        folder / "whole.pt", Checkpoint(weights, {"model": {}}, [{"epoch": 1}], {}, False, "a", 1)
    )
    return (folder / "whole.pt").read_bytes()


def old_file() -> bytes:
    """In the form before zip files."""
    stream = io.BytesIO()
    torch.save({"format": 2}, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


@pytest.mark.parametrize("count", [300, pytest.param(3_000, marks=pytest.mark.slow)])
def test_a_damaged_checkpoint_is_refused_with_the_remedy_or_read(tmp_path: Path, count: int) -> None:
    path = tmp_path / "checkpoint" / "model.pt"
    path.parent.mkdir()

    def read(content: bytes) -> None:
        path.write_bytes(content)
        try:
            found = load_checkpoint(path)
        except CheckpointError as error:
            assert "model.pt: not a " in str(error) and "materialize checkpoint again" in str(error)
            raise
        assert len(found.version) == 64

    found = outcomes(read, damaged([whole_file(tmp_path), old_file()], count, seed=count), CheckpointError)
    assert found["refused"] > count // 4
