import errno
import logging
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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
    told = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(told.stdout) == PHOTO.astype(int).sum()


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


def test_no_more_than_its_capacity_is_kept_and_the_least_recently_read_goes_first(tmp_path: Path) -> None:
    capacity = 10 * 270_000
    cache = PhotoCache(tmp_path, capacity)
    long_ago = time.time() - 1000
    for number in range(9):
        cache.array(str(number), lambda: photo(number))  # noqa: B023 - called at once
        for path in tmp_path.iterdir():
            os.utime(path, (long_ago, path.stat().st_mtime - 10))
    cache.array("0", never)  # the oldest, but in use
    for number in range(9, 14):
        cache.array(str(number), lambda: photo(number))  # noqa: B023 - called at once
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= capacity
    cache.array("0", never)
    cache.array("13", never)
    assert cache.array("1", lambda: photo(99))[0, 0, 0] == 99


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


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing_costs_time_and_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: int
) -> None:
    def refuse(path: Path) -> NoReturn:
        raise OSError(fault, os.strerror(fault), str(path))

    monkeypatch.setattr(module, "atomic_path", refuse)
    cache = PhotoCache(tmp_path / "cache")
    with caplog.at_level(logging.WARNING, logger="cd_pipeline"):
        for number in range(3):
            np.testing.assert_array_equal(cache.array(str(number), lambda: PHOTO), PHOTO)
    assert len(caplog.messages) == 1
    assert os.strerror(fault) in caplog.messages[0]
    assert str(tmp_path / "cache") in caplog.messages[0]


def test_a_file_where_the_folder_should_be_costs_no_more(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    np.testing.assert_array_equal(PhotoCache(tmp_path / "cache").array("a", lambda: PHOTO), PHOTO)


def test_a_photo_that_cannot_be_made_is_told_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="made again"):
        PhotoCache(tmp_path).array("a", never)
    np.testing.assert_array_equal(PhotoCache(tmp_path).array("a", lambda: PHOTO), PHOTO)


def test_a_copy_in_another_process_reads_the_same_files(tmp_path: Path) -> None:
    cache = PhotoCache(tmp_path)
    cache.array("a", lambda: PHOTO)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache)).array("a", never), PHOTO)
