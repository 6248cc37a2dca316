"""One machine at a time writes to a recipe on an object store.

The store is asked for no more than writing and reading whole objects, so that this is a lease and no lock. What it
guarantees: a machine that finds another at work waits until that one has ended, or has not renewed its lease for
two minutes. Two that begin within the same fraction of a second both write the lease, and the one whose lease was
written over notices it before it says of anything that it is whole (`require`): at that moment, not later. So a
result that is believed was sent by one machine, except where a machine stands still for minutes between that look and
its next request; then hashes in receipts tell those who read it.
"""

import logging
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from cd_pipeline.data.machine import has_ended, this_process
from cd_pipeline.remote.errors import LeaseLostError, StoreError
from cd_pipeline.remote.object_folder import ObjectFolder

LEASE = ".lease.json"
RENEWED_SECONDS, EXPIRES_SECONDS = 20.0, 120.0
LOOK_SECONDS = 1.0
"""Between two looks at another's lease."""
SETTLE_SECONDS = 0.2
"""After writing a lease, before it is read back."""
_given_up: set[str] = set()  # leases of this process that can still lie on a store that could not be reached


class Holder(BaseModel):
    """Who writes to a recipe.

    Attributes:
        token: of the lease; "": nobody holds it.
        host: name of the machine.
        machine: what tells it, as it was started, from others of that name.
        process: that holds it.
        purpose: what is done, such as "making checkpoint of rooms".
        renewed: how often; one that is renewed no more has died.
    """

    token: str = ""
    host: str = ""
    machine: str = ""
    process: str = ""
    purpose: str = ""
    renewed: int = 0


class Lease:
    """A lease that this process holds.

    Args:
        folder: of the recipe.
        holder: this process.
    """

    def __init__(self, folder: ObjectFolder, holder: Holder) -> None:
        self.folder, self._holder = folder, holder
        self._writing = threading.Lock()

    def require(self) -> None:
        """Make sure that no other machine has taken over.

        Raises:
            LeaseLostError: one has.
            StoreError: the store fails.
        """
        found = read_lease(self.folder)
        if found.token != self._holder.token:
            other = f"{found.host or 'another machine'} ({found.purpose or 'at work'})"
            raise LeaseLostError(
                f"{self.folder.uri}: {other} writes to it too; what was made here is kept here and not sent: "
                "let only one machine at a time write to it, and run again"
            )

    def renew(self) -> None:
        """Say that this process is still at work."""
        with self._writing:
            self.require()
            self._holder = self._holder.model_copy(update={"renewed": self._holder.renewed + 1})
            self.folder.write(LEASE, self._holder.model_dump_json().encode())

    def release(self) -> None:
        """Let others write; a lease that was lost is left to its holder."""
        _given_up.add(self._holder.token)
        with self._writing:
            if read_lease(self.folder).token == self._holder.token:
                self.folder.write(LEASE, Holder().model_dump_json().encode())


@contextmanager
def leased(folder: ObjectFolder, purpose: str, logger: logging.Logger) -> Iterator[Lease]:
    """Hold the lease of a recipe for the time of a block; wait for it while another machine is at work.

    Args:
        folder: of the recipe.
        purpose: what is done meanwhile, for those who wait.
        logger: is told whom this process waits for.

    Raises:
        StoreError: the store fails.
    """
    lease = _taken(folder, purpose, logger)
    ended = threading.Event()
    renewing = threading.Thread(target=_keep, args=(lease, ended), name="lease", daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        ended.set()
        renewing.join()
        with suppress(StoreError):  # it expires by itself; what went wrong before is to be told
            lease.release()


def read_lease(folder: ObjectFolder) -> Holder:
    """Return who holds the lease of a recipe; a damaged one nobody holds.

    Raises:
        StoreError: the store fails.
    """
    try:
        return Holder.model_validate_json(folder.read(LEASE) or b"{}")
    except ValidationError:
        return Holder()


def _taken(folder: ObjectFolder, purpose: str, logger: logging.Logger) -> Lease:
    own = Holder(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=_machine(),
        process=this_process(),
        purpose=purpose,
    )
    while True:
        _wait_while_held(folder, logger)
        folder.write(LEASE, own.model_dump_json().encode())
        time.sleep(SETTLE_SECONDS)
        if read_lease(folder).token == own.token:
            return Lease(folder, own)


def _wait_while_held(folder: ObjectFolder, logger: logging.Logger) -> None:
    found, since, told = read_lease(folder), time.monotonic(), ""
    while found.token and not _is_gone(found):
        if time.monotonic() - since > EXPIRES_SECONDS:
            logger.warning(
                f"{folder.uri}: {found.host} has died while {found.purpose}; its lease is taken over"
            )
            return
        if told != found.token:
            logger.info(f"{folder.uri}: another run is {found.purpose} (process {found.process}); waiting")
            told = found.token
        time.sleep(LOOK_SECONDS)
        now = read_lease(folder)
        found, since = now, since if now == found else time.monotonic()


def _is_gone(holder: Holder) -> bool:
    # of another machine, or of a container with its own processes, that is not known
    return holder.token in _given_up or (holder.machine == _machine() and has_ended(holder.process))


def _machine() -> str:
    boot, processes = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if not boot.exists():
        return socket.gethostname()
    return f"{boot.read_text().strip()} {processes.readlink()}"


def _keep(lease: Lease, ended: threading.Event) -> None:
    while not ended.wait(RENEWED_SECONDS):
        try:
            lease.renew()
        except LeaseLostError:
            return  # `require` tells it before anything is sent
        except StoreError:
            continue  # the store may come back before the lease expires
