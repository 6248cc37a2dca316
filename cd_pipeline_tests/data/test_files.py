import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cd_pipeline.data.files import (
    atomic_path,
    digest,
    disk_fault,
    file_digest,
    keep_only,
    read_regular,
    read_sealed,
    seed_of,
    write_bytes,
    write_sealed,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "table.parquet"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_file_is_not_seen_before_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "model.pt"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"weights")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.suffix == ".pt"
        assert temporary.name.startswith(".")
    assert target.read_bytes() == b"weights"
    assert list(target.parent.iterdir()) == [target]


def test_two_that_write_one_file_at_once_do_not_meet_and_the_last_to_end_wins(tmp_path: Path) -> None:
    target = tmp_path / "model.pt"
    with atomic_path(target) as first:  # two machines may have the same process number, as these two have
        first.write_bytes(b"first")
        with atomic_path(target) as second:
            second.write_bytes(b"second")
        assert target.read_bytes() == b"second"
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("payload", [b"", b"weights", b"\nline ends\r\n\n"])
def test_a_sealed_file_begins_with_its_kind_and_the_hash_of_the_rest(tmp_path: Path, payload: bytes) -> None:
    write_sealed(tmp_path / "a.pt", b"weights 1 ", payload)
    seal = hashlib.sha256(payload).hexdigest().encode()
    assert (tmp_path / "a.pt").read_bytes() == b"weights 1 " + seal + b"\n" + payload
    assert read_sealed(tmp_path / "a.pt", b"weights 1 ") == payload


def test_a_sealed_file_of_another_kind_or_with_any_byte_changed_or_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    write_sealed(path, b"weights 1 ", b"all\nof it")
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="does not begin with 'weights 2'"):
        read_sealed(path, b"weights 2 ")
    others = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(len(whole))]
    for content in (*others, *(whole[:length] for length in range(len(whole))), whole + b"x"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"does not begin with 'weights 1'|damaged or cut short"):
            read_sealed(path, b"weights 1 ")


def test_text_is_written_as_utf8_without_changing_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "방 1\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xeb\xb0\xa9 1\n"


def test_keep_only_deletes_other_files_but_no_folders_and_of_hidden_ones_the_unfinished(
    tmp_path: Path,
) -> None:
    for name in ("kept.png", "old.png", "inner/old.png", ".receipt.json", ".tmp-1.png"):
        write_bytes(tmp_path / name, b"x")
    keep_only(tmp_path, {"kept.png", "absent.png"})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".receipt.json", "inner", "kept.png"]
    assert (tmp_path / "inner" / "old.png").exists()


def test_keep_only_accepts_a_folder_that_is_not_there(tmp_path: Path) -> None:
    keep_only(tmp_path / "none", set())
    assert not (tmp_path / "none").exists()


texts = st.lists(st.one_of(st.text(max_size=3), st.binary(max_size=3)), max_size=4)


def as_bytes(parts: list[str | bytes]) -> list[bytes]:
    return [part if isinstance(part, bytes) else part.encode() for part in parts]


@given(texts, texts)
def test_digests_are_equal_only_for_equal_parts(left: list[str | bytes], right: list[str | bytes]) -> None:
    assert (digest(*left) == digest(*right)) == (as_bytes(left) == as_bytes(right))


def test_digest_does_not_depend_on_where_parts_could_be_cut() -> None:
    assert len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("abc", "")}) == 4


@given(st.lists(st.integers(), max_size=3))
def test_seeds_fit_a_signed_64_bit_column(parts: list[int]) -> None:
    assert 0 <= seed_of(*parts) < 2**63
    assert seed_of(*parts) == seed_of(*parts)


def test_seeds_of_neighbouring_epochs_differ() -> None:
    assert len({seed_of(42, "epoch", epoch) for epoch in range(1000)}) == 1000


def test_file_digest_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert file_digest(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_what_is_no_regular_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless", "."):
        with pytest.raises(OSError, match="no regular file, but a folder, a pipe or a device"):
            read_regular(tmp_path / name)


def test_a_file_of_more_bytes_than_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_regular(path, limit=5) == b"12345"
    with pytest.raises(OSError, match="5 bytes, at most 4 are read"):
        read_regular(path, limit=4)
    with path.open("wb") as stream:
        stream.truncate(1 << 40)  # takes no space
    with pytest.raises(OSError, match="1099511627776 bytes, at most 4294967296 are read"):
        read_regular(path)


def test_a_fault_of_the_disk_is_one_line_with_file_disk_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model.pt"
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError) as raised, atomic_path(path):
        raise full
    told = disk_fault(raised.value)
    assert told is not None and told.startswith(f"{path}: the disk mounted at /")
    assert " is full, " in told and told.endswith("make room there and run again")
    copying = shutil.Error(
        [("from", str(path), f"[Errno 28] {os.strerror(errno.ENOSPC)}: 'from' -> '{path}'")]
    )
    assert (disk_fault(copying) or "").startswith(f"{path}: the disk mounted at /")
    assert disk_fault(FileNotFoundError(errno.ENOENT, "no such file", str(path))) is None
