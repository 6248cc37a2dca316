"""Writing whole files or none, and hashing."""

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_BYTES = 1 << 32
"""Most bytes of a picture file: what a TIFF can have."""
MAX_TEXT_BYTES = 1 << 24
"""Most bytes of a text file: of labels, or of names."""
TEMPORARY = ".tmp-"
"""What the names of files begin with that are being written."""
DISK_FAULTS = {
    errno.ENOSPC: ("is full", "make room there and run again"),
    errno.EDQUOT: ("has no room left for this user (quota)", "make room there and run again"),
    errno.EROFS: ("is read-only", "make it writable, or set CD_PIPELINE_DATA to a folder that is"),
    errno.EIO: ("fails to read or write (input/output error)", "check it, then run again"),
}
"""What is wrong with a disk, and the remedy."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends without an error.

    The temporary name is hidden, drawn at random, so that machines and threads that share a folder never meet, and
    keeps the suffix, which writers use to choose a format. Of several who write one path the last to end wins.

    Raises:
        OSError: it cannot be written; `filename` is `path` where the disk is at fault.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno in DISK_FAULTS and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # the disk's fault is told already, by what was raised
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` as UTF-8, whole or not at all."""
    write_bytes(path, content.encode())


def write_sealed(path: Path, magic: bytes, payload: bytes) -> None:
    """Write a file that tells whether it is whole: `magic`, SHA-256 of the payload in hex, line end, payload.

    Args:
        path: of the file, which is written whole or not at all.
        magic: says of what kind it is; without a line end.
        payload: any bytes.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(magic + bytes_digest(payload).encode() + b"\n")
        stream.write(payload)


def read_sealed(path: Path, magic: bytes) -> bytes:
    """Return the payload of a file that `write_sealed` wrote.

    Raises:
        ValueError: it is of another kind, damaged or cut short.
        OSError: it is not there, or cannot be read.
    """
    with path.open("rb") as stream:
        header, payload = stream.readline(), stream.read()
    if not header.startswith(magic):
        raise ValueError(f"does not begin with {magic.decode().strip()!r}")
    if header != magic + bytes_digest(payload).encode() + b"\n":
        raise ValueError("damaged or cut short")
    return payload


def visible_below(folder: Path) -> list[str]:
    """Return the paths of the files in a folder, sorted; what is hidden, or in a hidden folder, is left out."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = Path(root).relative_to(folder)
        found += [(inner / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def disk_fault(error: OSError) -> str | None:
    """Return a line that names file, disk and remedy where a disk is at fault, or its permissions."""
    number, name = error.errno, error.filename2 or error.filename
    if isinstance(error, shutil.Error):  # of the copy of a folder: a list of (from, to, error as text)
        _, name, told = error.args[0][0]
        number = next((fault for fault in DISK_FAULTS if os.strerror(fault) in told), None)
    if name is None:
        return None
    path = Path(os.fsdecode(name)).absolute()
    if number == errno.EACCES:
        return f"{path}: this user may not read or write it; change its permissions, or those of its folder"
    if number not in DISK_FAULTS:
        return None
    fault, remedy = DISK_FAULTS[number]
    disk = next(parent for parent in (path, *path.parents) if parent.is_mount())
    room = shutil.disk_usage(disk)
    room_left = f"{room.free / 1e6:.1f} MB of {room.total / 1e6:.1f} MB free"
    return f"{path}: the disk mounted at {disk} {fault}, {room_left}; {remedy}"


def delete_leftovers(folder: Path) -> None:
    """Delete what processes that were killed had begun to write in a folder, at any depth.

    Nobody else may write there meanwhile.
    """
    for path in folder.rglob(f"{TEMPORARY}*"):
        if path.is_file():
            path.unlink()


def read_regular(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Read a whole file of someone else's.

    Args:
        path: of the file, or of a link to it.
        limit: the most bytes that it may have.

    Raises:
        OSError: it cannot be read, is larger, or is no file but a folder, a pipe or a device, which may never
            end; `strerror` is what is wrong.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "no regular file, but a folder, a pipe or a device", str(path))
    if status.st_size > limit:
        raise OSError(errno.EFBIG, f"{status.st_size} bytes, at most {limit} are read", str(path))
    return path.read_bytes()


def keep_only(folder: Path, names: set[str]) -> None:
    """Delete the files directly in `folder` that are not in `names`: leftovers of an earlier run.

    Hidden files stay, such as receipts; those that a run has not finished writing go.
    """
    if folder.is_dir():
        for path in folder.iterdir():
            stays = path.name in names or (path.name[0] == "." and not path.name.startswith(TEMPORARY))
            if path.is_file() and not stays:
                path.unlink()


def digest(*parts: object) -> str:
    """Return the SHA-256 of the parts' texts, joined unambiguously, as 64 hex digits."""
    return digest_of(parts)


def digest_of(parts: Iterable[object]) -> str:
    """Return the `digest` of parts that are taken one at a time."""
    state = hashlib.sha256()
    for part in parts:
        text = part if isinstance(part, bytes) else str(part).encode()
        state.update(len(text).to_bytes(8, "big"))
        state.update(text)
    return state.hexdigest()


def seed_of(*parts: object) -> int:
    """Return a 63-bit seed that depends on the parts alone."""
    return int(digest(*parts)[:16], 16) >> 1


def bytes_digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes as 64 hex digits, as `sha256sum` prints it."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
