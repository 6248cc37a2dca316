"""A file as it was written: its size and hash."""

import functools
from pathlib import Path

from pydantic import BaseModel

from cd_pipeline.data.files import file_digest

RECEIPT = ".receipt.json"
"""In the folder of an asset that has been made: what it was made of, and which files came of it."""


class FileRecord(BaseModel):
    """A file as it was written."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileRecord":
        """Read a file, once as long as nothing has touched it."""
        found = path.stat()
        touched = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return cls(size=found.st_size, sha256=_file_digest(path.absolute(), touched))

    def is_of(self, path: Path) -> bool:
        """Tell whether a file is there, and is this one."""
        try:
            return FileRecord.of(path) == self
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False


@functools.lru_cache(maxsize=1 << 16)
def _file_digest(path: Path, touched: tuple[int, ...]) -> str:
    # `touched` changes when the file does: many assets read the same one
    return file_digest(path)
