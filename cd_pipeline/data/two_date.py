"""The reader of two-date folders: `A/` before, `B/` after, `label/` what changed, files paired by stem.

A data set is `{train,val,test}/{A,B,label}/` (the LEVIR-CD layout), or `{A,B,label}/` divided by
`list/{train,val,test}.txt`, a name a line. Every file is either part of a usable pair or listed with a reason.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cd_pipeline.data.ahead import mapped
from cd_pipeline.data.files import bytes_digest, digest, read_regular
from cd_pipeline.data.images import (
    Image,
    PhotoError,
    decode_label,
    decode_photo,
    read_label,
    read_photo,
    used_bits,
)
from cd_pipeline.data.listing import absent, contents, match_files, one_line, read_names, require_source
from cd_pipeline.data.same_pictures import in_several_splits, with_kept
from cd_pipeline.data.split import SPLITS

PARTS = ("A", "B", "label")
LISTS = "list"


@dataclass(frozen=True, slots=True)
class PairFiles:
    """The three files of a pair; `name` is the stem that they share."""

    name: str
    before: Path
    after: Path
    label: Path

    def read(self) -> tuple[Image, Image, Image]:
        """Read before and after, HWC uint8 RGB, and the label, HW uint8 0 or 255, at their own size.

        Raises:
            FileNotFoundError, ValueError: naming the file.
        """
        before, after, label = read_photo(self.before), read_photo(self.after), read_label(self.label)
        if problem := size_problem(before, after, label):
            raise ValueError(f"{self.before}: {problem}")
        return before, after, label


@dataclass(frozen=True, slots=True)
class PairFolder:
    """All pairs of a folder by name, and each name or file that is not part of one with what is wrong."""

    pairs: list[PairFiles]
    faults: list[tuple[str, str]]

    @property
    def problems(self) -> list[str]:
        """A sentence for each fault."""
        return [f"{one_line(name)}: {reason}" for name, reason in self.faults]


@dataclass(frozen=True, slots=True)
class TwoDatePair:
    """One pair of a data set, as found.

    `before`, `after` and `label` are relative to the root, in POSIX form; the hashes are of their bytes and of
    the decoded pictures. `bits` are those that the
    values of the pictures need, `changed_share` is the share of changed pixels. `reason` says why
    the pair is not used; None: it is.
    """

    name: str
    split: str
    before: str = ""
    after: str = ""
    label: str = ""
    before_sha256: str = ""
    after_sha256: str = ""
    label_sha256: str = ""
    before_pixels_sha256: str = ""
    after_pixels_sha256: str = ""
    width: int = 0
    height: int = 0
    bits: int = 8
    changed_share: float = 0.0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TwoDateInventory:
    """All pairs of a data set, by split and name."""

    pairs: list[TwoDatePair]

    @property
    def version(self) -> str:
        """Content hash; the same for any listing order or file time."""
        return digest(
            *((p.split, p.name, p.before_sha256, p.after_sha256, p.label_sha256) for p in self.pairs)
        )

    @property
    def usable(self) -> list[TwoDatePair]:
        """The pairs that can be used."""
        return [pair for pair in self.pairs if pair.reason is None]

    @property
    def quarantined(self) -> list[TwoDatePair]:
        """What cannot be used, each with its reason."""
        return [pair for pair in self.pairs if pair.reason is not None]


def scan_pair_folder(folder: Path) -> PairFolder:
    """List the pairs of a folder with A/, B/ and label/.

    Raises:
        FileNotFoundError: one of the three is missing.
        ValueError: there is no pair.
    """
    for part in PARTS:
        if not (folder / part).is_dir():
            raise FileNotFoundError(f"{folder / part}: no such folder; pairs lie in A/, B/ and label/")
    matches, faults = match_files(folder, PARTS, truth="label")
    pairs = [
        PairFiles(match.name, *(one for (one,) in match.files)) for match in matches if not match.problem
    ]
    faults += [(match.name, match.problem) for match in matches if match.problem]
    result = PairFolder(pairs, faults)
    if not pairs:
        shown = "; ".join(result.problems[:3])
        raise ValueError(f"{folder}: no file name is in all of A/, B/ and label/; {shown}")
    return result


def scan_two_date(
    root: Path, *, threads: int = 1, progress: Callable[[], object] = lambda: None
) -> TwoDateInventory:
    """Read every pair of a data set.

    Args:
        root: in one of the two layouts.
        threads: pairs decoded at a time; the result does not depend on it.
        progress: called once a pair.

    Raises:
        FileNotFoundError: the folder is missing or has neither layout.
        ValueError: a split has no usable pair.
    """
    candidates = list(_candidates(root))

    def read(candidate: tuple[TwoDatePair, PairFiles | None]) -> TwoDatePair:
        pair, files = candidate
        found = pair if files is None else _read_candidate(pair, files)
        progress()
        return found

    inventory = TwoDateInventory(_without_duplicates(list(mapped(read, candidates, threads))))
    counts = {split: sum(pair.split == split for pair in inventory.usable) for split in SPLITS}
    if not all(counts.values()):
        shown = ", ".join(f"{split} {count}" for split, count in counts.items())
        faults = "; ".join(f"{p.split}/{one_line(p.name)}: {p.reason}" for p in inventory.quarantined[:3])
        raise ValueError(f"{root}: every part needs a usable pair, found {shown}; {faults or 'add pairs'}")
    return inventory


def size_problem(before: Image, after: Image, label: Image) -> str:
    """Return what is wrong with the sizes of a pair; "" if nothing is."""
    if before.shape[:2] == after.shape[:2] == label.shape:
        return ""
    found = ", ".join(f"{part.shape[1]}x{part.shape[0]}" for part in (before, after, label))
    return f"A, B and label must be of one size, found {found}"


def leaking_pictures(pairs: Sequence[TwoDatePair]) -> list[list[str]]:
    """Return the files of every usable picture, before or after, that is in two splits or more."""
    return in_several_splits(
        (pixels, pair.split, path)
        for pair in pairs
        if pair.reason is None
        for pixels, path in (
            (pair.before_pixels_sha256, pair.before),
            (pair.after_pixels_sha256, pair.after),
        )
    )


def _candidates(root: Path) -> Iterator[tuple[TwoDatePair, PairFiles | None]]:
    require_source(root, "pairs")
    flat = all((root / part).is_dir() for part in PARTS)
    if not flat and not all((root / split).is_dir() for split in SPLITS):
        raise FileNotFoundError(
            f"{root}: found {contents(root)}; expected train/, val/ and test/, each with A/, B/ and label/, "
            "or A/, B/, label/ and list/{train,val,test}.txt"
        )
    whole = scan_pair_folder(root) if flat else None
    listed_anywhere: set[str] = set()
    for split in SPLITS:
        folder = whole or scan_pair_folder(root / split)
        listed = _listed(root, split, required=flat)
        listed_anywhere |= set(listed or ())
        for name, files, reason in _of_split(folder, listed):
            yield _row(root, split, name, files, reason), files if reason is None else None
        if whole is None and listed is not None:
            yield from _unlisted(folder, split, set(listed), f"not in {LISTS}/{split}.txt")
    if whole is not None:
        yield from _unlisted(whole, "", listed_anywhere, f"in no file of {LISTS}/")


def _unlisted(
    folder: PairFolder, split: str, listed: set[str], reason: str
) -> Iterator[tuple[TwoDatePair, None]]:
    faults = dict(folder.faults)
    for name in sorted({*(files.name for files in folder.pairs), *faults} - listed):
        yield TwoDatePair(name, split, reason=faults.get(name, reason)), None


def _of_split(
    folder: PairFolder, listed: Sequence[str] | None
) -> Iterator[tuple[str, PairFiles | None, str | None]]:
    files, faults = {pair.name: pair for pair in folder.pairs}, dict(folder.faults)
    for name in sorted({*files, *faults} if listed is None else set(listed)):
        missing = faults.get(name, absent(PARTS))
        yield name, files.get(name), None if name in files else missing


def _listed(root: Path, split: str, *, required: bool) -> list[str] | None:
    path = root / LISTS / f"{split}.txt"
    names = read_names(path)
    if names is None and required:
        raise FileNotFoundError(f"{path}: no such file; it lists the pairs of {split}, a name a line")
    return names


def _row(root: Path, split: str, name: str, files: PairFiles | None, reason: str | None) -> TwoDatePair:
    if files is None:
        return TwoDatePair(name, split, reason=reason)
    before, after, label = (
        path.relative_to(root).as_posix() for path in (files.before, files.after, files.label)
    )
    return TwoDatePair(name, split, before, after, label, reason=reason)


def _read_candidate(pair: TwoDatePair, files: PairFiles) -> TwoDatePair:
    try:
        contents = [read_regular(path) for path in (files.before, files.after, files.label)]
    except OSError as error:
        return replace(pair, reason=f"{one_line(str(error.filename))}: cannot be read: {error.strerror}")
    hashes = [bytes_digest(content) for content in contents]
    pair = replace(pair, before_sha256=hashes[0], after_sha256=hashes[1], label_sha256=hashes[2])
    decoded = []
    for part, decode, content in zip(
        PARTS, (decode_photo, decode_photo, decode_label), contents, strict=True
    ):
        try:
            decoded.append(decode(content))
        except PhotoError as error:
            return replace(pair, reason=f"{part}: {error}")
    before, after, label = decoded
    return replace(
        pair,
        width=before.shape[1],
        height=before.shape[0],
        before_pixels_sha256=digest(before.shape, before.tobytes()),
        after_pixels_sha256=digest(after.shape, after.tobytes()),
        bits=max(map(used_bits, contents[:2])),
        changed_share=float(np.count_nonzero(label) / label.size),
        reason=size_problem(before, after, label) or None,
    )


def _without_duplicates(pairs: Sequence[TwoDatePair]) -> list[TwoDatePair]:
    result = (
        pair if kept is pair else replace(pair, reason=f"same pictures as {kept.split}/{one_line(kept.name)}")
        for pair, kept in with_kept(pairs, _pictures, lambda pair: (pair.name,))
    )
    return sorted(result, key=lambda pair: (pair.split, pair.name))


def _pictures(pair: TwoDatePair) -> frozenset[str]:
    # in either order: exchanged dates are the same pair
    return frozenset((pair.before_pixels_sha256, pair.after_pixels_sha256))
