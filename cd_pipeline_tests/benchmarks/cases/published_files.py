"""Pairs on disk as the published system wrote them."""

from pathlib import Path

import cv2

from cd_pipeline.data.images import Image


def write_published_pair(folder: Path, name: str, before: Image, after: Image, mask: Image) -> None:
    """Write a pair as the published system did, with OpenCV's defaults."""
    for kind, image in (("before", before), ("after", after)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / kind / f"{name}.jpg"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    (folder / "mask").mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "mask" / f"{name}.png"), mask)
