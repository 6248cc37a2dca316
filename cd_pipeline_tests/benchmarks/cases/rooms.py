"""Photos of rooms, split, planned and rendered: what several cases read."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from cd_pipeline.data.machine import usable_cores
from cd_pipeline.data.manifest import Pair, read_pairs, write_pairs
from cd_pipeline.data.photos import scan_photos
from cd_pipeline.data.samples import Roots
from cd_pipeline.data.settings import SplitSettings
from cd_pipeline.data.split import assign_splits
from cd_pipeline.synthesis.pairs import plan_pairs
from cd_pipeline.synthesis.rendered_pairs import render_pairs
from cd_pipeline.synthesis.sample_rooms import draw_sample_rooms
from cd_pipeline.synthesis.settings import PublishedSynthesis, RealisticSynthesis, SynthesisSettings
from cd_pipeline_tests.conftest import REAL_DATA

SIZE = 256
PRESETS: dict[str, SynthesisSettings] = {
    "published": PublishedSynthesis(),
    "realistic": RealisticSynthesis(preset="realistic", epoch_pairs=1),
}
"""The second with a training pair a photo, as many as the first."""


def prepare_plans(folder: Path) -> None:
    """Write the manifests of both presets; the photos are real ones where there are some, or drawn."""
    done = folder / "source.json"
    if done.exists():
        return
    if REAL_DATA in os.environ:
        source = Path(os.environ[REAL_DATA]) / "rooms"
    else:
        source = folder / "photos"
        draw_sample_rooms(source)
    photos = assign_splits(scan_photos(source, threads=usable_cores()).photos, SplitSettings())
    for preset, settings in PRESETS.items():
        write_pairs(_manifest(folder, preset), plan_pairs(photos, settings, SIZE))
    done.write_text(json.dumps(str(source.absolute())))


def prepare_pictures(folder: Path, split: str) -> None:
    """Render the published pairs of a split, as the asset `change_masks` does."""
    prepare_plans(folder)
    done = folder / f"rendered_{split}"
    if not done.exists():
        render_pairs(
            planned(folder, "published", split), rendered_roots(folder, split), threads=usable_cores()
        )
        done.touch()


def planned(folder: Path, preset: str, split: str | None = None) -> list[Pair]:
    """Return the rows of a preset's manifest."""
    return read_pairs(_manifest(folder, preset), split)


def first_pairs(folder: Path, preset: str, split: str, count: int) -> Sequence[Pair]:
    """Return the first rows of a split, at most `count`."""
    return planned(folder, preset, split)[:count]


def roots(folder: Path, workspace: str) -> Roots:
    """Return where photos are read, and a folder of its own to write into."""
    return Roots(Path(json.loads((folder / "source.json").read_text())), folder / workspace)


def rendered_roots(folder: Path, split: str) -> Roots:
    """Return where `prepare_pictures` has written."""
    return roots(folder, f"pictures_{split}")


def _manifest(folder: Path, preset: str) -> Path:
    return folder / preset / "pairs.parquet"
