"""A small set of labelled photos for realistic pairs."""

from pathlib import Path

import pytest

from cd_pipeline.data.photos import Photo, scan_photos
from cd_pipeline.data.samples import Roots
from cd_pipeline.data.settings import SplitSettings
from cd_pipeline.data.split import assign_splits
from cd_pipeline.synthesis.realistic_plan import PhotoSource
from cd_pipeline_tests.drawn import draw_photo_tree


@pytest.fixture(scope="session")
def room_roots(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """Where ten photos of 240x160 px lie: they are reduced for pairs of 64 px."""
    folder = tmp_path_factory.mktemp("rooms")
    draw_photo_tree(folder / "photos", {"trainval": {"A": 7}, "test": {"A": 3}}, seed=3, size=(240, 160))
    return Roots(folder / "photos", folder / "data")


@pytest.fixture(scope="session")
def room_photos(room_roots: Roots) -> list[Photo]:
    return assign_splits(scan_photos(room_roots.source).photos, SplitSettings())


@pytest.fixture(scope="session")
def pool(room_photos: list[Photo]) -> list[PhotoSource]:
    """The photos, as plans draw from them."""
    return [
        PhotoSource(f"source:{photo.path}", photo.sha256, photo.width, photo.height, photo.boxes)
        for photo in room_photos
    ]


@pytest.fixture
def empty_folder(tmp_path: Path) -> Roots:
    """Roots below which there is nothing."""
    return Roots(tmp_path / "nothing", tmp_path / "nothing")
