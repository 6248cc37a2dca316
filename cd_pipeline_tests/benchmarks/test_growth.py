"""The benchmark of growth draws what it says, and tells which limits are broken."""

from pathlib import Path

from cd_pipeline.data.near_identical import near_identical_groups
from cd_pipeline.data.photos import scan_photos
from cd_pipeline_tests.benchmarks.growth import ANOTHER_SHOT, CLASSES, Row, draw, faults


def test_drawn_photos_are_all_usable_and_one_in_ten_looks_like_another(tmp_path: Path) -> None:
    draw(tmp_path / "photos", 60)
    found = scan_photos(tmp_path / "photos", threads=1)
    assert len(found.usable) == len(found.photos) == 60
    assert found.orphan_labels == []
    assert {photo.class_name for photo in found.usable} == set(CLASSES)
    assert {len(photo.boxes) for photo in found.usable} == {1, 2, 3}
    for name in ("sha256", "pixels_sha256", "label_sha256"):
        assert len({getattr(photo, name) for photo in found.usable}) == 60
    in_order = sorted(found.usable, key=lambda photo: photo.path[-10:])
    groups = near_identical_groups([photo.perceptual_hash for photo in in_order], 8)
    assert [group for group in groups if len(group) > 1] == [
        [number - 1, number] for number in range(ANOTHER_SHOT, 60, ANOTHER_SHOT)
    ]


def row(stage: str, seconds: float, megabytes: float = 100) -> Row:
    return Row(photos=1000, stage=stage, seconds=seconds, cpu_seconds=seconds, megabytes=megabytes)


def test_reading_does_not_count_for_the_limit_of_time_and_every_process_for_that_of_memory() -> None:
    stages = {"reading": 300.0, "raw_photos": 350.0, "split": 40.0, "pair_manifest": 29.0}
    assert faults([row(stage, seconds) for stage, seconds in stages.items()]) == []
    (slow,) = faults([row(stage, seconds + (stage == "split") * 2) for stage, seconds in stages.items()])
    assert "take 121 s beyond reading, at most 120" in slow
    (large,) = faults([row(stage, 1, 2000 if stage == "reading" else 999) for stage in stages])
    assert "reading takes 2,000 MB, at most 1,000" in large
