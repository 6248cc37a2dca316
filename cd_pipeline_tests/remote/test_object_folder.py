"""A folder on an object store, seen beside another client."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cd_pipeline.data.file_record import FileRecord
from cd_pipeline.remote.errors import SpoiltResultError, StoreError
from cd_pipeline.remote.object_folder import ObjectFolder, name_fault
from cd_pipeline.remote.transfers import in_parallel
from cd_pipeline_tests.servers import free_port
from cd_pipeline_tests.stores import Store


def test_what_is_written_another_client_reads(store: Store, tmp_path: Path) -> None:
    large = os.urandom(9_000_000)  # more than a part of an upload
    (tmp_path / "large").write_bytes(large)
    folder = ObjectFolder("s3://bucket/some where/p+#é/")
    folder.write("small ü.json", b"{}")
    sent = folder.upload(tmp_path / "large", "inner/large")
    assert store.get("some where/p+#é/small ü.json") == b"{}"
    assert store.get("some where/p+#é/inner/large") == large
    assert sent == FileRecord(size=len(large), sha256=hashlib.sha256(large).hexdigest())


def test_what_another_client_writes_is_listed_and_read(store: Store, tmp_path: Path) -> None:
    store.put("p/a.jpg", b"abc")
    store.put("p/in/ner/ä b.txt", b"")
    store.put("other/a.jpg", b"x")
    folder = ObjectFolder("s3://bucket/p")
    listed = folder.listing()
    assert {name: info.size for name, info in listed.objects.items()} == {"a.jpg": 3, "in/ner/ä b.txt": 0}
    assert not listed.refused
    assert folder.folders() == ["in"]
    assert folder.read("a.jpg") == b"abc"
    assert (folder / "in/ner").read("ä b.txt") == b""
    folder.download("a.jpg", tmp_path / "new" / "a.jpg")
    assert (tmp_path / "new" / "a.jpg").read_bytes() == b"abc"
    assert folder.etag("a.jpg") == hashlib.md5(b"abc").hexdigest()


@pytest.mark.slow
def test_more_objects_than_one_page_of_a_listing_are_all_listed(store: Store) -> None:
    in_parallel(lambda number: store.put(f"p/{number}", b""), range(1005))
    assert len(ObjectFolder("s3://bucket/p").listing().objects) == 1005


def test_what_is_not_there_is_told_so(store: Store, tmp_path: Path) -> None:
    folder = ObjectFolder("s3://bucket/nothing")
    assert (folder.listing().objects, folder.folders(), folder.read("a")) == ({}, [], None)
    folder.delete("a")
    with pytest.raises(FileNotFoundError):
        folder.download("a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_names_that_would_lead_out_of_a_folder_are_refused_with_the_reason(store: Store) -> None:
    for name in (
        "p/../evil",
        "p/in/../../evil",
        "p//empty",
        "p/./dot",
        f"p/{'x' * 256}",
        "p/a",
        "p/a/b",
        "p/good",
    ):
        store.put(name, b"x")
    listed = ObjectFolder("s3://bucket/p").listing()
    assert set(listed.objects) == {"a/b", "good"}
    assert set(listed.refused) == {"../evil", "in/../../evil", "/empty", "./dot", "x" * 256, "a"}
    assert "rename it" in listed.refused["../evil"]
    assert "255 bytes" in listed.refused["x" * 256]
    assert "a folder of one name" in listed.refused["a"]


@given(st.text(st.sampled_from("a./\\\0é")))
def test_a_name_without_fault_never_leads_out_of_a_folder(name: str) -> None:
    if not name_fault(name):
        path = Path("/root/of/mirror") / name
        assert Path(os.path.normpath(path)) == path
        assert path.is_relative_to("/root/of/mirror")
        assert path != Path("/root/of/mirror")


def test_an_object_that_is_not_what_was_expected_does_not_replace_a_file(
    store: Store, tmp_path: Path
) -> None:
    store.put("p/a", b"other")
    (tmp_path / "a").write_bytes(b"good")
    expected = FileRecord(size=4, sha256=hashlib.sha256(b"good").hexdigest())
    with pytest.raises(SpoiltResultError, match="s3://bucket/p/a is not the file that was written there"):
        ObjectFolder("s3://bucket/p").download("a", tmp_path / "a", expected)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"good"


def test_a_bucket_that_is_not_there_is_named_with_the_remedy(store: Store) -> None:
    folder = ObjectFolder("s3://no-such-bucket/p")
    for act in (folder.listing, folder.folders, lambda: folder.read("a"), lambda: folder.write("a", b"")):
        with pytest.raises(StoreError, match=r"^s3://no-such-bucket/p.*no such bucket; create it, or"):
            act()


def test_a_user_who_may_not_is_told_what_is_needed(store: Store) -> None:
    folder = ObjectFolder("s3://bucket/p")
    with store.refusing():
        for act in (folder.listing, lambda: folder.read("a"), lambda: folder.write("a", b"")):
            with pytest.raises(
                StoreError, match=r"^s3://bucket/p.*the store refuses access; set AWS_ACCESS_KEY_ID"
            ):
                act()
    folder.write("a", b"1")


@pytest.mark.slow
def test_a_server_that_is_not_there_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreError, match=r"^s3://bucket/p: the store cannot be reached; check") as caught:
        ObjectFolder("s3://bucket/p").listing()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["s3://", "s3:///p", "s3://bucket/../p", "s3://bucket//p", "ftp://bucket/p", "p"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"expected s3://<bucket>/<prefix>"):
        ObjectFolder(address)


def test_keys_in_an_address_are_never_told(store: Store) -> None:
    folder = ObjectFolder(f"s3://key:secret@no-bucket/p?endpoint_override={store.endpoint}&region=us-east-1")
    with pytest.raises(StoreError, match="no such bucket") as caught:
        folder.listing()
    assert folder.uri == "s3://no-bucket/p"
    assert "secret" not in str(caught.value)
