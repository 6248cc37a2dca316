"""What lies on disk after a fault: whole, and equal to what an undisturbed run leaves."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image

from cd_pipeline.assets.memo import RECEIPT, read_receipt
from cd_pipeline.export.coreml import load_spec
from cd_pipeline.training.checkpoint import load_checkpoint, weights_digest

MEASURED = ["train_seconds", "val_seconds", "images_per_second", "memory_gb", "gpu_memory_gb"]
"""Of an epoch: they differ from run to run."""
NO_RESULT = {".lock", "unfinished.pt", ".cache"}
"""The state of a training that was begun by force and killed stays for the next one, as do decoded photos."""


def files_below(folder: Path) -> list[Path]:
    """All files, hidden ones too, except those that are no result."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and NO_RESULT.isdisjoint(path.relative_to(folder).parts)
    )


def contents(folder: Path) -> dict[str, Any]:
    """What each file holds, without what is measured of time and memory."""
    return {path.relative_to(folder).as_posix(): _content(path) for path in files_below(folder)}


def require_whole(folder: Path) -> None:
    """Read every file that has its final name with the reader of its kind; raises where one is not whole."""
    for path in files_below(folder):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            _read(path)


def _read(path: Path) -> object:
    match path.suffix:
        case ".parquet":
            return pd.read_parquet(path)
        case ".png" | ".jpg":
            return Image.open(path).load()
        case ".json":
            return json.loads(path.read_text())
        case ".jsonl":
            return [json.loads(line) for line in path.read_text().splitlines()]
        case ".html":
            assert path.read_text().rstrip().endswith("</html>"), path
        case ".mlmodel":
            return load_spec(path.parents[2])
    if path.name == "model.pt":
        return load_checkpoint(path).model()
    if path.name.endswith("_ts.pt"):
        return torch.jit.load(str(path))
    return path.read_bytes()


def _content(path: Path) -> Any:  # noqa: ANN401 - of many kinds
    if path.name == "model.pt":
        saved = load_checkpoint(path)
        history = pd.DataFrame(saved.history).drop(columns=MEASURED)
        rest = (
            saved.recipe,
            saved.versions,
            saved.pretrained,
            saved.data_version,
            saved.best_epoch,
            saved.task,
        )
        return weights_digest(saved.weights), history.to_json(), rest
    if path.name == "history.parquet":
        return pd.read_parquet(path).drop(columns=MEASURED).to_json()
    if path.name == RECEIPT:
        receipt = read_receipt(path.parent)
        assert receipt is not None, path
        measured = {"model.pt", "history.parquet"}
        sums = {name: record.sha256 for name, record in receipt.files.items() if name not in measured}
        return receipt.identity, receipt.data_version, receipt.paths, sorted(receipt.files), sums
    return hashlib.file_digest(io.BytesIO(path.read_bytes()), "sha256").hexdigest()
