"""A file as it was written: its size and hash."""

import functools
import os
from pathlib import Path

from pydantic import BaseModel

from cd_pipeline.data.files import file_digest

RECEIPT = ".receipt.json"
"""In the folder of an asset that has been made: what it was made of, and which files came of it."""
MEMORY = 1 << 20
"""Files whose hashes a process remembers, at some 600 bytes each: 60 MB for 100,000. It has to be more than a data set
has: of more files, read in turn, each would be forgotten before its next turn."""


class FileRecord(BaseModel):
    """A file as it was written."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileRecord":
        """Read a file, once as long as nothing has touched it and it is of the last `MEMORY` files asked for."""
        found = path.stat()
        touched = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return cls(size=found.st_size, sha256=_file_digest(os.fspath(path.absolute()), touched))

    def is_of(self, path: Path) -> bool:
        """Tell whether a file is there, and is this one."""
        try:
            return FileRecord.of(path) == self
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False


@functools.lru_cache(MEMORY)
def _file_digest(path: str, touched: tuple[int, ...]) -> str:
    # `touched` changes when the file does: many assets read the same one
    return file_digest(Path(path))
