"""Whether a folder has changed, told without reading its files, and whether it has come to rest."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cd_pipeline.data.files import digest


def fingerprint(folder: Path) -> str:
    """Hash the names, sizes and times of all files below a folder, hidden ones left out.

    Links to folders are not followed. A file that vanishes meanwhile counts as not there.

    Raises:
        FileNotFoundError: the folder is not there.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: the folder is not there; put it back, or point the recipe elsewhere"
        )
    return digest(*sorted(_entries(folder)))


def fingerprint_on_store(address: str) -> str:
    """Hash the names, sizes and times of all objects below an address, hidden ones left out; none is fetched.

    Raises:
        FileNotFoundError: there are none.
        StoreError: the store fails.
    """
    from cd_pipeline.remote.mirror import is_hidden
    from cd_pipeline.remote.object_folder import ObjectFolder

    remote = ObjectFolder(address)
    found = {name: info for name, info in remote.listing().objects.items() if not is_hidden(name)}
    if not found:
        raise FileNotFoundError(f"{remote.uri}: nothing is there; put it back, or point the recipe elsewhere")
    return digest(*sorted(f"{name!r} {info.size} {info.modified}" for name, info in found.items()))


def _entries(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith("."):
                continue
            path = Path(place) / name
            try:
                status = path.stat()
            except OSError:
                continue
            yield f"{os.fsencode(path.relative_to(folder))!r} {status.st_size} {status.st_mtime_ns}"


@dataclass(frozen=True, slots=True)
class Watch:
    """What is known of a folder between two looks.

    Attributes:
        seen: fingerprint at the last look.
        since: when it was first seen so, seconds since the epoch.
        handled: fingerprint that was last acted on; "": none yet.
    """

    seen: str = ""
    since: float = 0.0
    handled: str = ""

    def look(self, now_seen: str, now: float, quiet_seconds: float) -> tuple["Watch", bool]:
        """Look again.

        The first look of all only remembers. After that a folder that differs from what was last acted on is
        acted on once it has been the same for `quiet_seconds`: one that is being copied is left alone.

        Args:
            now_seen: fingerprint of this look.
            now: its time, seconds since the epoch.
            quiet_seconds: rest that is waited for.

        Returns:
            What is known now, and whether to act.
        """
        if not self.handled:
            return Watch(now_seen, now, now_seen), False
        since = self.since if now_seen == self.seen else now
        act = now_seen != self.handled and now - since >= quiet_seconds
        return Watch(now_seen, since, now_seen if act else self.handled), act

    def plain(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)
