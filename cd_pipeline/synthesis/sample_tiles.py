"""The sample two-date data set: drawn aerial tiles in the LEVIR-CD layout, the same bytes every time.

For use where no pairs are given. `{train,val,test}/{A,B,label}/<name>.png`: A before, B after, at half a
metre a pixel; the label is 255 on the roofs of buildings that are new or gone. Each tile has its own
generator, seeded by seed, split and number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cd_pipeline.data.files import keep_only, seed_of, write_bytes
from cd_pipeline.data.images import encode_png
from cd_pipeline.data.two_date import PARTS
from cd_pipeline.synthesis.room_textures import UInt8
from cd_pipeline.synthesis.sample_pool import draw_all, require_counts, require_workers
from cd_pipeline.synthesis.tile_canvas import lay_ground, paint_tile, roof_mask
from cd_pipeline.synthesis.tile_look import draw_look
from cd_pipeline.synthesis.tile_scene import MIN_TILE, TileScene, compose_scene, require_side

__all__ = ["MIN_TILE", "SAMPLE_COUNTS", "SampleTiles", "draw_sample_tiles", "draw_tile"]

SAMPLE_COUNTS: Mapping[str, int] = {"train": 20, "val": 6, "test": 8}
"""Tiles of each split."""


@dataclass(frozen=True, slots=True)
class SampleTiles:
    """What was drawn: the number of tiles, and of the buildings in them that are new or gone."""

    pairs: int
    buildings: int


def draw_tile(seed: int, side: int = 512, *, nuisance: bool = True) -> tuple[UInt8, UInt8, UInt8]:
    """Draw one tile at two dates.

    Args:
        seed: 0 or more; other seeds give other tiles.
        side: of the tile in px, at least 64; buildings are as large in any tile, larger tiles hold more.
        nuisance: whether season, sun, camera, cars and trees differ between the dates, and the second picture
            is off by up to 1 px. Without it only buildings and their shadows, up to 17 px long, differ.

    Returns:
        before and after, (side, side, 3) RGB uint8, and the label, (side, side) uint8, 255 on the roofs of
        buildings that are there at one date only, else 0. About one tile in seven has an empty label.

    Raises:
        ValueError: the side is too short or the seed negative.
    """
    return _draw(seed, side, nuisance)[1]


def _draw(seed: int, side: int, nuisance: bool = True) -> tuple[TileScene, tuple[UInt8, UInt8, UInt8]]:
    scene = compose_scene(np.random.default_rng([seed, 0]), side)
    first = draw_look(np.random.default_rng([seed, 1]), scene)
    second = draw_look(np.random.default_rng([seed, 2]), scene, shifted=True) if nuisance else first
    label = roof_mask(scene, [building for building in scene.buildings if building.changed])
    ground = lay_ground(scene)
    before = paint_tile(scene, ground, first, after=False)
    return scene, (before, paint_tile(scene, ground, second, after=True), label)


def draw_sample_tiles(
    folder: Path,
    *,
    counts: Mapping[str, int] = SAMPLE_COUNTS,
    side: int = 512,
    seed: int = 42,
    workers: int = 1,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> SampleTiles:
    """Draw the sample data set to `folder/{train,val,test}/{A,B,label}/<name>.png`.

    Each file appears whole under its name. A run over an unfinished folder completes it: files of the same
    name are replaced, and other files beside them deleted.

    Args:
        folder: to draw into; made if missing.
        counts: tiles of each split.
        side: of the tiles in px, at least 64.
        seed: other seeds give other tiles. A tile depends on seed, side, split and number alone.
        workers: processes to draw with; the files do not depend on it.
        progress: called in this process with tiles done and tiles in all, after each tile.

    Returns:
        What was drawn.

    Raises:
        OSError: a file cannot be written.
        ValueError: `workers`, `side` or a count is too small, or there is no such split.
    """
    require_workers(workers)
    require_side(side)
    require_counts(counts)
    tiles = [(split, number) for split, count in counts.items() for number in range(count)]
    for split, count in counts.items():
        for part in PARTS:
            keep_only(folder / split / part, {_name(split, number) for number in range(count)})
    buildings = draw_all(partial(_draw_files, folder, side, seed), tiles, workers, progress)
    return SampleTiles(len(tiles), sum(buildings))


def _name(split: str, number: int) -> str:
    return f"{split}_{number + 1:03d}.png"


def _draw_files(folder: Path, side: int, seed: int, tile: tuple[str, int]) -> int:
    """Draw the three files of a tile; return how many buildings its label shows."""
    split, number = tile
    scene, pictures = _draw(seed_of("tile", seed, split, number), side)
    for part, picture in zip(PARTS, pictures, strict=True):
        write_bytes(folder / split / part / _name(split, number), encode_png(picture))
    return sum(building.changed for building in scene.buildings)
