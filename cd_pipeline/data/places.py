"""Where the pipeline keeps its files, and the command that makes them; light, for the command line."""

import os
from pathlib import Path

MATERIALIZE = 'dagster asset materialize -m cd_pipeline.definitions --select "*{key}"'
"""Makes an asset and all before it."""


def data_root() -> Path:
    """Return the folder of all recipes: CD_PIPELINE_DATA, or else data."""
    return Path(os.environ.get("CD_PIPELINE_DATA") or "data")
