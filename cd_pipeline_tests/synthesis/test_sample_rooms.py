"""The sample rooms: counts, labels, boxes and the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cd_pipeline.synthesis import sample_rooms
from cd_pipeline.synthesis.room_plans import PLANS
from cd_pipeline.synthesis.room_scene import MIN_SIDE, SIZES, Box, draw
from cd_pipeline.synthesis.sample_rooms import (
    COUNTS,
    FURNITURE,
    RoomSpec,
    SampleRooms,
    compose_room,
    draw_room,
    draw_sample_rooms,
    room_specs,
    yolo_lines,
)
from cd_pipeline_tests.synthesis.sample_files import tree

Drawn = tuple[Path, SampleRooms, list[tuple[int, int]]]

SMALL = {
    "trainval": {"DANCE_STUDIO": 2, "MAKER_SPACE": 1, "MUSIC_PRACTICE_ROOM": 2, "STUDY_ROOM": 2},
    "test": {"SMALL_THEATER": 1, "MUSIC_PRACTICE_ROOM": 4},
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """A small set drawn in this process, over a half-written folder."""
    root = tmp_path_factory.mktemp("rooms")
    stale = root / "trainval/images/STUDY_ROOM/study_room_001.jpg"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half")
    stale.with_name(stale.name + ".part").write_bytes(b"left by a stopped run")
    steps: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_rooms, "COUNTS", SMALL)
        result = draw_sample_rooms(root, workers=1, progress=lambda done, total: steps.append((done, total)))
    return root, result, steps


def test_the_full_set_has_the_published_counts() -> None:
    trainval = {
        "DANCE_STUDIO": 10, "MAKER_SPACE": 31, "MUSIC_PRACTICE_ROOM": 38, "SMALL_THEATER": 26,
        "STUDY_ROOM": 42,
    }  # fmt: skip
    assert COUNTS["trainval"] == trainval
    assert sum(COUNTS["test"].values()) == 33
    assert set(COUNTS["test"]) == set(trainval) == set(PLANS)
    specs = room_specs()
    assert len(specs) == len(set(specs)) == 180
    assert 1 <= sum(not spec.furnished for spec in specs) <= 3


def test_each_photo_has_a_label_and_nothing_else_is_left(drawn: Drawn) -> None:
    root, result, steps = drawn
    assert steps == [(k, 12) for k in range(1, 13)]
    names = tree(root)
    photos = {name for name in names if name.endswith(".jpg")}
    labels = {name.replace("/images/", "/labels/").replace(".jpg", ".txt") for name in photos}
    assert set(names) == photos | labels
    for split, classes in SMALL.items():
        for room_class, count in classes.items():
            assert len([n for n in photos if n.startswith(f"{split}/images/{room_class}/")]) == count
    lines = [line for name in labels for line in (root / name).read_text().splitlines()]
    assert result == SampleRooms(12, len(lines), SMALL, result.kinds)
    assert sum(result.kinds.values()) == len(lines)


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(
    drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_rooms, "COUNTS", SMALL)
    again = draw_sample_rooms(tmp_path, workers=2)
    assert tree(tmp_path) == tree(drawn[0])
    assert again == drawn[1]


def test_all_photos_differ(drawn: Drawn) -> None:
    hashes = [digest for name, digest in tree(drawn[0]).items() if name.endswith(".jpg")]
    assert len(set(hashes)) == len(hashes)


def test_another_seed_gives_another_photo() -> None:
    first, _ = draw_room(RoomSpec("test", "STUDY_ROOM", 0, 42))
    same, _ = draw_room(RoomSpec("test", "STUDY_ROOM", 0, 42))
    other, _ = draw_room(RoomSpec("test", "STUDY_ROOM", 0, 43))
    assert np.array_equal(first, same)
    assert first.shape != other.shape or not np.array_equal(first, other)


def test_labels_are_inside_the_photo_and_not_tiny(drawn: Drawn) -> None:
    root, _, _ = drawn
    empty = 0
    for path in root.rglob("*.jpg"):
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        height, width, _ = image.shape
        assert (width, height) in SIZES
        label = Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt")
        rows = [line.split() for line in label.read_text().splitlines()]
        assert len(rows) == 0 or 2 <= len(rows) <= 8
        empty += not rows
        for kind, *numbers in rows:
            cx, cy, w, h = (float(number) for number in numbers)
            assert int(kind) in range(len(FURNITURE))
            assert cx - w / 2 >= -1e-6 and cx + w / 2 <= 1 + 1e-6
            assert cy - h / 2 >= -1e-6 and cy + h / 2 <= 1 + 1e-6
            assert w * width >= MIN_SIDE - 0.01 and h * height >= MIN_SIDE - 0.01
    assert empty == 1


def test_a_box_becomes_a_yolo_line_that_reads_back() -> None:
    assert yolo_lines([Box(3, 64, 48, 320, 240)], 640, 480) == "3 0.300000 0.300000 0.400000 0.400000\n"
    assert yolo_lines([], 640, 480) == ""


@pytest.mark.parametrize("room_class", ["STUDY_ROOM", "MAKER_SPACE"])
def test_a_box_holds_what_changes_when_its_object_is_taken_away(room_class: str) -> None:
    scene = compose_room(RoomSpec("trainval", room_class, 1, 42))
    photo, boxes = draw(scene)
    listed = [box.kind for box in boxes]
    alone = [k for k, piece in enumerate(scene.pieces) if listed.count(piece.kind) == 1]
    assert alone
    for number in alone[:2]:
        box = next(box for box in boxes if box.kind == scene.pieces[number].kind)
        without, others = draw(scene, skip=number)
        assert scene.pieces[number].kind not in [other.kind for other in others]
        step = photo.astype(int).sum(axis=2) - without.astype(int).sum(axis=2)
        inside = np.zeros(step.shape, bool)
        inside[box.top : box.bottom, box.left : box.right] = True
        rows, columns = np.nonzero((np.abs(step) > 60) & inside)
        assert np.ptp(columns) + 1 >= 0.85 * (box.right - box.left)
        assert np.ptp(rows) + 1 >= 0.85 * (box.bottom - box.top)
        # Outside the box there is nothing but the soft shadow, which only darkens.
        assert ((step > 60) & ~inside).sum() <= 0.01 * len(rows)
        assert ((step < -60) & ~inside).sum() < 0.5 * len(rows)


def test_photos_are_textured_like_photographs() -> None:
    photo, _ = draw_room(RoomSpec("trainval", "MUSIC_PRACTICE_ROOM", 0, 42))
    grey = photo.astype(np.float32).mean(axis=2)
    step = np.abs(np.diff(grey, axis=1))
    assert (step > 0.5).mean() > 0.6
    assert grey.std() > 20 and 50 < grey.mean() < 200


def test_a_wrong_number_of_workers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers is 0"):
        draw_sample_rooms(tmp_path, workers=0)


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(KeyError, match="CELLAR"):
        draw_room(RoomSpec("test", "CELLAR", 0, 42))
