"""What an asset has made, on an object store and here.

The asset's receipt tells both sides which files belong together, with their hashes. It is sent last. While files are
sent, an object stands in its place that says which of them cannot be relied on: what was sent by halves is told by it,
and never believed, and sending it again sends the rest.

Beside the local receipt, `.on_store` holds the hash of the receipt on the store that the local files were last the
same as. A local receipt that is another one, while that on the store still is that one, is of work that was not sent.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError, model_validator

from cd_pipeline.data.file_record import RECEIPT, FileRecord
from cd_pipeline.data.files import bytes_digest, write_bytes, write_text
from cd_pipeline.remote.errors import SpoiltResultError
from cd_pipeline.remote.lease import Lease
from cd_pipeline.remote.mirror import is_hidden
from cd_pipeline.remote.object_folder import ObjectFolder, name_fault
from cd_pipeline.remote.transfers import in_parallel

ON_STORE = ".on_store"
NOTHING = "nothing"
"""Stands for objects that are not known by name."""
State = Literal["missing", "half sent", "whole"]


class FileList(BaseModel):
    """The part of a receipt that tells which files there are, and of one that is not yet there what is being sent.

    Attributes:
        files: by path in the folder.
        sending: paths of objects that are being replaced or deleted, which may be anything.
    """

    files: dict[str, FileRecord]
    sending: list[str] = []

    @model_validator(mode="after")
    def _inside(self) -> "FileList":
        for name in (*self.files, *self.sending):
            if fault := name_fault(name) or ("a hidden file" if is_hidden(name) else ""):
                raise ValueError(f"{name}: {fault}")
        return self


@dataclass(frozen=True, slots=True)
class Found:
    """What stands in the place of a receipt on the store, with its hash; `known`: objects that can be relied on."""

    state: State
    content: bytes
    digest: str
    known: FileList

    @classmethod
    def of(cls, content: bytes | None) -> "Found":
        """Tell what a content is; a damaged one is as good as none, but stands there."""
        if content is None:
            return cls("missing", b"", "", FileList(files={}))
        known, digest = _parsed(content), bytes_digest(content)
        state: State = "half sent" if known is None or known.sending else "whole"
        return cls(state, content, digest, known or FileList(files={}))


class StoredResult:
    """The folder of an asset, on the store and here.

    Args:
        remote: on the store.
        local: its mirror.
    """

    def __init__(self, remote: ObjectFolder, local: Path) -> None:
        self.remote, self.local = remote, local

    def fetch(self, lease: Lease | None) -> None:
        """Bring what was made elsewhere to here; or what was made here to the store, if it was not sent yet.

        Args:
            lease: that this process holds; None: nothing is sent.

        Raises:
            SpoiltResultError: what lies on the store is not what was made, and it is not here either.
            StoreError: the store fails.
        """
        found = Found.of(self.remote.read(RECEIPT))
        if found.state == "missing" and self._base():  # deleted on the store, where the truth is
            self._delete_local()
        elif found.state == "whole" and not self._is_ahead_of(found):
            self._fetch(found)
        elif self._is_whole():
            if lease is not None:
                self.send(lease)
        elif found.state == "half sent":
            raise SpoiltResultError(f"{self.remote.uri} was sent only in part, by a run that was stopped")

    def send(self, lease: Lease) -> None:
        """Send what is here and not on the store, the receipt last; what is on the store and not here is deleted.

        Args:
            lease: that this process holds.

        Raises:
            LeaseLostError: another machine writes to the recipe.
            SpoiltResultError: a file here is changed meanwhile.
            StoreError: the store fails.
        """
        content = (self.local / RECEIPT).read_bytes()
        own, found = FileList.model_validate_json(content), Found.of(self.remote.read(RECEIPT))
        digest = bytes_digest(content)
        new = [name for name, record in own.files.items() if found.known.files.get(name) != record]
        gone = sorted(self._objects(found) - own.files.keys())
        if new or gone:
            touched = {*new, *gone}
            kept = {name: record for name, record in found.known.files.items() if name not in touched}
            notice = FileList(files=kept, sending=sorted(touched))
            lease.require()
            self.remote.write(RECEIPT, notice.model_dump_json().encode())
            in_parallel(lambda name: self._send_one(name, own.files[name]), new)
            in_parallel(self.remote.delete, gone)
        if found.digest != digest:
            lease.require()
            self.remote.write(RECEIPT, content)
        write_text(self.local / ON_STORE, digest)

    def disown(self, lease: Lease) -> None:
        """Say on the store that nothing there can be relied on, so that all is sent when it is made anew."""
        found = Found.of(self.remote.read(RECEIPT))
        lease.require()
        notice = FileList(files={}, sending=sorted(self._objects(found)) or [NOTHING])
        self.remote.write(RECEIPT, notice.model_dump_json().encode())

    def _send_one(self, name: str, record: FileRecord) -> None:
        if self.remote.upload(self.local / name, name) != record:
            raise SpoiltResultError(f"{self.local / name} was changed while it was sent")

    def _fetch(self, found: Found) -> None:
        old, new = _parsed(self._receipt()), found.known.files
        missing = [name for name, record in new.items() if not record.is_of(self.local / name)]
        in_parallel(lambda name: self._fetch_one(name, new[name]), missing)
        for name in old.files.keys() - new.keys() if old else ():
            (self.local / name).unlink(missing_ok=True)
        if self._receipt() != found.content:
            write_bytes(self.local / RECEIPT, found.content)
        if self._base() != found.digest:
            write_text(self.local / ON_STORE, found.digest)

    def _delete_local(self) -> None:
        own = _parsed(self._receipt())
        for name in own.files if own else ():
            (self.local / name).unlink(missing_ok=True)
        (self.local / RECEIPT).unlink(missing_ok=True)
        (self.local / ON_STORE).unlink()

    def _fetch_one(self, name: str, record: FileRecord) -> None:
        try:
            self.remote.download(name, self.local / name, record)
        except FileNotFoundError:
            raise SpoiltResultError(f"{self.remote.uri}/{name} is gone") from None

    def _is_ahead_of(self, found: Found) -> bool:
        # made here since the two were the same
        return (
            self._base() == found.digest
            and bytes_digest(self._receipt()) != found.digest
            and self._is_whole()
        )

    def _is_whole(self) -> bool:
        own = _parsed(self._receipt())
        return own is not None and all(record.is_of(self.local / name) for name, record in own.files.items())

    def _receipt(self) -> bytes:
        path = self.local / RECEIPT
        return path.read_bytes() if path.is_file() else b""

    def _base(self) -> str:
        path = self.local / ON_STORE
        return path.read_text() if path.is_file() else ""

    def _objects(self, found: Found) -> set[str]:
        # what lies on the store: by what stands there of it, or else by listing
        if found.known.files or found.known.sending:
            return {*found.known.files, *found.known.sending} - {NOTHING}
        return {name for name in self.remote.listing().objects if not is_hidden(name)}


def _parsed(content: bytes) -> FileList | None:
    try:
        return FileList.model_validate_json(content)
    except ValidationError:
        return None
