"""What the readers of folders of pictures share: which files count, how they are matched, and what lists say.

Files of one name in several folders belong together, whatever their formats. Names are compared composed.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from mimetypes import guess_type
from pathlib import Path

from cd_pipeline.data.files import MAX_TEXT_BYTES, read_regular
from cd_pipeline.data.images import PICTURE_SUFFIXES

LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg", ".webp"})
"""Not for labels: compression leaves values above 0 around every edge."""
MAX_DEPTH = 16
"""Folders in folders that are looked into, to name what lies too deep."""
UNSEEN = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
"""Unicode categories of controls, marks of direction, private and half characters, and line separators."""


@dataclass(frozen=True, slots=True)
class Match:
    """The files of one stem, those of each folder; `problem` says why they are not one of each, "" if they are."""

    name: str
    files: tuple[list[Path], ...]
    problem: str


def match_files(
    folder: Path, parts: Sequence[str], *, truth: str
) -> tuple[list[Match], list[tuple[str, str]]]:
    """Match the pictures of some folders by stem.

    Args:
        folder: holds the parts.
        parts: names of its folders; one that is missing is empty.
        truth: what the pictures of the last part are called, which must not be compressed with loss.

    Returns:
        The matches by name, and each file that is not looked at, as `part/file`, with what is wrong.
    """
    faults: list[tuple[str, str]] = []
    found = [_by_stem(folder / part, faults, truth if part == parts[-1] else "") for part in parts]
    matches = []
    for name in sorted(set().union(*found)):
        files = tuple(of_part.get(name, []) for of_part in found)
        matches.append(Match(name, files, _problem(parts, files)))
    return matches, faults


def read_names(path: Path) -> list[str] | None:
    """Return the names in a list, one a line, without the suffixes of pictures; None if there is no list.

    Raises:
        ValueError: it is not UTF-8, or cannot be read.
    """
    if not path.is_file():
        return None
    try:
        names = [line.strip() for line in read_regular(path, MAX_TEXT_BYTES).decode("utf-8-sig").splitlines()]
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8; save it as UTF-8 text") from None
    return [
        composed(str(Path(name).with_suffix("")) if Path(name).suffix.lower() in PICTURE_SUFFIXES else name)
        for name in names
        if name
    ]


def absent(parts: Sequence[str]) -> str:
    """Say that a name is in a list, and in none of the folders."""
    return f"listed, but there is no such file in {', '.join(parts)}"


def require_source(root: Path, kind: str) -> None:
    """Raise FileNotFoundError, naming what the source holds, if its folder is missing."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; set the recipe's source folder to your {kind}")


def contents(folder: Path) -> str:
    """Name what is in a folder, for a message about what is not: up to 8 of it."""
    return ", ".join(one_line(path.name) for path in sorted(folder.iterdir())[:8]) or "nothing"


def folders_in(folder: Path) -> list[Path]:
    """Return the folders directly in a folder, by name, without hidden ones; none if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def visible_files(folder: Path) -> list[Path]:
    """Return what is in a folder at any depth, sorted, hidden files and folders left out.

    Links to folders are followed where they lie directly in the folder, but not one that leads back up: deeper
    ones could double the paths at every level. Folders that are not looked into, or cannot be, stand for
    themselves. A folder that is not there holds nothing.
    """
    return sorted(_walk(folder)) if folder.is_dir() else []


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:
        return
    try:
        entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:
        yield folder
        return
    for path in entries:
        if is_folder(path) and not _leads_too_far(path, above):
            yield from _walk(path, (*above, real))
        else:
            yield path


def _leads_too_far(folder: Path, above: tuple[Path, ...]) -> bool:
    linked_below = bool(above) and folder.is_symlink() and folder.resolve() not in above
    return linked_below or len(above) >= MAX_DEPTH


def is_folder(path: Path) -> bool:
    """Tell whether a path leads to a folder; no, if that cannot be seen."""
    try:
        return path.is_dir()
    except OSError:  # a folder above it may be listed, and not be entered
        return False


def printable(name: str) -> str:
    """Return a file name as text that can be stored, whatever its bytes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def one_line(name: str) -> str:
    """Return a file name for a message: line ends and what else does not show are escaped."""
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in UNSEEN else char
        for char in printable(name)
    )


def composed(name: str) -> str:
    """Return a name in one form: file systems store accents and Hangul composed or decomposed."""
    return unicodedata.normalize("NFC", name)


def _by_stem(folder: Path, faults: list[tuple[str, str]], truth: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    try:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        faults.append((folder.name, f"a folder that cannot be read: {error.strerror}"))
        return found
    for path in paths:
        if path.name.startswith("."):
            continue
        if fault := _file_fault(path, truth):
            faults.append((printable(f"{folder.name}/{path.name}"), fault))
        elif path.suffix.lower() in PICTURE_SUFFIXES:
            found[composed(path.stem)].append(path)
    return found


def _file_fault(path: Path, truth: str) -> str:
    suffix = path.suffix.lower()
    if printable(path.name) != path.name:
        return "the file name is not UTF-8; rename it"
    if path.is_dir():
        return f"a folder; pictures must lie directly in {path.parent.name}/"
    if suffix in PICTURE_SUFFIXES:
        lossy = truth and suffix in LOSSY_SUFFIXES
        return f"a {truth} must not be compressed with loss; save it as PNG" if lossy else ""
    if (guess_type(path.name)[0] or "").startswith("image/"):
        return f"not read; expected one of {', '.join(sorted(PICTURE_SUFFIXES))}"
    return ""


def _problem(parts: Sequence[str], files: Sequence[Sequence[Path]]) -> str:
    of_parts = list(zip(parts, files, strict=True))
    if missing := [part for part, paths in of_parts if not paths]:
        return f"not in {', '.join(missing)}"
    twice = [
        f"{part}: {', '.join(one_line(path.name) for path in paths)}"
        for part, paths in of_parts
        if len(paths) > 1
    ]
    return f"more than one file in {'; '.join(twice)}" if twice else ""
