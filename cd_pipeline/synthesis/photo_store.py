"""The photos that pairs are made from, decoded once."""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from cd_pipeline.data.images import Image, decode_content, photo_content
from cd_pipeline.data.photo_cache import FOLDER, PhotoCache
from cd_pipeline.data.samples import CACHE_BYTES, Roots
from cd_pipeline.synthesis.geometry import Rect
from cd_pipeline.synthesis.realistic_plan import Patch
from cd_pipeline.synthesis.regions import object_outline

WORKING_SIDE = 2
"""Photos are first reduced to this many times the rendered side: a view of half a photo loses nothing."""


class PhotoStore:
    """Reads photos by reference, whole or reduced, and finds the outlines of objects in them.

    What it returns must not be written to. It is decoded once for all processes and runs, as far as `PhotoCache` has
    room, and kept at hand up to `cache_bytes`. The file of a photo is hashed when a store first reads it, and again
    only where it is not kept.

    Args:
        roots: where references lead; the cache is below the workspace.
        cache_bytes: of arrays that are kept; with 0 nothing is kept, on disk neither.
    """

    def __init__(self, roots: Roots, cache_bytes: int = CACHE_BYTES) -> None:
        self._roots = roots
        self._free_bytes = cache_bytes
        self._kept: dict[tuple[object, ...], Image] = {}
        self._on_disk = PhotoCache(roots.workspace / FOLDER) if cache_bytes else None

    def photo(self, reference: str, sha256: str) -> Image:
        """Return a photo at its own size: HWC uint8 RGB.

        Raises:
            PhotoError: it is no longer the photo with that hash.
        """
        return self._keep((sha256,), partial(self._read, reference, sha256, None))

    def reduced(self, reference: str, sha256: str, side: int) -> Image:
        """Return a photo whose shorter side is at most `side` px; errors are those of `photo`."""
        return self._keep((sha256, side), partial(self._read, reference, sha256, side))

    def outline(self, patch: Patch, side: int) -> Image:
        """Return the outline of the object in a patch of a reduced photo: HW uint8, 255 on the object."""

        def find() -> Image:
            photo = self.reduced(patch.photo, patch.sha256, side)  # refused where it has changed
            area = (patch.left, patch.top, patch.width, patch.height)
            name = f"outline of {area} in {patch.sha256} {side}"
            return self._shared(name, lambda: object_outline(photo, patch_rect(patch, photo)))

        return self._keep((patch, side), find)

    def _read(self, reference: str, sha256: str, side: int | None) -> Image:
        path = self._roots.resolve(reference)
        content = photo_content(path, sha256)

        def decode() -> Image:
            return _reduced(decode_content(path, content), side)

        return self._shared(f"{sha256} {side}", decode)

    def _shared(self, name: str, make: Callable[[], Image]) -> Image:
        return make() if self._on_disk is None else self._on_disk.array(name, make)

    def _keep(self, key: tuple[object, ...], make: Callable[[], Image]) -> Image:
        found = self._kept.get(key)
        if found is None:
            found = make()
            if found.nbytes <= self._free_bytes:
                self._kept[key] = found
                self._free_bytes -= found.nbytes
        return found


def _reduced(photo: Image, side: int | None) -> Image:
    scale = 1.0 if side is None else side / min(photo.shape[:2])
    if scale >= 1:
        return photo
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8, copy=False)


def patch_rect(patch: Patch, photo: Image) -> Rect:
    """Return the pixels of a patch in a photo of any size, at least 2 px a side."""
    height, width = photo.shape[:2]
    x, y = min(int(patch.left * width), width - 2), min(int(patch.top * height), height - 2)
    return Rect(x, y, max(2, round(patch.width * width)), max(2, round(patch.height * height))).clipped(
        width, height
    )
