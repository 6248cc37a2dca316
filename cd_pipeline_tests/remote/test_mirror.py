"""Raw folders and releases, which are told by listing."""

import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cd_pipeline.data.layouts import inner_folders, layout_depth, reader_folders
from cd_pipeline.remote.errors import StoreError
from cd_pipeline.remote.mirror import Mirrored, fetch_listed, mirror_parts, push_listed
from cd_pipeline.remote.object_folder import ObjectFolder
from cd_pipeline_tests.stores import Store

LOG = logging.getLogger(__name__)


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def inodes(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_ino for name in files(folder)}


def fetch(local: Path, address: str = "s3://bucket/p") -> Mirrored:
    return fetch_listed(ObjectFolder(address), local)


def mirror(local: Path, layout: str, address: str = "s3://bucket/p") -> Mirrored:
    return mirror_parts(
        ObjectFolder(address),
        local,
        partial(reader_folders, layout),
        inner_folders(layout),
        layout_depth(layout),
        LOG,
    )


def test_only_what_is_new_or_changed_is_fetched_and_what_is_gone_is_deleted(
    store: Store, tmp_path: Path
) -> None:
    for name in ("same", "changed", "in/gone"):
        store.put(f"p/{name}", b"first")
    assert fetch(tmp_path) == Mirrored(fetched=3)
    before = inodes(tmp_path)
    store.put("p/changed", b"another")
    store.put("p/new", b"new")
    store.delete("p/in/gone")
    assert fetch(tmp_path) == Mirrored(fetched=2, deleted=1)
    assert files(tmp_path) == {"same": b"first", "changed": b"another", "new": b"new"}
    assert inodes(tmp_path)["same"] == before["same"]
    assert not (tmp_path / "in").exists()
    assert fetch(tmp_path) == Mirrored()


def test_an_object_changed_within_a_second_to_one_of_the_same_size_is_fetched(
    store: Store, tmp_path: Path
) -> None:
    for number in range(5):
        store.put("p/a", b"%d" % number)
        fetch(tmp_path)
        assert files(tmp_path) == {"a": b"%d" % number}


def test_a_mirror_that_was_altered_is_put_right(store: Store, tmp_path: Path) -> None:
    store.put("p/a", b"truth")
    store.put("p/b", b"truth")
    fetch(tmp_path)
    (tmp_path / "a").write_bytes(b"other")
    (tmp_path / "b").unlink()
    (tmp_path / "c").write_bytes(b"nobody's")
    fetch(tmp_path)
    assert files(tmp_path) == {"a": b"truth", "b": b"truth"}


def test_an_object_becomes_a_folder_and_back(store: Store, tmp_path: Path) -> None:
    store.put("p/a", b"1")
    fetch(tmp_path)
    store.delete("p/a")
    store.put("p/a/b", b"2")
    fetch(tmp_path)
    assert files(tmp_path) == {"a/b": b"2"}
    store.delete("p/a/b")
    store.put("p/a", b"3")
    fetch(tmp_path)
    assert files(tmp_path) == {"a": b"3"}


names = st.sampled_from(["a", "b", "in/a", "in/b", "in/ner/a", "ä ö", ".hidden", ".in/a"])
steps = st.lists(st.tuples(names, st.sampled_from([None, b"", b"1", b"2", b"long"])), max_size=6)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=3))
def test_a_mirror_is_what_a_plain_copy_would_be(
    store: Store, rounds: Sequence[Sequence[tuple[str, bytes | None]]]
) -> None:
    store.clear()
    known: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        for changes in rounds:
            for name, content in changes:
                if content is None:
                    store.delete(f"p/{name}")
                    known.pop(name, None)
                else:
                    store.put(f"p/{name}", content)
                    known[name] = content
            fetch(Path(folder))
            assert files(Path(folder)) == {
                name: content for name, content in known.items() if not name.startswith(".")
            }


def test_only_the_folders_that_a_reader_looks_into_are_fetched(store: Store, tmp_path: Path) -> None:
    for tree in ("trainval", "test"):
        store.put(f"p/{tree}/images/KITCHEN/a.jpg", b"1")
        store.put(f"p/{tree}/labels/KITCHEN/a.txt", b"2")
        store.put(f"p/{tree}/videos/a.mp4", b"large")
    store.put("p/backup/images/a.jpg", b"large")
    assert mirror(tmp_path / "m", "labelled_photos") == Mirrored(fetched=4)
    assert set(files(tmp_path / "m")) == {
        f"{tree}/{file}"
        for tree in ("trainval", "test")
        for file in ("images/KITCHEN/a.jpg", "labels/KITCHEN/a.txt")
    }


@pytest.mark.parametrize(
    ("layout", "read", "not_read"),
    [
        ("two_date", ["A/1.png", "train/B/1.png", "list/train.txt"], ["C/1.png", "other/A/1.png"]),
        ("masked_images", ["one/images/1.png", "one/masks/1.png"], ["one/raw/1.png", "notes.txt"]),
        (
            "voc",
            [
                "x/VOC2012/JPEGImages/1.jpg",
                "x/VOC2012/SegmentationClass/1.png",
                "x/VOC2012/ImageSets/Segmentation/train.txt",
            ],
            ["x/VOC2012/Annotations/1.xml", "x/VOC2012/ImageSets/Main/train.txt"],
        ),
    ],
)
def test_each_layout_is_found_as_in_a_local_folder(
    store: Store, tmp_path: Path, layout: str, read: list[str], not_read: list[str]
) -> None:
    for name in (*read, *not_read):
        store.put(f"p/{name}", b"1")
    mirror(tmp_path / "m", layout)
    assert sorted(files(tmp_path / "m")) == sorted(read)


def test_a_layout_that_is_not_found_is_told_as_of_a_local_folder(store: Store, tmp_path: Path) -> None:
    store.put("p/pictures/a.jpg", b"1")
    with pytest.raises(FileNotFoundError, match="found pictures; expected images/<class>/"):
        mirror(tmp_path / "m", "labelled_photos")


def test_a_tree_that_is_gone_from_the_store_is_gone_here(store: Store, tmp_path: Path) -> None:
    for data_set in ("one", "two"):
        for part in ("images", "masks"):
            store.put(f"p/{data_set}/{part}/1.png", b"1")
    mirror(tmp_path / "m", "masked_images")
    for part in ("images", "masks"):
        store.delete(f"p/two/{part}/1.png")
    mirror(tmp_path / "m", "masked_images")
    assert reader_folders("masked_images", tmp_path / "m") == ["one/images", "one/masks"]


def test_an_unusable_name_is_left_out_with_its_reason(store: Store, tmp_path: Path) -> None:
    store.put("p/images/K/good.jpg", b"1")
    store.put("p/images/K/../../../../evil.jpg", b"1")
    done = mirror(tmp_path / "m", "labelled_photos")
    assert done.refused == {
        "images/K/../../../../evil.jpg": "the name has an empty part, `.` or `..`; rename it"
    }
    assert set(files(tmp_path)) == {"m/images/K/good.jpg", ".m.lock"}


def test_what_was_fetched_before_the_store_failed_is_not_fetched_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        store.put(f"p/{number:02}", b"1")
    real, asked = ObjectFolder.download, []

    def failing(self: ObjectFolder, name: str, path: Path) -> object:
        asked.append(name)
        if len(asked) == 20:
            raise StoreError("s3://bucket/p: the store cannot be reached")
        return real(self, name, path)

    monkeypatch.setattr(ObjectFolder, "download", failing)
    with pytest.raises(StoreError):
        fetch(tmp_path)
    fetched = len(files(tmp_path))
    assert 0 < fetched < 40
    assert fetch(tmp_path) == Mirrored(fetched=40 - fetched)


def test_sending_makes_the_store_the_same_and_in_the_order_asked_for(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    for name, content in {"v/1/data": "1", "v/1/record": "1", "current": "1", ".tmp-x": "half"}.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(content)
    (here / "link").symlink_to("v/1", target_is_directory=True)
    order: list[str] = []
    for act in ("upload", "delete"):
        real = getattr(ObjectFolder, act)

        def told(self: ObjectFolder, *given: object, act: str = act, real: object = real) -> object:
            order.append(f"{act} {given[-1]}")
            return real(self, *given)  # type: ignore[operator]

        monkeypatch.setattr(ObjectFolder, act, told)
    remote, rank = ObjectFolder("s3://bucket/p"), {"current": 2, "v/1/record": 1, "v/2/record": 1}
    push_listed(remote, here, lambda name: rank.get(name, 0))
    assert order == ["upload v/1/data", "upload v/1/record", "upload current"]
    push_listed(remote, here, lambda name: rank.get(name, 0))
    assert len(order) == 3
    (here / "v/1").rename(here / "v/2")
    (here / "current").write_text("2")
    push_listed(remote, here, lambda name: rank.get(name, 0))
    assert order[3:] == [
        *("upload v/2/data", "upload v/2/record", "upload current"),
        *("delete v/1/record", "delete v/1/data"),
    ]
    there = tmp_path / "there"
    fetch(there)
    assert files(there) == {"v/2/data": b"1", "v/2/record": b"1", "current": b"2"}
    assert fetch(here) == Mirrored()  # what was sent is not fetched back
    assert os.path.lexists(here / "link")
    shutil.rmtree(here)
