"""One at a time; the kernel lets the next one in when the holder dies."""

import errno
import fcntl
import logging
import os
from pathlib import Path

import pytest

from cd_pipeline.data.file_lock import locked

LOG = logging.getLogger("test_file_lock")


def test_two_holders_wait_for_each_other_and_the_second_is_told_of_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    path, waited = tmp_path / "new" / "lock", []
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX:  # a wait that would not end in one thread
            waited.append(descriptor)
            raise TimeoutError
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(path, "making one", LOG) as held:
        assert held
        with pytest.raises(TimeoutError), locked(path, "making two", LOG):
            raise AssertionError("two hold it")
    assert waited
    assert caplog.messages == [f"another run is making one (process {os.getpid()}); waiting"]
    with locked(path, "making three", LOG) as held:
        assert held
    assert path.read_text() == ""


def test_an_error_in_the_block_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock", "dividing", LOG):
        raise ZeroDivisionError
    with (tmp_path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_filesystem_without_locks_is_told_of_and_work_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "lock", "working", LOG) as held:
        assert not held
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path / 'lock'}: this filesystem has no locks")


@pytest.mark.parametrize("there", [True, False])
def test_what_may_not_be_written_can_still_be_locked_if_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    path, real = tmp_path / "lock", os.open
    if there:
        path.touch()

    def read_only(name: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(name))
        return real(name, flags, mode)

    monkeypatch.setattr(os, "open", read_only)
    with locked(path, "reading", LOG) as held:
        assert held is there
