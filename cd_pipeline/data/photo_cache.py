"""Decoded pictures on disk, which all processes of a machine share.

Decoding a photo again in every loader process and every run takes time, and keeping it in the memory of each takes
memory. Here it is decoded once; after that its pixels are pages of a file, mapped into whoever reads them and held
by the system once for all.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from isal import isal_zlib
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0

from cd_pipeline.data.files import TEMPORARY, atomic_path, digest
from cd_pipeline.data.images import Image

FOLDER = ".cache/photos"
"""Below a recipe's folder; hidden, so that it is nobody's result."""
CAPACITY = 4 << 30
"""Bytes on disk: 4,000 photos at twice the published input size. On a small disk it is half of what is free."""
SHARE_A_SCAN = 32
"""A process looks at the whole folder after it has written this part of its capacity."""
SMALLEST = 1 << 16
"""A smaller file counts as so many bytes, which bounds the number of files too."""
ABANDONED_SECONDS = 3600
"""What was being written longer ago than this belongs to a process that was killed."""
CHECKSUM_BYTES = 4
VERSION = 1
"""Raised when the same photo gives other pixels, or files have another form."""

_writing = threading.Lock()


class PhotoCache:
    """Arrays by name, HWC or HW uint8; what is not there is made, and kept for the next time.

    A file is an .npy followed by the CRC-32 of all before it. It is written under another name and renamed when whole,
    and checked each time it is opened: one that is cut short, of another form or with any byte changed is made anew.
    The least recently opened files are deleted where there are too many bytes; several processes that write at once
    can exceed the capacity by a 32nd each. On a disk that is full or cannot be written to nothing is kept, after a
    warning.

    Args:
        folder: of this cache alone, on a local disk; it is made when there is something to keep.
        capacity: bytes on disk.
    """

    def __init__(self, folder: Path, capacity: int = CAPACITY) -> None:
        self.folder = folder
        self._capacity = capacity
        self._room: float = 0  # bytes that may be written before the folder is looked at again
        self._is_writable = True

    def array(self, name: str, make: Callable[[], Image]) -> Image:
        """Return an array, read-only; what `make` raises is raised.

        Args:
            name: tells the content apart from all others: the hash of the file that it is made of, and how. OpenCV's
                version need not be part of it.
            make: makes the array.
        """
        path = self.folder / f"{digest(name, cv2.__version__, VERSION)}.npy"
        found = self._opened(path)
        if found is None:
            found = make()
            self._write(path, found)
            found.setflags(write=False)
        return found

    def _opened(self, path: Path) -> Image | None:
        try:
            if not _is_whole(path):
                path.unlink(missing_ok=True)
                return None
            array: Image = np.lib.format.open_memmap(path, mode="r")
            os.utime(path)  # it is in use
        except FileNotFoundError:
            return None
        except OSError as error:
            self._give_up(error)
            return None
        return np.asarray(array)

    def _write(self, path: Path, array: Image) -> None:
        if not self._is_writable:
            return
        try:
            with _writing:
                self._make_room(max(array.nbytes, SMALLEST))
                with atomic_path(path) as temporary, temporary.open("wb") as stream:
                    pixels, header = np.ascontiguousarray(array), BytesIO()
                    write_array_header_1_0(header, header_data_from_array_1_0(pixels))
                    checksum = isal_zlib.crc32(_bytes_of(pixels), isal_zlib.crc32(header.getvalue()))
                    for part in (
                        header.getvalue(),
                        _bytes_of(pixels),
                        checksum.to_bytes(CHECKSUM_BYTES, "big"),
                    ):
                        stream.write(part)
        except OSError as error:
            self._give_up(error)

    def _make_room(self, needed: int) -> None:
        if needed <= self._room:
            self._room -= needed
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        files = sorted(self._files())
        used = sum(size for _, size, _ in files)
        disk = os.statvfs(self.folder)
        limit = min(self._capacity, (disk.f_bavail * disk.f_frsize + used) // 2)
        kept = limit - limit // SHARE_A_SCAN - needed
        for _, size, path in files:
            if used <= kept:
                break
            path.unlink(missing_ok=True)
            used -= size
        self._room = min(limit // SHARE_A_SCAN, limit - used - needed)

    def _files(self) -> list[tuple[float, int, Path]]:
        # when each was last opened, what it counts, and its path; what killed processes had begun is deleted
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                try:
                    status = entry.stat()
                except FileNotFoundError:  # another process has deleted it
                    continue
                if entry.name.startswith(TEMPORARY):
                    if status.st_mtime < time.time() - ABANDONED_SECONDS:
                        Path(entry.path).unlink(missing_ok=True)
                    continue
                found.append((status.st_mtime, max(status.st_size, SMALLEST), Path(entry.path)))
        return found

    def _give_up(self, error: OSError) -> None:
        if self._is_writable:
            logging.getLogger("cd_pipeline").warning(
                f"{self.folder}: decoded photos are not kept for the next time: {error.strerror or error}; "
                "make the folder writable, with room on its disk, to save the time"
            )
        self._is_writable = False


def _is_whole(path: Path) -> bool:
    if path.stat().st_size <= CHECKSUM_BYTES:
        return False
    content = np.memmap(path, np.uint8, "r")
    checksum = isal_zlib.crc32(_bytes_of(content[:-CHECKSUM_BYTES]))
    return content[-CHECKSUM_BYTES:].tobytes() == checksum.to_bytes(CHECKSUM_BYTES, "big")


def _bytes_of(array: Image) -> memoryview:
    return array.reshape(-1).data
