"""The photos that pairs are made from, decoded once and kept while memory lasts."""

from collections.abc import Callable

import cv2
import numpy as np

from cd_pipeline.data.images import Image, read_photo
from cd_pipeline.data.samples import CACHE_BYTES, Roots
from cd_pipeline.synthesis.geometry import Rect
from cd_pipeline.synthesis.realistic_plan import Patch
from cd_pipeline.synthesis.regions import object_outline

WORKING_SIDE = 2
"""Photos are first reduced to this many times the rendered side: a view of half a photo loses nothing."""


class PhotoStore:
    """Reads photos by reference, whole or reduced, and finds the outlines of objects in them."""

    def __init__(self, roots: Roots, cache_bytes: int = CACHE_BYTES) -> None:
        self._roots = roots
        self._free_bytes = cache_bytes
        self._kept: dict[tuple[object, ...], Image] = {}

    def photo(self, reference: str, sha256: str) -> Image:
        """Return a photo at its own size: HWC uint8 RGB.

        Raises:
            PhotoError: it is no longer the photo with that hash.
        """
        return self._keep((sha256,), lambda: read_photo(self._roots.resolve(reference), sha256))

    def reduced(self, reference: str, sha256: str, side: int) -> Image:
        """Return a photo whose shorter side is at most `side` px."""

        def reduce() -> Image:
            photo = read_photo(self._roots.resolve(reference), sha256)
            scale = side / min(photo.shape[:2])
            if scale >= 1:
                return photo
            small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            return small.astype(np.uint8, copy=False)

        return self._keep((sha256, side), reduce)

    def outline(self, patch: Patch, side: int) -> Image:
        """Return the outline of the object in a patch of a reduced photo: HW uint8, 255 on the object."""

        def find() -> Image:
            photo = self.reduced(patch.photo, patch.sha256, side)
            return object_outline(photo, patch_rect(patch, photo))

        return self._keep((patch, side), find)

    def _keep(self, key: tuple[object, ...], make: Callable[[], Image]) -> Image:
        found = self._kept.get(key)
        if found is None:
            found = make()
            if found.nbytes <= self._free_bytes:
                self._kept[key] = found
                self._free_bytes -= found.nbytes
        return found


def patch_rect(patch: Patch, photo: Image) -> Rect:
    """Return the pixels of a patch in a photo of any size, at least 2 px a side."""
    height, width = photo.shape[:2]
    x, y = min(int(patch.left * width), width - 2), min(int(patch.top * height), height - 2)
    return Rect(x, y, max(2, round(patch.width * width)), max(2, round(patch.height * height))).clipped(
        width, height
    )
