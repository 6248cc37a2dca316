"""Writing whole files or none, and hashing."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends without an error.

    The temporary name is hidden and keeps the suffix, which writers use to choose a format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{digest(path.name)[:16]}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` as UTF-8, whole or not at all."""
    write_bytes(path, content.encode())


def keep_only(folder: Path, names: set[str]) -> None:
    """Delete the files directly in `folder` that are not in `names`: leftovers of an earlier run."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.is_file() and path.name not in names:
                path.unlink()


def digest(*parts: object) -> str:
    """Return the SHA-256 of the parts' texts, joined unambiguously, as 64 hex digits."""
    state = hashlib.sha256()
    for part in parts:
        text = part if isinstance(part, bytes) else str(part).encode()
        state.update(len(text).to_bytes(8, "big") + text)
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
