"""Folders on an object store whose files are told by listing: raw folders, and releases.

A mirrored file has the object's size and modification time, so that the next listing tells what is new without any
index. Modification times of S3 are whole seconds: an object that was young when it was fetched is compared
once more, by the store's MD5.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cd_pipeline.data.file_lock import locked
from cd_pipeline.data.files import delete_leftovers, visible_below
from cd_pipeline.data.listing import folders_in, one_line
from cd_pipeline.remote.object_folder import ObjectFolder, ObjectInfo
from cd_pipeline.remote.transfers import in_parallel

YOUNG_NANOSECONDS = 60 * 10**9
"""An object this young may still change without another time; clocks may differ by as much."""


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What mirroring came to.

    Attributes:
        fetched: objects that were new or changed.
        deleted: files whose objects are gone.
        refused: objects that are left out, with the reason.
    """

    fetched: int = 0
    deleted: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)


def mirror_parts(
    remote: ObjectFolder,
    local: Path,
    parts: Callable[[Path], Sequence[str]],
    leaves: Collection[str],
    depth: int,
    logger: logging.Logger,
) -> Mirrored:
    """Mirror those folders of a raw folder that its reader looks into.

    Args:
        remote: the raw folder.
        local: its mirror; files in it that are not on the store are deleted.
        parts: given a folder that has the raw folder's own folders, returns which of them are read; what it raises
            is passed on.
        leaves: names of folders that hold no further folders to choose from.
        depth: of the folders that `parts` returns.
        logger: is told whom this process waits for.

    Raises:
        StoreError: the store fails; what was fetched stays, and is not fetched again.
    """
    local.parent.mkdir(parents=True, exist_ok=True)
    with locked(local.with_name(f".{local.name}.lock"), f"mirroring {remote.uri}", logger):
        _lay_out(remote, local, leaves, depth)
        done = {part: fetch_listed(remote / part, local / part) for part in parts(local)}
    return Mirrored(
        fetched=sum(one.fetched for one in done.values()),
        deleted=sum(one.deleted for one in done.values()),
        refused={f"{part}/{name}": why for part, one in done.items() for name, why in one.refused.items()},
    )


def fetch_listed(
    remote: ObjectFolder,
    local: Path,
    wanted: Callable[[str, Collection[str]], bool] = lambda name, names: True,
) -> Mirrored:
    """Make a folder the same as one on the store, without hidden files, which are left alone on both sides.

    Args:
        remote: the folder on the store.
        local: the folder here.
        wanted: tells by the path in the folder, and those of all objects, what is mirrored; the rest is as if it was
            not there.

    Raises:
        StoreError: the store fails; what was fetched stays, and is not fetched again.
    """
    listing = remote.listing()
    names = listing.objects.keys()
    objects = {name: listing.objects[name] for name in names if not is_hidden(name) and wanted(name, names)}
    delete_leftovers(local)
    deleted = _delete_others(local, set(objects))

    def bring(name: str) -> tuple[str, str, bool]:
        path, info = local / name, objects[name]
        if _is_same(remote, name, path, info):
            return name, "", False
        try:
            remote.download(name, path)
        except FileNotFoundError:
            return name, "listed, but cannot be read: deleted meanwhile, or an unusual name", False
        os.utime(path, ns=(info.modified, info.modified))
        return name, "", True

    told = in_parallel(bring, objects)
    left_out = {one_line(name): reason for name, reason, _ in told if reason}
    return Mirrored(sum(new for *_, new in told), deleted, {**listing.refused, **left_out})


def push_listed(remote: ObjectFolder, local: Path, rank: Callable[[str], int]) -> None:
    """Make a folder on the store the same as one here, without hidden files.

    Args:
        remote: the folder on the store.
        local: the folder here.
        rank: of a file by its path: those of a higher one are sent when all of lower ones are there, and deleted
            before them.

    Raises:
        StoreError: the store fails.
    """
    there = {name: info for name, info in remote.listing().objects.items() if not is_hidden(name)}
    # what a link leads to is sent under its own name
    here = [name for name in visible_below(local) if not (local / name).is_symlink()]
    new = [name for name in here if not _is_same(remote, name, local / name, there.get(name))]
    for one in sorted({*map(rank, new)}):
        in_parallel(lambda name: remote.upload(local / name, name), [n for n in new if rank(n) == one])
    gone = there.keys() - set(here)
    for one in sorted({*map(rank, gone)}, reverse=True):
        in_parallel(remote.delete, [name for name in gone if rank(name) == one])
    sent = remote.listing().objects if new else {}
    for name in new:
        os.utime(local / name, ns=(sent[name].modified, sent[name].modified))


def is_hidden(name: str) -> bool:
    """Tell whether a path's file, or a folder on the way to it, is hidden."""
    return any(part.startswith(".") for part in name.split("/"))


def _lay_out(remote: ObjectFolder, local: Path, leaves: Collection[str], depth: int) -> None:
    # empty folders for those on the store, so that a reader's layout can be told before anything is fetched
    names = remote.folders()
    for path in folders_in(local):
        if path.name not in names:
            shutil.rmtree(path)
    for name in names:
        if (local / name).is_file():
            (local / name).unlink()
        (local / name).mkdir(parents=True, exist_ok=True)
        if depth > 1 and name not in leaves:
            _lay_out(remote / name, local / name, leaves, depth - 1)


def _is_same(remote: ObjectFolder, name: str, path: Path, info: ObjectInfo | None) -> bool:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if info is None or (found.st_size, found.st_mtime_ns) != (info.size, info.modified):
        return False
    if found.st_ctime_ns - info.modified > YOUNG_NANOSECONDS:
        return True
    if hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != remote.etag(name):
        return False
    os.utime(path, ns=(info.modified, info.modified))  # it is compared no more, once it is no longer young
    return True


def _delete_others(folder: Path, names: Collection[str]) -> int:
    deleted = 0
    for root, folders, files in os.walk(folder, topdown=False):
        inside = Path(root).relative_to(folder)
        if any(part.startswith(".") for part in inside.parts):
            continue
        for name in files:
            path = inside / name
            if not (name.startswith(".") or path.as_posix() in names or (folder / path).is_symlink()):
                (folder / path).unlink()
                deleted += 1
        for name in folders:
            path = folder / inside / name
            if not name.startswith(".") and not path.is_symlink() and not any(path.iterdir()):
                path.rmdir()
    return deleted
