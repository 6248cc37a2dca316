"""The reader of two-date folders: `A/` before, `B/` after, `label/` what changed, files paired by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from mimetypes import guess_type
from pathlib import Path

import numpy as np

from cd_pipeline.data.images import PHOTO_SUFFIXES, read_mask, read_photo
from cd_pipeline.data.pairs import PairArrays

PARTS = ("A", "B", "label")
LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg", ".webp"})
"""Not for labels: compression leaves values above 0 around every edge."""


@dataclass(frozen=True, slots=True)
class PairFiles:
    """The three files of a pair; `name` is the stem that they share."""

    name: str
    before: Path
    after: Path
    label: Path

    def read(self) -> PairArrays:
        """Read the pair at its own size; any label value above 0 is change.

        Raises:
            FileNotFoundError, ValueError: naming the file.
        """
        before, after = read_photo(self.before), read_photo(self.after)
        label = read_mask(self.label, remedy="put a readable PNG there")
        if not before.shape[:2] == after.shape[:2] == label.shape:
            found = ", ".join(f"{p.shape[1]}x{p.shape[0]}" for p in (before, after, label))
            raise ValueError(f"{self.before}: A, B and label must be of one size, found {found}")
        return PairArrays(before, after, np.where(label > 0, np.uint8(255), np.uint8(0)))


@dataclass(frozen=True, slots=True)
class PairFolder:
    """All pairs of a folder by name, and a sentence for each file that belongs to none."""

    pairs: list[PairFiles]
    problems: list[str]


def scan_pair_folder(folder: Path) -> PairFolder:
    """List the pairs of a folder with A/, B/ and label/.

    Raises:
        FileNotFoundError: one of the three is missing.
        ValueError: there is no pair.
    """
    problems: list[str] = []
    found = {part: _by_stem(folder / part, problems) for part in PARTS}
    names = sorted(set().union(*found.values()))
    pairs = []
    for name in names:
        problem = _problem(name, found)
        if problem:
            problems.append(problem)
        else:
            before, after, label = (found[part][name][0] for part in PARTS)
            pairs.append(PairFiles(name, before, after, label))
    if not pairs:
        raise ValueError(f"{folder}: no file name is in all of A/, B/ and label/; {'; '.join(problems[:3])}")
    return PairFolder(pairs, problems)


def _by_stem(folder: Path, problems: list[str]) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; real pairs lie in A/, B/ and label/")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        if path.name.startswith("."):
            continue
        if suffix not in PHOTO_SUFFIXES:
            if (guess_type(path)[0] or "").startswith("image/"):
                problems.append(f"{path}: not read; expected one of {', '.join(sorted(PHOTO_SUFFIXES))}")
        elif folder.name == "label" and suffix in LOSSY_SUFFIXES:
            problems.append(f"{path}: a label must not be compressed with loss; save it as PNG")
        else:
            found.setdefault(path.stem, []).append(path)
    return found


def _problem(name: str, found: Mapping[str, Mapping[str, list[Path]]]) -> str:
    missing = [part for part in PARTS if name not in found[part]]
    twice = [part for part in PARTS if len(found[part].get(name, ())) > 1]
    if missing:
        return f"{name}: not in {', '.join(missing)}"
    return f"{name}: more than one file in {', '.join(twice)}" if twice else ""
