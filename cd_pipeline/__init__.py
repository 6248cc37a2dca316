"""Change-detection pipeline: from labelled photos to a Core ML package, as Dagster assets."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cd_pipeline.pipeline import Pipeline
    from cd_pipeline.prediction.detector import ChangeDetector, Segmenter

__all__ = ["ChangeDetector", "Pipeline", "Segmenter"]

# By default an OpenMP thread spins for milliseconds at every barrier: as fast on an idle machine, and many
# times slower where another process wants a core. Read when torch loads its library, so set before that.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# What CUDA needs to give the same matrix products on every run; read when its library starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# The decoder's own limit, for headers that only it can read: MAX_PIXELS of cd_pipeline.data.images.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 29))


def __getattr__(name: str) -> object:
    # Recipes name the component `cd_pipeline.Pipeline`; the library below it must not import dagster, nor the
    # definitions torch.
    if name == "Pipeline":
        from cd_pipeline.pipeline import Pipeline

        return Pipeline
    if name in ("ChangeDetector", "Segmenter"):
        from cd_pipeline.prediction import detector

        return getattr(detector, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
