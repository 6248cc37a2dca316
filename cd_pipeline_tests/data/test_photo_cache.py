import errno
import logging
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cd_pipeline.data import photo_cache as module
from cd_pipeline.data.photo_cache import PhotoCache

Pixels = npt.NDArray[np.uint8]
PHOTO: Pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def never() -> NoReturn:
    raise AssertionError("made again")


def photo(number: int, side: int = 300) -> Pixels:
    """A photo of 270,000 bytes."""
    return np.full((side, side, 3), number, np.uint8)


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def in_a_child(program: str, folder: Path) -> str:
    """Run a program, which finds the folder's path in sys.argv[1], and return what it prints."""
    told = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    return told.stdout + told.stderr


@pytest.mark.parametrize("array", [PHOTO, PHOTO[..., 0], PHOTO[:, ::-1], PHOTO[5:9, 7:8]])
def test_what_was_made_once_is_read_by_others(tmp_path: Path, array: Pixels) -> None:
    np.testing.assert_array_equal(PhotoCache(tmp_path).array("a", array.copy), array)
    found = PhotoCache(tmp_path).array("a", never)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array)


def test_it_is_read_by_another_process(tmp_path: Path) -> None:
    PhotoCache(tmp_path).array("a", lambda: PHOTO)
    program = (
        "import sys; from pathlib import Path; from cd_pipeline.data.photo_cache import PhotoCache\n"
        "print(PhotoCache(Path(sys.argv[1])).array('a', lambda: 1 / 0).astype(int).sum())"
    )
    assert int(in_a_child(program, tmp_path)) == PHOTO.astype(int).sum()


def test_names_and_versions_of_opencv_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PhotoCache(tmp_path)
    for name in ("a", "b"):
        cache.array(name, lambda: photo(ord(name)))  # noqa: B023 - called at once
    assert [int(cache.array(name, never)[0, 0, 0]) for name in ("a", "b")] == [97, 98]
    monkeypatch.setattr(module.cv2, "__version__", "99.0")
    assert cache.array("a", lambda: photo(1))[0, 0, 0] == 1


def test_what_is_returned_cannot_be_written_to(tmp_path: Path) -> None:
    for _ in range(2):
        found = PhotoCache(tmp_path).array("a", PHOTO.copy)
        with pytest.raises(ValueError, match="read-only"):
            found[0, 0] = 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_with_any_byte_changed_is_made_anew(tmp_path: Path, data: st.DataObject) -> None:
    cache = PhotoCache(tmp_path)
    cache.array("a", lambda: PHOTO)
    path = only_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    np.testing.assert_array_equal(cache.array("a", PHOTO.copy), PHOTO)
    np.testing.assert_array_equal(cache.array("a", never), PHOTO)


@pytest.mark.parametrize("size", [0, 1, 4, 5, 100, 128, 7327, -1])
def test_a_file_that_is_cut_short_or_longer_is_made_anew(tmp_path: Path, size: int) -> None:
    cache = PhotoCache(tmp_path)
    cache.array("a", lambda: PHOTO)
    path = only_file(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content + b"0" if size < 0 else content[:size])
    np.testing.assert_array_equal(cache.array("a", PHOTO.copy), PHOTO)
    assert path.read_bytes() == content


DAYS_AGO = 3 * 24 * 3600


def age(folder: Path, seconds: float = DAYS_AGO) -> None:
    """Let each file have been opened so much earlier."""
    for path in folder.iterdir():
        opened = path.stat().st_mtime - seconds
        os.utime(path, (opened, opened))


def test_no_more_than_its_capacity_is_kept_and_of_days_ago_the_least_recently_read_goes_first(
    tmp_path: Path,
) -> None:
    capacity = 10 * 270_000
    cache = PhotoCache(tmp_path, capacity)
    for number in range(9):
        cache.array(str(number), lambda: photo(number))  # noqa: B023 - called at once
        age(tmp_path)
    cache.array("0", never)  # the oldest, but in use
    for number in range(9, 14):
        cache.array(str(number), lambda: photo(number))  # noqa: B023 - called at once
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= capacity
    cache.array("0", never)
    cache.array("13", never)
    assert cache.array("1", lambda: photo(99))[0, 0, 0] == 99


def test_of_more_photos_than_fit_the_share_that_fits_is_read_in_every_random_order(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    made = []
    for epoch in range(4):
        cache = PhotoCache(tmp_path, 12 * 270_000)  # as in a new process
        for number in random.permutation(40):
            found = cache.array(str(number), lambda: made.append(epoch) or photo(number))  # noqa: B023
            assert (found == number).all()
        if epoch == 0:
            first = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    assert 10 <= len(first) <= 12
    assert [made.count(epoch) for epoch in range(4)] == [40] + 3 * [40 - len(first)]
    assert {path: path.stat().st_ino for path in tmp_path.iterdir()} == first  # nothing was written any more


def test_a_full_folder_is_listed_once_in_ten_minutes_and_then_used_where_room_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, scandir, now = [], os.scandir, time.time()
    monkeypatch.setattr(module.os, "scandir", lambda path: listed.append(path) or scandir(path))
    cache = PhotoCache(tmp_path, 3 * 270_000)
    for number in range(30):
        cache.array(str(number), lambda: photo(number))  # noqa: B023 - called at once
    assert len(listed) <= 4  # one for each that was kept, and one that found the folder full
    age(tmp_path)
    monkeypatch.setattr(module.time, "time", lambda: now + 700)
    cache.array("new", lambda: photo(1))
    cache.array("new", never)


def test_when_others_fill_the_disk_recent_photos_give_their_room_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        PhotoCache(tmp_path).array(str(number), lambda: photo(number))  # noqa: B023 - called at once
    monkeypatch.setattr(module.os, "statvfs", lambda _: SimpleNamespace(f_bavail=0, f_frsize=4096))
    PhotoCache(tmp_path).array("new", lambda: photo(1))
    assert len(list(tmp_path.iterdir())) == 5


def test_an_array_larger_than_the_capacity_costs_no_other_its_place(tmp_path: Path) -> None:
    cache = PhotoCache(tmp_path, 4 * 270_000)
    for number in range(3):
        cache.array(str(number), lambda: photo(number))  # noqa: B023 - called at once
    age(tmp_path)
    assert cache.array("large", lambda: photo(5, 700)).shape == (700, 700, 3)
    for number in range(3):
        cache.array(str(number), never)
    assert len(list(tmp_path.iterdir())) == 3


def test_hundreds_of_arrays_are_held_where_a_process_may_open_sixty_four_files(tmp_path: Path) -> None:
    program = """
import resource, sys
from pathlib import Path
import numpy as np
from cd_pipeline.data.photo_cache import PhotoCache
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
made = []
def make():
    made.append(1)
    return np.full((160, 160, 3), len(made), np.uint8)
for _ in range(2):
    cache = PhotoCache(Path(sys.argv[1]))
    held = [cache.array(str(number), make) for number in range(200)]
print(len(made), all((array == number + 1).all() for number, array in enumerate(held)))
"""
    assert in_a_child(program, tmp_path) == "200 True\n"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system lists no mappings")
def test_only_arrays_of_64_kib_and_more_take_a_mapping_of_which_a_process_has_few(tmp_path: Path) -> None:
    cache, sides = PhotoCache(tmp_path), {"small": 100, "large": 160}
    for name, side in sides.items():
        cache.array(name, lambda: photo(7, side))  # noqa: B023 - called at once
    held = {name: cache.array(name, never) for name in sides}
    assert Path("/proc/self/maps").read_text().count(str(tmp_path)) == 1
    for name, side in sides.items():
        np.testing.assert_array_equal(held[name], photo(7, side))


def test_an_array_that_is_deleted_while_it_is_read_stays_readable(tmp_path: Path) -> None:
    PhotoCache(tmp_path).array("a", lambda: PHOTO)
    found = PhotoCache(tmp_path).array("a", never)
    only_file(tmp_path).unlink()
    np.testing.assert_array_equal(found, PHOTO)


def test_what_killed_processes_had_begun_is_deleted_later(tmp_path: Path) -> None:
    for name, age in ((".tmp-1-old.npy", 4000), (".tmp-1-new.npy", 10)):
        (tmp_path / name).write_bytes(b"begun")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    PhotoCache(tmp_path).array("a", lambda: PHOTO)
    assert [path.name for path in tmp_path.glob(".tmp*")] == [".tmp-1-new.npy"]


def test_threads_that_make_the_same_photo_at_once_leave_it_whole(tmp_path: Path) -> None:
    cache = PhotoCache(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(
            lambda number: cache.array(str(number % 3), lambda: photo(number % 3)), range(48)
        ):
            assert found.shape == (300, 300, 3)
    for number in range(3):
        np.testing.assert_array_equal(cache.array(str(number), never), photo(number))


def refusing(fault: int) -> Callable[..., NoReturn]:
    def refuse(path: Path | bytes) -> NoReturn:
        raise OSError(fault, os.strerror(fault), os.fsdecode(path))

    return refuse


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        (errno.ENOSPC, "make room there"),
        (errno.EROFS, "make it writable"),
        (errno.EACCES, "let this user read and write it"),
        (errno.EMFILE, "let a process open more files (ulimit -n)"),
        (errno.EIO, "check it"),
        (errno.ENXIO, "check it and its disk"),
    ],
)
def test_a_disk_that_takes_nothing_costs_time_and_one_warning_with_the_remedy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: int,
    remedy: str,
) -> None:
    monkeypatch.setattr(module, "atomic_path", refusing(fault))
    cache = PhotoCache(tmp_path / "cache")
    with caplog.at_level(logging.WARNING, logger="cd_pipeline"):
        for number in range(3):
            np.testing.assert_array_equal(cache.array(str(number), lambda: PHOTO), PHOTO)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{tmp_path / 'cache'}: ")
    assert f"{os.strerror(fault)}; {remedy}" in caplog.messages[0]


def test_what_is_there_is_read_although_the_disk_takes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    PhotoCache(tmp_path).array("a", lambda: PHOTO)
    for name in ("atomic_path", "os.utime"):
        monkeypatch.setattr(f"{module.__name__}.{name}", refusing(errno.EROFS))
    cache = PhotoCache(tmp_path)
    cache.array("b", lambda: PHOTO)
    for _ in range(2):
        np.testing.assert_array_equal(cache.array("a", never), PHOTO)
    assert len(caplog.messages) == 1


def test_a_disk_that_cannot_be_read_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[bytes] = []

    def refuse(path: bytes) -> NoReturn:
        tried.append(path)
        refusing(errno.EIO)(path)

    PhotoCache(tmp_path).array("a", lambda: photo(1))
    monkeypatch.setattr(module.pa, "memory_map", refuse)
    cache = PhotoCache(tmp_path)
    for _ in range(3):
        np.testing.assert_array_equal(cache.array("a", lambda: photo(1)), photo(1))
    assert len(tried) == len(caplog.messages) == 1
    assert f"{os.strerror(errno.EIO)}; check it" in caplog.messages[0]


def test_a_file_where_the_folder_should_be_costs_time_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("")
    cache = PhotoCache(tmp_path / "cache")
    for _ in range(2):
        np.testing.assert_array_equal(cache.array("a", lambda: PHOTO), PHOTO)
    assert [message.split("; ")[1] for message in caplog.messages] == ["delete the file that is in its place"]


def test_a_photo_that_cannot_be_made_is_told_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="made again"):
        PhotoCache(tmp_path).array("a", never)
    np.testing.assert_array_equal(PhotoCache(tmp_path).array("a", lambda: PHOTO), PHOTO)


def test_a_copy_in_another_process_reads_the_same_files(tmp_path: Path) -> None:
    cache = PhotoCache(tmp_path)
    cache.array("a", lambda: PHOTO)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache)).array("a", never), PHOTO)
