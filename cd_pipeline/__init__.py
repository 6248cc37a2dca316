"""Change-detection pipeline: from labelled photos to a Core ML package, as Dagster assets."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cd_pipeline.pipeline import Pipeline

__all__ = ["Pipeline"]

# By default an OpenMP thread spins for milliseconds at every barrier: as fast on an idle machine, and many
# times slower where another process wants a core. Read when torch loads its library, so set before that.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# What CUDA needs to give the same matrix products on every run; read when its library starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def __getattr__(name: str) -> object:
    # Recipes name the component `cd_pipeline.Pipeline`; the library below it must not import dagster.
    if name == "Pipeline":
        from cd_pipeline.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
