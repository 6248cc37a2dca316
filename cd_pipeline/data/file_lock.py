"""A lock between processes, which the kernel releases when its holder dies."""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""What filesystems answer that know no locks."""
NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def locked(path: Path, purpose: str, logger: logging.Logger) -> Iterator[bool]:
    """Hold a lock for the time of a block; wait for it where another process, or thread, holds it.

    Who holds it stands in the file, for those who wait. The file stays there when the lock is released: were it
    deleted, one could wait for the old file while another holds a new one.

    Args:
        path: of the lock's file; it is made if needed, with its folder.
        purpose: what is done meanwhile, such as "making checkpoint", for those who wait.
        logger: is told whom this process waits for, and of a filesystem that has no locks.

    Yields:
        Whether the lock is held. It is not where the filesystem has none, nor where there is no lock's file
        and none can be made, in a folder that is read-only.
    """
    descriptor = _open(path)
    if descriptor is None:
        yield False
        return
    try:
        held = _wait(descriptor, path, logger)
        if held:
            _tell(descriptor, f"{purpose} (process {os.getpid()})")
        yield held
        if held:
            _tell(descriptor, "")
    finally:
        os.close(descriptor)


def _open(path: Path) -> int | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # another user's, or on a read-only disk
    except OSError:
        return None


def _wait(descriptor: int, path: Path, logger: logging.Logger) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = os.pread(descriptor, 200, 0).decode(errors="replace") or "at work"
        logger.info(f"another run is {other}; waiting")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        logger.warning(f"{path}: this filesystem has no locks; see to it that no two runs write here at once")
        return False
    return True


def _tell(descriptor: int, text: str) -> None:
    with suppress(OSError):  # of a full or read-only disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
