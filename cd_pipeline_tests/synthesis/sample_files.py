"""What the tests of the drawn samples share."""

import hashlib
from pathlib import Path


def tree(root: Path) -> dict[str, str]:
    """The hash of every file below a folder, by its path there."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
