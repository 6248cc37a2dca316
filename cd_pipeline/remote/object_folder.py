"""A folder on an object store: S3, or what speaks its protocol, and Google Cloud Storage.

pyarrow's filesystems do the transport. Credentials, region and endpoint are taken from where the store's own tools
take them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, AWS_REGION,
AWS_ENDPOINT_URL; an instance's role; GOOGLE_APPLICATION_CREDENTIALS.
"""

import functools
import hashlib
import os
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cd_pipeline.data.file_record import FileRecord
from cd_pipeline.data.files import atomic_path
from cd_pipeline.data.listing import one_line
from cd_pipeline.data.places import is_remote
from cd_pipeline.remote.errors import SpoiltResultError, StoreError, told_of

CHUNK_BYTES = 1 << 22
MAX_NAME_BYTES = 255
"""Most bytes of a part of a path, on the usual file systems."""
MAX_READ_BYTES = 1 << 28
"""Most bytes of an object that is read into memory."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing tells it; `modified`: nanoseconds since 1970, by the store's clock."""

    size: int
    modified: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The objects in a folder at any depth, by path, and those that cannot be files here, with the reason."""

    objects: Mapping[str, ObjectInfo]
    refused: Mapping[str, str]


class ObjectFolder:
    """A folder on an object store.

    Args:
        uri: such as s3://bucket/prefix; `?region=...&endpoint_override=...` can follow.

    Raises:
        ValueError: no such address.
        StoreError: the store cannot be reached or refuses access.
    """

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri, allow_fragments=False)
        place = f"{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        self.uri = f"{parts.scheme}://{place}"
        if not is_remote(uri) or name_fault(place):
            raise ValueError(f"{self.uri}: expected s3://<bucket>/<prefix>, without empty parts, `.` or `..`")
        self._path = place
        self._bucket = f"{parts.scheme}://{parts.netloc}?{parts.query}".rstrip("?")

    def __truediv__(self, name: str) -> "ObjectFolder":
        """Return a folder in this one."""
        if fault := name_fault(name):
            raise ValueError(f"{self.uri}/{one_line(name)}: {fault}")
        inner = copy(self)
        inner._path, inner.uri = f"{self._path}/{name}", f"{self.uri}/{name}"
        return inner

    def listing(self) -> Listing:
        """List all objects at any depth; of a folder that is not there none.

        Raises:
            StoreError: the store fails, or there is no such bucket.
        """
        objects, refused = {}, {}
        for name, found in self._entries(recursive=True):
            if found.is_file:
                fault = name_fault(name)
                if fault:
                    refused[one_line(name)] = fault
                else:
                    objects[name] = ObjectInfo(found.size, found.mtime_ns or 0)
        folders = {name[:end] for name in objects for end, char in enumerate(name) if char == "/"}
        for name in sorted(folders & objects.keys()):
            refused[one_line(name)] = "an object and a folder of one name; rename the object"
            del objects[name]
        return Listing(objects, refused)

    def folders(self) -> list[str]:
        """Return the names of the folders directly in this one, sorted; hidden and unusable ones left out."""
        found = (name for name, entry in self._entries(recursive=False) if not entry.is_file)
        return sorted(name for name in found if not name.startswith(".") and not name_fault(name))

    def read(self, name: str) -> bytes | None:
        """Return the content of an object; None: there is none.

        Raises:
            StoreError: the store fails, there is no such bucket, or the object is larger than is read.
        """
        place = f"{self.uri}/{name}"
        try:
            with told_of(place), self._store.open_input_stream(f"{self._path}/{name}") as stream:
                content: bytes = stream.read(MAX_READ_BYTES + 1)
        except FileNotFoundError:
            self.require_bucket()
            return None
        if len(content) > MAX_READ_BYTES:
            raise StoreError(f"{place}: more than {MAX_READ_BYTES} bytes; not an object of cd_pipeline")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write an object, whole or not at all."""
        with told_of(f"{self.uri}/{name}"), self._store.open_output_stream(f"{self._path}/{name}") as stream:
            stream.write(content)

    def download(self, name: str, path: Path, expected: FileRecord | None = None) -> FileRecord:
        """Fetch an object into a file: to a temporary name, renamed when it is whole.

        Args:
            name: of the object.
            path: of the file.
            expected: what it must be; None: anything.

        Returns:
            What it is.

        Raises:
            FileNotFoundError: there is no such object.
            SpoiltResultError: it is not what was expected; nothing is written.
            StoreError: the store fails.
            OSError: the file cannot be written.
        """
        with told_of(f"{self.uri}/{name}"):
            source = self._store.open_input_stream(f"{self._path}/{name}")
        state, size = hashlib.sha256(), 0
        with source, atomic_path(path) as temporary:
            with temporary.open("wb") as target:
                while chunk := self._chunk(source, name):
                    state.update(chunk)
                    target.write(chunk)
                    size += len(chunk)
            found = FileRecord(size=size, sha256=state.hexdigest())
            if expected is not None and found != expected:
                raise SpoiltResultError(f"{self.uri}/{name} is not the file that was written there")
        return found

    def upload(self, path: Path, name: str) -> FileRecord:
        """Write a file to an object; return what was sent.

        Raises:
            StoreError: the store fails.
            OSError: the file cannot be read.
        """
        state, size = hashlib.sha256(), 0
        place = f"{self.uri}/{name}"
        with (
            path.open("rb") as source,
            told_of(place),
            self._store.open_output_stream(f"{self._path}/{name}") as target,
        ):
            while chunk := source.read(CHUNK_BYTES):
                state.update(chunk)
                target.write(chunk)
                size += len(chunk)
        return FileRecord(size=size, sha256=state.hexdigest())

    def etag(self, name: str) -> str:
        """Return the store's mark of an object's content, in most cases the MD5 in hex; "": it tells none."""
        with told_of(f"{self.uri}/{name}"), self._store.open_input_stream(f"{self._path}/{name}") as stream:
            told: Mapping[bytes | str, bytes] = stream.metadata() or {}
        found = {str(key).lower(): value for key, value in told.items()}.get("etag", b"")
        return (found.decode() if isinstance(found, bytes) else str(found)).strip('"')

    def delete(self, name: str) -> None:
        """Delete an object; one that is not there is no error."""
        try:
            with told_of(f"{self.uri}/{name}"):
                self._store.delete_file(f"{self._path}/{name}")
        except FileNotFoundError:
            return

    def require_bucket(self) -> None:
        """Raise StoreError where there is no such bucket."""
        from pyarrow import fs

        bucket = self._path.partition("/")[0]
        with told_of(self.uri):
            found = self._store.get_file_info(bucket)
        if found.type == fs.FileType.NotFound:
            raise StoreError(f"{self.uri}: there is no such bucket; create it, or correct the address")

    @property
    def _store(self) -> Any:  # noqa: ANN401 - pyarrow has no types
        return _connection(self._bucket, os.getpid(), _settings())

    def _entries(self, *, recursive: bool) -> list[tuple[str, Any]]:
        from pyarrow import fs

        selector = fs.FileSelector(self._path, recursive=recursive, allow_not_found=True)
        with told_of(self.uri):
            found = self._store.get_file_info(selector)
        if not found:
            self.require_bucket()
        start = len(self._path) + 1
        return [(entry.path[start:], entry) for entry in found if len(entry.path) >= start]

    def _chunk(self, source: Any, name: str) -> bytes:  # noqa: ANN401 - pyarrow has no types
        with told_of(f"{self.uri}/{name}"):
            content: bytes = source.read(CHUNK_BYTES)
        return content


def name_fault(name: str) -> str:
    """Return why an object's name cannot be a path below a local folder; "": it can."""
    parts = name.split("/")
    if "\0" in name:
        return "the name holds a zero character; rename it"
    if any(part in ("", ".", "..") for part in parts):
        return "the name has an empty part, `.` or `..`; rename it"
    if any(len(part.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES for part in parts):
        return f"a part of the name is longer than {MAX_NAME_BYTES} bytes; rename it"
    return ""


def _settings() -> tuple[tuple[str, str], ...]:
    return tuple(
        sorted((key, value) for key, value in os.environ.items() if key.startswith(("AWS_", "GOOGLE_")))
    )


@functools.lru_cache(maxsize=16)
def _connection(uri: str, process: int, settings: tuple[tuple[str, str], ...]) -> Any:  # noqa: ANN401
    # `process` and `settings`: a connection does not outlive a fork or other credentials
    from pyarrow import fs, lib

    shown = f"{uri.partition('://')[0]}://{urlsplit(uri).netloc.rpartition('@')[2]}"

    delayed = (
        f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"  # one request a small object, not three
    )
    try:
        with told_of(shown):
            if not uri.startswith("s3://"):
                return fs.FileSystem.from_uri(uri)[0]
            try:
                return fs.FileSystem.from_uri(delayed)[0]
            except lib.ArrowInvalid:  # an older pyarrow does not know this option
                return fs.FileSystem.from_uri(uri)[0]
    except lib.ArrowInvalid as error:
        raise ValueError(f"{shown}: {error}") from None
