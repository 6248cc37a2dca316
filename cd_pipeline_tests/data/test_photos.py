import hashlib
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cd_pipeline.data.labels import Box
from cd_pipeline.data.manifest import read_photos, write_photos
from cd_pipeline.data.photos import Photo, scan_photos
from cd_pipeline_tests.drawn import draw_photo, draw_photo_tree, save_photo

LABEL = "0 0.5 0.5 0.5 0.5\n"
PIXELS = draw_photo(np.random.default_rng(9), (60, 40))[0]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A single tree with one good photo, KITCHEN/photo_000.jpg."""
    return draw_photo_tree(tmp_path / "photos", {"": {"KITCHEN": 1}})


def by_name(root: Path, threads: int = 1) -> dict[str, Photo]:
    return {Path(photo.path).name: photo for photo in scan_photos(root, threads=threads).photos}


def reasons(root: Path) -> dict[str, str | None]:
    return {name: photo.reason for name, photo in by_name(root).items()}


def snapshot(root: Path) -> list[tuple[str, int, str]]:
    return sorted(
        (str(path), path.lstat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        if path.is_file()
        else (str(path), path.lstat().st_mtime_ns, "")
        for path in root.rglob("*")
    )


def test_a_single_tree_is_read(tmp_path: Path) -> None:
    root = draw_photo_tree(tmp_path, {"": {"KITCHEN": 3, "HALL": 2}})
    inventory = scan_photos(root)
    assert [photo.path for photo in inventory.photos] == [
        "images/HALL/photo_000.jpg",
        "images/HALL/photo_001.jpg",
        "images/KITCHEN/photo_000.jpg",
        "images/KITCHEN/photo_001.jpg",
        "images/KITCHEN/photo_002.jpg",
    ]
    first = inventory.photos[0]
    assert first.tree == ""
    assert first.class_name == "HALL"
    assert first.label_path == "labels/HALL/photo_000.txt"
    assert (first.width, first.height) == (96, 72)
    assert first.reason is None
    assert first.split == ""
    lines = (root / first.label_path).read_text().splitlines()
    assert [tuple(map(float, line.split())) for line in lines] == list(first.boxes)
    assert len({photo.sha256 for photo in inventory.photos}) == 5
    assert len({photo.pixels_sha256 for photo in inventory.photos}) == 5


def test_trainval_and_test_folders_are_read(tmp_path: Path) -> None:
    root = draw_photo_tree(tmp_path, {"trainval": {"KITCHEN": 2}, "test": {"KITCHEN": 1}})
    photos = scan_photos(root).photos
    assert [(photo.tree, photo.path) for photo in photos] == [
        ("test", "test/images/KITCHEN/photo_000.jpg"),
        ("trainval", "trainval/images/KITCHEN/photo_000.jpg"),
        ("trainval", "trainval/images/KITCHEN/photo_001.jpg"),
    ]
    assert photos[0].label_path == "test/labels/KITCHEN/photo_000.txt"


def test_the_preview_folder_is_not_read(tree: Path) -> None:
    save_photo(tree / "preview", "KITCHEN", "photo_000.jpg", PIXELS, None)
    assert list(by_name(tree)) == ["photo_000.jpg"]


def awkward_tree(root: Path) -> Path:
    draw_photo_tree(root, {"": {"KITCHEN": 2}})
    folder = root / "images" / "KITCHEN"
    good = (folder / "photo_000.jpg").read_bytes()
    save_photo(root, "KITCHEN", "Upper.JPG", PIXELS, LABEL)
    save_photo(root, "KITCHEN", "Mixed.JpEg", PIXELS[:, ::-1], LABEL)
    save_photo(root, "KITCHEN", "one.png", PIXELS[:1, :1], LABEL)
    save_photo(root, "KITCHEN", "room.v2.png", PIXELS[::-1], LABEL)
    save_photo(root, "NO_LABELS", "a.webp", PIXELS, None)
    contents = {
        "zero.jpg": b"",
        "cut.jpg": good[: len(good) // 2],
        "text.png": b"this is not a picture",
        "phone.heic": b"\0\0\0\x18ftypheic",
        "moving.gif": b"GIF89a",
        "notes.txt": b"read me",
        "Thumbs.db": b"\0",
        "nosuffix": good,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (root / "images" / "loose.jpg").write_bytes(good)
    (folder / "inner").mkdir()
    (folder / "inner" / "deep.jpg").write_bytes(good)
    return root


def test_every_visible_file_is_used_or_has_a_reason(tmp_path: Path) -> None:
    root = awkward_tree(tmp_path)
    found = {photo.path for photo in scan_photos(root).photos}
    there = {path.relative_to(root).as_posix() for path in (root / "images").rglob("*") if path.is_file()}
    assert found == there
    expected = {
        "zero.jpg": "empty file (0 bytes)",
        "cut.jpg": "cut short",
        "text.png": "cannot be decoded",
        "phone.heic": "unsupported file type .heic",
        "moving.gif": "unsupported file type .gif",
        "notes.txt": "unsupported file type .txt",
        "Thumbs.db": "unsupported file type .db",
        "nosuffix": "unsupported file type (none)",
        "one.png": "1x1 px",
        "a.webp": "no label file labels/NO_LABELS/a.txt",
        "loose.jpg": "not directly in a class folder",
        "deep.jpg": "not directly in a class folder",
    }
    given = reasons(root)
    for name, part in expected.items():
        assert part in str(given.pop(name)), name
    assert set(given) == {"photo_000.jpg", "photo_001.jpg", "Upper.JPG", "Mixed.JpEg", "room.v2.png"}
    assert set(given.values()) == {None}


def test_used_and_quarantined_files_are_all_files(tmp_path: Path) -> None:
    inventory = scan_photos(awkward_tree(tmp_path))
    assert len(inventory.usable) == 5
    assert len(inventory.quarantined) == 12
    assert len(inventory.photos) == 17


def test_scanning_never_writes_to_the_folder(tmp_path: Path) -> None:
    root = awkward_tree(tmp_path)
    before = snapshot(root)
    scan_photos(root, threads=3)
    assert snapshot(root) == before


def test_the_result_does_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    root = awkward_tree(tmp_path)
    assert scan_photos(root, threads=1) == scan_photos(root, threads=4)


def test_the_version_does_not_depend_on_creation_order_or_file_times(tmp_path: Path) -> None:
    first = awkward_tree(tmp_path / "first")
    files = sorted((path for path in first.rglob("*") if path.is_file()), reverse=True)
    for age, path in enumerate(files):
        copy = tmp_path / "second" / path.relative_to(first)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        os.utime(copy, (age, age))
    ours, theirs = scan_photos(first), scan_photos(tmp_path / "second")
    assert ours == theirs
    assert ours.version == theirs.version


def test_the_version_changes_with_a_photo_a_label_or_a_name(tree: Path) -> None:
    photo = tree / "images" / "KITCHEN" / "photo_000.jpg"
    label = tree / "labels" / "KITCHEN" / "photo_000.txt"
    versions = [scan_photos(tree).version]
    Image.fromarray(PIXELS).save(photo)
    versions.append(scan_photos(tree).version)
    label.write_text("0 .5 .5 .1 .1")
    versions.append(scan_photos(tree).version)
    photo.rename(photo.with_name("other.jpg"))
    label.rename(label.with_name("other.txt"))
    versions.append(scan_photos(tree).version)
    assert len(set(versions)) == 4


def test_hidden_files_and_folders_are_ignored(tree: Path) -> None:
    folder = tree / "images" / "KITCHEN"
    for name in ("._photo_000.jpg", ".DS_Store", ".hidden.jpg"):
        (folder / name).write_bytes(b"x")
    save_photo(tree, ".cache", "a.jpg", PIXELS, LABEL)
    (tree / "labels" / "KITCHEN" / "._photo_000.txt").write_text("garbage")
    inventory = scan_photos(tree)
    assert [photo.path for photo in inventory.photos] == ["images/KITCHEN/photo_000.jpg"]
    assert inventory.orphan_labels == []


def test_a_hidden_parent_of_the_folder_does_not_hide_it(tmp_path: Path) -> None:
    root = draw_photo_tree(tmp_path / ".data" / "photos", {"": {"KITCHEN": 2}})
    assert len(scan_photos(root).usable) == 2


def test_photos_of_one_stem_share_its_label(tree: Path) -> None:
    save_photo(tree, "KITCHEN", "a.jpg", PIXELS, LABEL)
    save_photo(tree, "KITCHEN", "a.png", PIXELS[::-1], None)
    photos = by_name(tree)
    assert photos["a.jpg"].label_path == photos["a.png"].label_path == "labels/KITCHEN/a.txt"
    assert photos["a.jpg"].boxes == photos["a.png"].boxes == (Box(0, 0.5, 0.5, 0.5, 0.5),)
    assert photos["a.jpg"].reason is photos["a.png"].reason is None


def test_names_with_spaces_and_korean_are_used(tree: Path) -> None:
    save_photo(tree, "연습실 A", "방 사진 (1).jpg", PIXELS, LABEL)
    photo = by_name(tree)["방 사진 (1).jpg"]
    assert photo.reason is None
    assert photo.class_name == "연습실 A"
    assert len(photo.boxes) == 1


@pytest.mark.parametrize(("photo_form", "label_form"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_composed_and_decomposed_hangul_match(tree: Path, photo_form: str, label_form: str) -> None:
    class_name, stem = (unicodedata.normalize(photo_form, text) for text in ("연습실", "방"))
    save_photo(tree, class_name, f"{stem}.jpg", PIXELS, None)
    label = tree / "labels" / unicodedata.normalize(label_form, "연습실/방.txt")
    label.parent.mkdir()
    label.write_text(LABEL)
    photo = next(photo for photo in scan_photos(tree).photos if "KITCHEN" not in photo.path)
    assert photo.reason is None
    assert photo.class_name == unicodedata.normalize("NFC", "연습실")
    assert len(photo.boxes) == 1


def test_a_name_that_is_not_utf8_is_quarantined_and_can_be_stored(tree: Path, tmp_path: Path) -> None:
    for folder, suffix in ((b"images", b".jpg"), (b"labels", b".txt")):
        path = os.fsencode(tree) + b"/" + folder + b"/KITCHEN/"
        try:
            shutil.copyfile(path + b"photo_000" + suffix, path + "방".encode("cp949") + suffix)
        except OSError:
            pytest.skip("this file system holds UTF-8 names only")
    inventory = scan_photos(tree)
    assert [photo.reason for photo in inventory.photos] == [
        "the name is not UTF-8 text; rename the file",
        None,
    ]
    write_photos(tmp_path / "photos.parquet", inventory.photos)
    assert read_photos(tmp_path / "photos.parquet") == inventory.photos
    assert inventory.version
    assert all(path.encode() for path in inventory.orphan_labels)


def test_boxes_of_a_rotated_jpeg_are_in_displayed_orientation(tree: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save_photo(tree, "KITCHEN", "rotated.jpg", PIXELS, LABEL)
    Image.fromarray(PIXELS).save(path, exif=exif)
    photo = by_name(tree)["rotated.jpg"]
    assert (photo.width, photo.height) == (40, 60)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16"])
def test_unusual_png_modes_are_used(tree: Path, mode: str) -> None:
    path = save_photo(tree, "KITCHEN", "odd.png", PIXELS, LABEL)
    wide = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    (wide if mode == "I;16" else Image.fromarray(PIXELS).convert(mode)).save(path)
    assert by_name(tree)["odd.png"].reason is None


def test_bad_label_lines_are_listed_and_the_photo_is_kept(tree: Path) -> None:
    text = "\ufeff0 .5 .5 .2 .2\n0 .5 .5 .2\n0 nan .5 .2 .2\n0 2 .5 .2 .2\n\n1 .9 .9 .4 .4\n"
    save_photo(tree, "KITCHEN", "a.jpg", PIXELS, text)
    photo = by_name(tree)["a.jpg"]
    assert photo.reason is None
    assert [box.class_id for box in photo.boxes] == [0, 1]
    assert [reason.split(":")[0] for reason in photo.dropped_labels] == ["line 2", "line 3", "line 4"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe0\x00 \x00", bytes(range(256)), b"1e999 .5 .5 .1 .1"])
def test_a_photo_with_an_unusable_label_file_is_kept_without_boxes(tree: Path, content: bytes) -> None:
    save_photo(tree, "KITCHEN", "a.jpg", PIXELS, "")
    (tree / "labels" / "KITCHEN" / "a.txt").write_bytes(content)
    photo = by_name(tree)["a.jpg"]
    assert photo.reason is None
    assert photo.boxes == ()
    assert bool(photo.dropped_labels) == bool(content)


def test_labels_without_a_photo_are_listed(tree: Path) -> None:
    folder = tree / "labels" / "KITCHEN"
    (folder / "lonely.txt").write_text(LABEL)
    (folder / "classes.json").write_text("{}")
    (tree / "labels" / "classes.txt").write_text("chair\n")
    assert scan_photos(tree).orphan_labels == [
        "labels/KITCHEN/classes.json",
        "labels/KITCHEN/lonely.txt",
        "labels/classes.txt",
    ]


def test_a_label_with_an_upper_case_extension_is_found(tree: Path) -> None:
    save_photo(tree, "KITCHEN", "a.jpg", PIXELS, None)
    (tree / "labels" / "KITCHEN" / "a.TXT").write_text(LABEL)
    assert len(by_name(tree)["a.jpg"].boxes) == 1


def test_a_linked_class_folder_is_read_and_a_broken_link_has_a_reason(tree: Path, tmp_path: Path) -> None:
    other = draw_photo_tree(tmp_path / "other", {"": {"HALL": 2}}, seed=1)
    for folder in ("images", "labels"):
        (tree / folder / "HALL").symlink_to(other / folder / "HALL")
    (tree / "images" / "KITCHEN" / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    photos = scan_photos(tree).photos
    assert [(photo.path, photo.reason) for photo in photos if photo.class_name == "HALL"] == [
        ("images/HALL/photo_000.jpg", None),
        ("images/HALL/photo_001.jpg", None),
    ]
    assert "cannot be read" in str(reasons(tree)["broken.jpg"])


def test_a_link_that_leads_back_up_does_not_loop(tree: Path) -> None:
    (tree / "images" / "KITCHEN" / "again").symlink_to(tree / "images")
    assert list(by_name(tree)) == ["photo_000.jpg"]


def test_a_folder_named_like_a_photo_is_not_a_photo(tree: Path) -> None:
    (tree / "images" / "KITCHEN" / "folder.jpg").mkdir()
    assert list(by_name(tree)) == ["photo_000.jpg"]


def test_progress_is_told_once_a_file(tmp_path: Path) -> None:
    calls: list[None] = []
    scan_photos(awkward_tree(tmp_path), threads=2, progress=lambda: calls.append(None))
    assert len(calls) == 17


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        scan_photos(tmp_path / "nowhere")


@pytest.mark.parametrize("folders", [["trainval/images"], ["test/images"], ["KITCHEN"], []])
def test_a_wrong_layout_is_an_error_that_says_what_was_found(tmp_path: Path, folders: list[str]) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    found = folders[0].split("/")[0] if folders else "nothing"
    with pytest.raises(FileNotFoundError, match=f"found {found}; expected images/<class>/") as caught:
        scan_photos(tmp_path)
    assert "trainval/ and test/" in str(caught.value)


def test_an_empty_tree_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "images" / "KITCHEN").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no photos in images/<class>/; add \.bmp, \.jpeg"):
        scan_photos(tmp_path)


def test_a_tree_without_a_usable_photo_says_why(tmp_path: Path) -> None:
    save_photo(tmp_path, "KITCHEN", "a.jpg", PIXELS, None)
    with pytest.raises(ValueError, match=r"none of 1 files can be used.*KITCHEN/a\.jpg: no label file"):
        scan_photos(tmp_path)


def test_all_real_photos_are_usable(real_data: Path) -> None:
    inventory = scan_photos(real_data / "rooms", threads=2)
    assert len(inventory.photos) == 151 + 35
    assert inventory.quarantined == []
    assert all(photo.boxes for photo in inventory.usable)
