"""The folder of a recipe's releases: kept versions, and a link to the one that is shipped.

`versions/<version>/` holds a whole delivery with its `release.json`, and `current` leads to one of them. The link
alone says what is shipped. `current.json` is written just before the link is swapped: after a crash between the
two its newest entry is of a shipment that did not happen, and is left out.
"""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cd_pipeline.data.file_lock import locked
from cd_pipeline.data.files import TEMPORARY, atomic_path, file_digest, write_bytes, write_text
from cd_pipeline.release.errors import ReleaseError
from cd_pipeline.release.records import (
    CURRENT,
    RECORD,
    VERSION,
    Candidate,
    Current,
    Record,
    Shipment,
    lineage,
    now,
    read_model,
)

LINK = "current"


class ReleaseStore:
    """Kept versions and what is shipped.

    Args:
        folder: of the recipe's releases; is made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, version: str) -> Path:
        """Return the folder of a version.

        Raises:
            ReleaseError: no version has such a name.
        """
        if not VERSION.fullmatch(version):
            raise ReleaseError(
                f"version {version!r}: expected 12 digits or letters from a to f, as `release list` shows"
            )
        return self.folder / "versions" / version

    @property
    def shipped(self) -> str | None:
        """The version that is shipped; None: there is none yet.

        Raises:
            ReleaseError: the link leads nowhere, or to no version.
        """
        link = self.folder / LINK
        if not os.path.lexists(link):
            return None
        target = link.readlink() if link.is_symlink() else link
        if target.parent != Path("versions") or not VERSION.fullmatch(target.name) or not link.is_dir():
            raise ReleaseError(
                f"{link}: leads to {target}, which is no kept version; ship one of "
                f"{', '.join(self._names()) or 'none'} by a rollback, or delete it to start anew"
            )
        return target.name

    @property
    def shipments(self) -> tuple[Shipment, ...]:
        """All shipments that happened, oldest first; the last is of what is shipped.

        Raises:
            ReleaseError: `current.json` cannot be read, or as of `shipped`.
        """
        version = self.shipped
        if version is None:
            return ()
        told = self._told()
        while told and told[-1].version != version:
            told = told[:-1]
        return told or (Shipment(version=version, why="not recorded", since="", by="release"),)

    @property
    def withdrawn(self) -> frozenset[str]:
        """The versions that rollbacks went back from."""
        return lineage(self.shipments).withdrawn

    def records(self) -> tuple[list[Record], list[str]]:
        """Return what is kept, newest decision first, and for each folder that cannot be read why not."""
        found, problems = [], []
        for name in self._names():
            try:
                found.append(self.record(name))
            except (ReleaseError, OSError) as error:
                problems.append(str(error))
        return sorted(found, key=lambda record: -record.number), problems

    def record(self, version: str) -> Record:
        """Return what is known of a kept version.

        Raises:
            FileNotFoundError: it is not kept; the message names those that are.
            ReleaseError: no version, or its record cannot be read or is another's.
        """
        path = self.path(version)
        if not path.is_dir():
            kept = ", ".join(self._names()) or "none"
            raise FileNotFoundError(f"version {version} is not in {path.parent}; kept: {kept}")
        remedy = f"delete {path} unless it is shipped"
        if not (path / RECORD).is_file():
            raise ReleaseError(f"{path / RECORD} is not there; {remedy}")
        found = read_model(path / RECORD, Record, remedy)
        if found.version != version:
            raise ReleaseError(
                f"{path / RECORD}: found version {found.version}, expected {version}; {remedy}"
            )
        return found

    def verified(self, version: str) -> Record:
        """Return what is known of a kept version whose files are those that were kept; errors as of `record`.

        Raises:
            ReleaseError: a file is missing or another.
        """
        record, folder = self.record(version), self.path(version)
        wrong = _first_difference(folder, record.files)
        if wrong is not None:
            raise ReleaseError(
                f"{folder / wrong}: not the file that was kept; put it back, or delete {folder}"
            )
        return record

    def keep(self, candidate: Candidate, source: Path) -> None:
        """Copy a candidate's files into a folder that becomes its version when `decide` has completed it.

        What `keep` has copied but never completed is copied anew.

        Args:
            candidate: that is kept.
            source: folder of its files.

        Raises:
            ReleaseError: a file is missing, or is no longer the one that the candidate was made of.
        """
        draft = self._draft(candidate.version)
        shutil.rmtree(draft, ignore_errors=True)
        for name in sorted(candidate.files):
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, draft / name)
        wrong = _first_difference(draft, candidate.files)
        if wrong is not None:
            raise ReleaseError(f"{source / wrong}: changed while it was copied; materialize release again")

    def decide(self, record: Record, scores: bytes) -> None:
        """Write a decision on a version: with it, and the scores it was made on, a draft becomes a version.

        Args:
            record: with the decision.
            scores: of the version, as a file's content.
        """
        text = record.model_dump_json(indent=2) + "\n"
        path, draft = self.path(record.version), self._draft(record.version)
        if path.is_dir():
            self.keep_scores(record.version, record.decision.test_set, scores)
            write_text(path / RECORD, text)
            return
        target = scores_path(draft, record.decision.test_set)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(scores)
        write_text(draft / RECORD, text)
        draft.rename(path)

    def keep_scores(self, version: str, test_set: str, scores: bytes) -> None:
        """Write the scores of a kept version on a test set, whole or not at all."""
        target = scores_path(self.path(version), test_set)
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            write_bytes(target, scores)

    def scores(self, version: str, test_set: str) -> Path | None:
        """Return the file of a kept version's scores on a test set; None: there is none."""
        path = scores_path(self.path(version), test_set)
        return path if path.is_file() else None

    def ship(
        self, version: str, why: str, by: Literal["release", "rollback"], *, instead_of: str | None
    ) -> None:
        """Make a kept version the shipped one, in one step.

        Args:
            version: whose files are those that were kept.
            why: in a sentence.
            by: who decided.
            instead_of: what is thought to be shipped; None: nothing.

        Raises:
            ReleaseError: another version has been shipped meanwhile; or as of `verified`.
        """
        with self._locked():
            self.verified(version)
            if self.shipped != instead_of:
                raise ReleaseError(
                    f"{self.folder / LINK}: {self.shipped or 'nothing'} is shipped, expected "
                    f"{instead_of or 'nothing'}: it was changed meanwhile; run it again"
                )
            self._swap([*self.shipments, Shipment(version=version, why=why, since=now(), by=by)])

    def restore(self, version: str, why: str) -> str | None:
        """Ship a kept version whatever is shipped now, as a person asks for; return what was shipped before.

        Raises:
            ReleaseError: it is shipped already; or as of `verified`.
        """
        with self._locked():
            self.verified(version)
            lost = self._link_is_lost()
            before = None if lost else self.shipped
            if version == before:
                raise ReleaseError(f"version {version} is shipped already")
            told = self._told() if lost else self.shipments
            self._swap([*told, Shipment(version=version, why=why, since=now(), by="rollback")])
        return before

    def shipped_before(self) -> str | None:
        """Return the version that a rollback goes back to; None: none that is kept was shipped before."""
        earlier = lineage(self.shipments).line[:-1]
        return next((name for name in earlier[::-1] if self.path(name).is_dir()), None)

    def prune(self, keep: int, protected: Sequence[str] = ()) -> list[str]:
        """Delete older versions.

        Args:
            keep: versions kept besides the shipped one, the newest rejected one and those below: first those
                that were shipped before, the latest first, then the newest of the others.
            protected: versions that are kept.

        Returns:
            What was deleted.
        """
        with self._locked():
            gone = self._superfluous(keep, protected)
            for version in gone:
                aside = self._draft(version)
                shutil.rmtree(aside, ignore_errors=True)
                self.path(version).rename(aside)
                shutil.rmtree(aside)
        return gone

    def clean(self) -> None:
        """Delete what a run that was killed has left behind."""
        with self._locked():
            for path in [*self.folder.glob(f"{TEMPORARY}*"), *self.folder.glob(f"versions/{TEMPORARY}*")]:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    def _names(self) -> list[str]:
        folder = self.folder / "versions"
        names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
        return sorted(name for name in names if VERSION.fullmatch(name))

    def _superfluous(self, keep: int, protected: Sequence[str]) -> list[str]:
        records, _ = self.records()
        rejected = [record.version for record in records if not record.decision.released]
        fixed = {self.shipped, *rejected[:1], *protected}
        ranks = {shipment.version: rank for rank, shipment in enumerate(self.shipments)}
        others = sorted(
            (record for record in records if record.version not in fixed),
            key=lambda record: (-ranks.get(record.version, -1), -record.number),
        )
        return [record.version for record in others[keep:]]

    def _told(self) -> tuple[Shipment, ...]:
        path = self.folder / CURRENT
        if not path.exists():
            return ()
        remedy = "delete it: what is shipped stays, what was before is forgotten"
        return read_model(path, Current, remedy).shipments

    def _link_is_lost(self) -> bool:
        link = self.folder / LINK
        return link.is_symlink() and not link.exists()

    def _draft(self, version: str) -> Path:
        path = self.path(version)
        return path.with_name(f"{TEMPORARY}{path.name}")

    def _swap(self, shipments: Sequence[Shipment]) -> None:
        current = Current.of(shipments)
        write_text(self.folder / CURRENT, current.model_dump_json(indent=2) + "\n")
        with atomic_path(self.folder / LINK) as link:
            link.unlink(missing_ok=True)
            link.symlink_to(Path("versions") / current.version, target_is_directory=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # two processes must not ship at once
        with locked(self.folder / ".lock", "changing what is shipped", logging.getLogger(__name__)):
            yield


def states_of(store: ReleaseStore, records: Iterable[Record]) -> dict[str, str]:
    """Return what each kept version is, in a word.

    shipped; withdrawn, by a rollback; earlier: it was shipped before; otherwise released or rejected.
    """
    shipped, withdrawn = store.shipped, store.withdrawn
    once = {shipment.version for shipment in store.shipments}
    found = {}
    for record in records:
        version = record.version
        decided = "released" if record.decision.released else "rejected"
        found[version] = "earlier" if version in once else decided
        if version in withdrawn:
            found[version] = "withdrawn"
        if version == shipped:
            found[version] = "shipped"
    return found


def scores_path(folder: Path, test_set: str) -> Path:
    """Return where a version's folder holds its scores on a test set."""
    return folder / "scores" / f"{test_set[:16]}.parquet"


def _first_difference(folder: Path, files: Mapping[str, str]) -> str | None:
    for name, known in sorted(files.items()):
        if not (folder / name).is_file() or file_digest(folder / name) != known:
            return name
    return None
