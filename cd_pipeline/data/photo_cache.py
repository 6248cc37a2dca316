"""Decoded pictures on disk, which all processes of a machine share.

Decoding a photo again in every loader process and every run takes time, and keeping it in the memory of each takes
memory. Here it is decoded once; after that its pixels are pages of a file, mapped into whoever reads them and held
by the system once for all.
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from isal import isal_zlib
from numpy.lib.format import (
    header_data_from_array_1_0,
    read_array_header_1_0,
    read_magic,
    write_array_header_1_0,
)

from cd_pipeline.data.files import DISK_FAULTS, TEMPORARY, atomic_path, digest
from cd_pipeline.data.images import Image

FOLDER = ".cache/photos"
"""Below a recipe's folder; hidden, so that it is nobody's result."""
CAPACITY = 4 << 30
"""Bytes on disk: 4,000 photos at twice the published input size. On a small disk it is half of what is free."""
SHARE_A_SCAN = 32
"""A process looks at the whole folder after it has written this part of its capacity."""
SMALLEST = 1 << 16
"""A smaller file counts as so many bytes, which bounds the number of files, and is read, not mapped: a system allows
a process some 65,000 mappings."""
RECENT_SECONDS = 24 * 3600
"""What was opened no longer ago than this is not deleted for the sake of something new."""
LOOK_AGAIN_SECONDS = 600
"""A process that has found the folder full looks at it again after this time."""
ABANDONED_SECONDS = 3600
"""What was being written longer ago than this belongs to a process that was killed."""
CHECKSUM_BYTES = 4
VERSION = 1
"""Raised when the same photo gives other pixels, or files have another form."""
REMEDIES = {number: remedy for number, (_, remedy) in DISK_FAULTS.items()} | {
    errno.EACCES: "let this user read and write it",
    errno.EPERM: "let this user read and write it",
    errno.EMFILE: "let a process open more files (ulimit -n)",
    errno.ENFILE: "close files that other programs hold open: the system has no more",
    errno.ENOTDIR: "delete the file that is in its place",
    errno.EEXIST: "delete the file that is in its place",
}
"""What to do, by the number of a fault."""

_writing = threading.Lock()


class PhotoCache:
    """Arrays by name, HWC or HW uint8; what is not there is made, and kept for the next time.

    A file is an .npy followed by the CRC-32 of all before it. It is written under another name and renamed when whole,
    and checked each time it is opened: one that is cut short, of another form or with any byte changed is made anew.
    What is returned stays readable when its file is deleted, and holds no descriptor open.

    For something new the least recently opened files are deleted, but none of the last day: among more photos than
    fit, in a random order, each would be deleted before its next turn. So those that come first stay, and the others
    are made each time. Recent files go too where others fill the disk. Several processes that write at once can
    exceed the capacity by a 32nd each. On a disk that is full or cannot be written to nothing more is kept, after a
    warning; on one that cannot be read nothing more is looked for either.

    Args:
        folder: of this cache alone, on a local disk; it is made when there is something to keep.
        capacity: bytes on disk.
    """

    def __init__(self, folder: Path, capacity: int = CAPACITY) -> None:
        self.folder = folder
        self._capacity = capacity
        self._room: float = 0  # bytes that may be written before the folder is looked at again
        self._full_until: float = 0  # when to look at a full folder again
        self._is_readable = self._is_writable = True

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
        if not self._is_readable:
            return None
        try:
            found = _checked(_content(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            self._give_up(error)
            self._is_readable = False
            return None
        try:
            with suppress(FileNotFoundError):  # another process has deleted it
                if found is None:
                    path.unlink()
                else:
                    os.utime(path)  # it is in use
        except OSError as error:
            self._give_up(error)
        return found

    def _write(self, path: Path, array: Image) -> None:
        if not self._is_writable:
            return
        try:
            with _writing:
                if not self._has_room(max(array.nbytes, SMALLEST)):
                    return
                with atomic_path(path) as temporary, temporary.open("wb") as stream:
                    pixels, header = np.ascontiguousarray(array), BytesIO()
                    write_array_header_1_0(header, header_data_from_array_1_0(pixels))
                    for part in (header.getvalue(), _bytes_of(pixels)):
                        stream.write(part)
                    stream.write(_checksum(_bytes_of(pixels), isal_zlib.crc32(header.getvalue())))
        except OSError as error:
            self._give_up(error)

    def _has_room(self, needed: int) -> bool:
        # makes it where files are old; takes it
        if needed <= self._room:
            self._room -= needed
            return True
        if time.time() < self._full_until:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        files = sorted(self._files())
        used = sum(size for _, size, _ in files)
        disk = os.statvfs(self.folder)
        limit = min(self._capacity, (disk.f_bavail * disk.f_frsize + used) // 2)
        kept = limit - limit // SHARE_A_SCAN - needed
        old = time.time() - RECENT_SECONDS if needed <= limit else 0
        for opened, size, path in files:
            if used <= kept or (used <= limit and opened > old):
                break
            path.unlink(missing_ok=True)
            used -= size
        room = limit - used
        has_room = needed <= room
        if not has_room:
            self._full_until = time.time() + LOOK_AGAIN_SECONDS
        self._room = min(limit // SHARE_A_SCAN, room - needed if has_room else room)
        return has_room

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
            fault = os.strerror(error.errno) if error.errno else str(error)
            remedy = REMEDIES.get(error.errno or 0, "check it and its disk")
            logging.getLogger("cd_pipeline").warning(
                f"{self.folder}: decoded photos are not kept here, which costs time: {fault}; {remedy}"
            )
        self._is_writable = False


def _content(path: Path) -> bytes | pa.Buffer:
    # Python's own mmap keeps a descriptor open as long as the mapping lives, Arrow's does not
    if path.stat().st_size < SMALLEST:
        return path.read_bytes()
    with pa.memory_map(os.fsencode(path)) as file:
        return file.read_buffer()


def _checked(content: bytes | pa.Buffer) -> Image | None:
    # the array of a file, or None where it is not whole
    if len(content) <= CHECKSUM_BYTES:
        return None
    before, checksum = np.split(np.frombuffer(content, np.uint8), [-CHECKSUM_BYTES])
    if checksum.tobytes() != _checksum(before.data):
        return None
    stream = pa.BufferReader(content)
    read_magic(stream)
    shape, _, _ = read_array_header_1_0(stream)
    return before[stream.tell() :].reshape(shape)


def _checksum(content: memoryview, before: int = 0) -> bytes:
    return isal_zlib.crc32(content, before).to_bytes(CHECKSUM_BYTES, "big")


def _bytes_of(array: Image) -> memoryview:
    return array.reshape(-1).data
