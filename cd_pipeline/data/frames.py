"""Tables of figures (histories, sweeps, scores) as Parquet."""

from pathlib import Path

import pandas as pd

from cd_pipeline.data.files import atomic_path
from cd_pipeline.data.manifest import DAMAGED, reason_of


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as Parquet, whole or not at all."""
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)


def read_frame(path: Path) -> pd.DataFrame:
    """Read a table that `write_frame` wrote.

    Raises:
        ValueError: not a readable Parquet file; the message names the remedy.
    """
    try:
        return pd.read_parquet(path)
    except DAMAGED as error:
        reason, asset = reason_of(error), path.parent.name
        raise ValueError(
            f"{path}: not a readable Parquet file ({reason}); delete it and materialize {asset} again"
        ) from None
