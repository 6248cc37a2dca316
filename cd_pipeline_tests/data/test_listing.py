"""Names of files in messages: one line that can be stored, whatever the name."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cd_pipeline.data.listing import contents, folders_in, match_files, one_line, read_names
from cd_pipeline.data.photos import find_trees

file_names = st.binary(max_size=40).map(os.fsdecode)


@given(file_names)
def test_any_name_becomes_one_line_that_can_be_stored(name: str) -> None:
    shown = one_line(name)
    assert len(shown.splitlines()) <= 1
    assert shown.encode().decode() == shown
    assert one_line(shown) == shown


@pytest.mark.parametrize("name", ["방 사진 (1).jpg", "a b.png", "é.png", "日本.tif", "😀.png", "a\\b"])
def test_a_name_that_can_be_read_stays_as_it_is(name: str) -> None:
    assert one_line(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\nb", r"a\nb"), ("\x1b[31m", r"\x1b[31m"), ("\u202egpj", r"\u202egpj"), ("\udcffa", r"\xffa")],
)
def test_what_does_not_show_is_escaped(name: str, shown: str) -> None:
    assert one_line(name) == shown


def test_a_message_about_a_wrong_layout_is_one_line_whatever_lies_there(tmp_path: Path) -> None:
    (tmp_path / "a\nb").mkdir()
    try:
        (tmp_path / os.fsdecode(b"\xff")).mkdir()
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    assert contents(tmp_path) == r"a\nb, \xff"
    with pytest.raises(FileNotFoundError, match=r"found a\\nb, \\xff; expected images/<class>/"):
        find_trees(tmp_path)


def unlistable(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    # the owner of all files may list everything, so permissions alone would not show it
    listed = Path.iterdir

    def refuse(path: Path) -> object:
        if path == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)


def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.png").write_bytes(b"x")
    unlistable(monkeypatch, tmp_path / "masks")
    matches, faults = match_files(tmp_path, ("images", "masks"), truth="mask")
    assert [(match.name, match.problem) for match in matches] == [("a", "not in masks")]
    assert faults == [("masks", "a folder that cannot be read: Permission denied")]
    assert folders_in(tmp_path / "masks") == []


def test_a_list_of_gigabytes_is_an_error_that_names_it(tmp_path: Path) -> None:
    with (tmp_path / "train.txt").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(
        ValueError, match=r"train\.txt: cannot be read: 1099511627776 bytes, at most 16777216"
    ):
        read_names(tmp_path / "train.txt")
