"""What is known of shards that are done, so that a killed run goes on with the others.

A record is a file in a hidden folder of the asset whose files the work writes: it holds the result of a shard
and the hash of each file that was written for it. It is believed only where all of that still holds.
"""

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from cd_pipeline.data.files import digest, file_digest, read_sealed, write_sealed

FOLDER = ".shards"
MAGIC = b"cd_pipeline shard 1 "
"""The kind of a record, for `write_sealed`; its payload is an .npz file."""
PLAIN = "plain"
"""The array of an .npz file that holds what is no array, as JSON."""


class ShardResult(Protocol):
    """What comes of a shard, and can be kept."""

    @property
    def files(self) -> Mapping[str, str]:
        """SHA-256 of the files that were written, by their paths below the asset's folder."""

    def to_plain(self) -> Mapping[str, Any]:
        """Return all of it by name: arrays, and values of JSON."""

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Make it of what `to_plain` returned."""


Kept = TypeVar("Kept", bound=ShardResult)


@dataclass(frozen=True, slots=True)
class ShardRecords:
    """The records of an asset.

    Attributes:
        folder: of the asset.
        identity: hash of all that the results depend on beside the rows: a record with another one is not seen.
    """

    folder: Path
    identity: str

    def of(self, *made_of: object) -> "ShardRecords":
        """Return the records of results that depend on more."""
        return ShardRecords(self.folder, digest(self.identity, *made_of))

    def path(self, shard: Sequence[object]) -> Path:
        """Return the place of a shard's record; its name is a hash of identity and rows."""
        return self.folder / FOLDER / f"{digest(self.identity, *map(repr, shard))}.npz"

    def any(self) -> bool:
        """Tell whether there is any record, of whatever identity."""
        return (self.folder / FOLDER).is_dir()

    def write(self, path: Path, result: ShardResult) -> None:
        """Keep the result of a shard at the record's place, whole or not at all."""
        plain = result.to_plain()
        arrays = {name: value for name, value in plain.items() if isinstance(value, np.ndarray)}
        others = {name: value for name, value in plain.items() if name not in arrays}
        buffer = io.BytesIO()
        arrays[PLAIN] = np.frombuffer(json.dumps(others).encode(), np.uint8)
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # NumPy's stub takes them for its options
        write_sealed(path, MAGIC, buffer.getvalue())

    def read(self, path: Path, kind: type[Kept]) -> Kept | None:
        """Return the result that a record holds; None: there is no record, or it is damaged."""
        try:
            payload = read_sealed(path, MAGIC)
        except (FileNotFoundError, ValueError):
            return None
        with np.load(io.BytesIO(payload), allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files if name != PLAIN}
            return kind.of_plain({**json.loads(found[PLAIN].tobytes()), **arrays})

    def holds(self, path: Path, kind: type[Kept]) -> bool:
        """Tell whether a shard is done: its record is whole, and its files are what was written."""
        result = self.read(path, kind)
        return result is not None and all(
            _is_file_of(self.folder / name, sha256) for name, sha256 in result.files.items()
        )

    def discard(self) -> None:
        """Delete all records of the asset, those of other identities too."""
        shutil.rmtree(self.folder / FOLDER, ignore_errors=True)


def _is_file_of(path: Path, sha256: str) -> bool:
    try:
        return file_digest(path) == sha256
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
