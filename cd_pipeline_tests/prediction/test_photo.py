"""Photos as users have them, read as a person sees them; Pillow is the reference."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from cd_pipeline.prediction.photo import as_image

ORIENTATION = 0x112


@pytest.fixture
def scene() -> Picture.Image:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20] = (20, 220, 90)
    pixels[20:, :30] = (200, 60, 20)
    return Picture.fromarray(pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_picture_of_any_mode_looks_as_pillow_shows_it(
    tmp_path: Path, scene: Picture.Image, mode: str, suffix: str
) -> None:
    path = tmp_path / f"scene{suffix}"
    try:
        scene.convert(mode).save(path, **({"quality": 95} if suffix == ".jpg" else {}))
    except OSError:
        pytest.skip(f"{suffix} has no {mode}")
    with Picture.open(path) as stored:
        expected = np.asarray(stored.convert("RGB"), int)
    found = as_image(path, "photo")
    assert found.shape == (40, 60, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= 4  # two decoders of JPEG


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    Picture.fromarray(values).save(tmp_path / "deep.png")
    found = as_image(tmp_path / "deep.png", "photo")
    assert np.abs(found[..., 0].astype(int) - (values // 257).astype(int)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path, scene: Picture.Image, orientation: int) -> None:
    from PIL import ImageOps

    exif = scene.getexif()
    exif[ORIENTATION] = orientation
    content = io.BytesIO()
    scene.save(content, "JPEG", exif=exif, quality=95, subsampling=0)
    (tmp_path / "turned.jpg").write_bytes(content.getvalue())
    with Picture.open(tmp_path / "turned.jpg") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored), int)
    found = as_image(str(tmp_path / "turned.jpg"), "photo").astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 4


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_an_array_of_another_form_is_refused_by_name(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"after: found an array .* expected HxWx3 uint8 RGB"):
        as_image(array, "after")  # type: ignore[arg-type]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg: no such file"):
        as_image(tmp_path / "nowhere.jpg", "before")
