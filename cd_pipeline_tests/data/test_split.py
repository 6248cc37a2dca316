import math
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.data.files import digest
from cd_pipeline.data.images import read_photo
from cd_pipeline.data.near_identical import near_identical_groups, perceptual_hash
from cd_pipeline.data.photos import Photo, scan_photos
from cd_pipeline.data.settings import SplitSettings
from cd_pipeline.data.split import assign_splits, is_test, leaks, quarantine_duplicates
from cd_pipeline_tests.drawn import draw_photo_tree

S1_CLASSES = {
    "DANCE_STUDIO": (10, 8, 2),
    "MAKER_SPACE": (31, 24, 7),
    "MUSIC_PRACTICE_ROOM": (38, 30, 8),
    "SMALL_THEATER": (26, 20, 6),
    "STUDY_ROOM": (42, 33, 9),
}


def make_photo(
    name: str, class_name: str = "A", tree: str = "", picture: str = "", reason: str | None = None
) -> Photo:
    """Make an inventory row; photos of one `picture` decode to the same pixels."""
    return Photo(
        path=f"{tree}/images/{class_name}/{name}".lstrip("/"),
        tree=tree,
        class_name=class_name,
        label_path=f"labels/{class_name}/{name}.txt",
        sha256=digest("file", tree, class_name, name),
        label_sha256=digest("label", name),
        pixels_sha256=digest("pixels", picture or (tree, class_name, name)),
        width=64,
        height=48,
        boxes=(),
        dropped_labels=(),
        reason=reason,
    )


def s1_photos() -> list[Photo]:
    trainval = [
        make_photo(f"{number}.jpg", name, "trainval")
        for name, (count, _, _) in S1_CLASSES.items()
        for number in range(count)
    ]
    return trainval + [make_photo(f"{number}.jpg", "STUDY_ROOM", "test") for number in range(33)]


def splits(photos: list[Photo], settings: SplitSettings | None = None) -> dict[str, str]:
    return {photo.path: photo.split for photo in assign_splits(photos, settings or SplitSettings())}


def test_the_published_class_sizes_give_115_train_32_val_33_test() -> None:
    photos = assign_splits(s1_photos(), SplitSettings())
    assert Counter(photo.split for photo in photos) == {"train": 115, "val": 32, "test": 33}
    by_class = Counter((photo.class_name, photo.split) for photo in photos if photo.split != "test")
    for name, (_, train, val) in S1_CLASSES.items():
        assert (by_class[name, "train"], by_class[name, "val"]) == (train, val)


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_split_does_not_depend_on_the_order_of_the_photos(shuffler: random.Random) -> None:
    photos = s1_photos()
    shuffled = photos.copy()
    shuffler.shuffle(shuffled)
    assert assign_splits(shuffled, SplitSettings()) == assign_splits(photos, SplitSettings())


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.75, 0.8, 0.9])
def test_train_gets_the_floor_of_its_share_of_each_class(share: float) -> None:
    tenths = round(share * 100)
    photos = [make_photo("t.jpg", "Z", "test"), make_photo("v.jpg", "Z", "trainval")]
    sizes = {f"CLASS_{size:03d}": size for size in range(2, 101)}
    photos += [
        make_photo(str(number), name, "trainval") for name, size in sizes.items() for number in range(size)
    ]
    assigned = assign_splits(photos, SplitSettings(train_share=share))
    counts = Counter(photo.class_name for photo in assigned if photo.split == "train")
    for name, size in sizes.items():
        assert counts[name] == tenths * size // 100


def test_another_seed_gives_another_split() -> None:
    first, second = (splits(s1_photos(), SplitSettings(seed=seed)) for seed in (42, 43))
    assert first != second
    assert Counter(first.values()) == Counter(second.values())


def test_train_and_val_photos_do_not_follow_the_order_of_names() -> None:
    assigned = assign_splits(s1_photos(), SplitSettings())
    study = [photo.split for photo in assigned if photo.class_name == "STUDY_ROOM" and photo.tree != "test"]
    assert study != sorted(study)
    assert study != sorted(study, reverse=True)


def test_quarantined_photos_stay_listed_without_a_split() -> None:
    photos = [*s1_photos(), make_photo("bad.jpg", "STUDY_ROOM", "trainval", reason="empty file")]
    bad = next(photo for photo in assign_splits(photos, SplitSettings()) if photo.path.endswith("bad.jpg"))
    assert bad.split == ""
    assert bad.reason == "empty file"
    assert splits(photos) | {bad.path: ""} == splits(s1_photos()) | {bad.path: ""}


def test_a_picture_in_trainval_and_test_is_kept_in_test() -> None:
    photos = [
        *s1_photos(),
        make_photo("a.jpg", "STUDY_ROOM", "trainval", picture="same"),
        make_photo("z.jpg", "STUDY_ROOM", "test", picture="same"),
    ]
    assigned = {photo.path: photo for photo in assign_splits(photos, SplitSettings())}
    kept, other = assigned["test/images/STUDY_ROOM/z.jpg"], assigned["trainval/images/STUDY_ROOM/a.jpg"]
    assert (kept.split, kept.reason) == ("test", None)
    assert (other.split, other.reason) == ("", "same picture as test/images/STUDY_ROOM/z.jpg")


def test_of_three_identical_pictures_the_first_path_is_kept() -> None:
    photos = [make_photo(name, tree="trainval", picture="same") for name in ("c.jpg", "a.jpg", "b.jpg")]
    checked = quarantine_duplicates(photos, SplitSettings())
    assert [(photo.path[-5:], photo.reason) for photo in checked] == [
        ("a.jpg", None),
        ("b.jpg", "same picture as trainval/images/A/a.jpg"),
        ("c.jpg", "same picture as trainval/images/A/a.jpg"),
    ]


def test_in_a_single_tree_a_test_photo_is_kept_before_its_copies() -> None:
    settings = SplitSettings(test_share=0.3)
    photos = [make_photo(f"{number}.jpg", picture="same") for number in range(20)]
    in_test = [photo.path for photo in sorted(photos, key=lambda p: p.path) if is_test(photo, settings)]
    assert 0 < len(in_test) < 20
    kept = [photo.path for photo in quarantine_duplicates(photos, settings) if photo.reason is None]
    assert kept == in_test[:1]


def test_a_quarantined_photo_does_not_quarantine_others() -> None:
    bad = make_photo("a.jpg", picture="same", reason="no label file")
    good = make_photo("b.jpg", picture="same")
    checked = quarantine_duplicates([bad, good], SplitSettings())
    assert [photo.reason for photo in checked] == ["no label file", None]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("AB"), st.sampled_from(["trainval", "test"]), st.integers(0, 12)),
        min_size=1,
        max_size=40,
    )
)
def test_a_picture_is_never_in_two_splits(entries: list[tuple[str, str, int]]) -> None:
    photos = [
        make_photo(str(number), name, tree, f"picture {picture}")
        for number, (name, tree, picture) in enumerate(entries)
    ]
    assigned = assign_splits(s1_photos() + photos, SplitSettings())
    homes: dict[str, set[str]] = {}
    for photo in assigned:
        assert bool(photo.split) == (photo.reason is None)
        if photo.split:
            homes.setdefault(photo.pixels_sha256, set()).add(photo.split)
    assert {len(home) for home in homes.values()} == {1}
    assert leaks(assigned) == []
    for picture in {picture for _, tree, picture in entries if tree == "test"}:
        assert homes[digest("pixels", f"picture {picture}")] == {"test"}


def test_leaks_names_the_paths_of_a_picture_in_two_splits() -> None:
    photos = assign_splits(s1_photos(), SplitSettings())
    train = next(photo for photo in photos if photo.split == "train")
    twins = [make_photo("twin.jpg"), make_photo("other.jpg")]
    for twin, split in zip(twins, ("train", "val"), strict=True):
        object.__setattr__(twin, "split", split)
        object.__setattr__(twin, "pixels_sha256", train.pixels_sha256)
    assert leaks([train, twins[0]]) == []
    assert leaks([*photos, *twins]) == [[train.path, "images/A/twin.jpg", "images/A/other.jpg"]]


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 10_000), min_size=40, max_size=120), st.data())
def test_adding_photos_to_a_single_tree_never_moves_one_into_or_out_of_test(
    numbers: set[int], data: st.DataObject
) -> None:
    fixed = [make_photo(f"fixed {number}") for number in range(40)]
    more = [make_photo(str(number), data.draw(st.sampled_from("AB"))) for number in sorted(numbers)]
    before, after = splits(fixed), splits(fixed + more)
    for path, split in before.items():
        assert (split == "test") == (after[path] == "test")


def test_the_shares_of_a_single_tree_are_about_right() -> None:
    count = 4000
    photos = [make_photo(str(number)) for number in range(count)]
    counts = Counter(splits(photos, SplitSettings(test_share=0.18)).values())
    # four standard deviations of a binomial draw
    assert abs(counts["test"] - 0.18 * count) < 4 * math.sqrt(count * 0.18 * 0.82)
    assert counts["train"] == (count - counts["test"]) * 8 // 10
    assert counts["val"] == count - counts["test"] - counts["train"]


def test_a_larger_test_share_keeps_the_test_photos() -> None:
    photos = [make_photo(str(number)) for number in range(300)]
    small, large = ({p.path for p in photos if is_test(p, SplitSettings(test_share=s))} for s in (0.1, 0.3))
    assert small < large


def test_the_folder_decides_about_test_where_there_is_one() -> None:
    share = SplitSettings(test_share=0.99)
    assert not is_test(make_photo("a.jpg", tree="trainval"), share)
    assert is_test(make_photo("a.jpg", tree="test"), SplitSettings(test_share=0.01))


@pytest.mark.parametrize(
    ("photos", "counts"),
    [
        ([make_photo("a", tree="trainval"), make_photo("b", tree="trainval")], "train 1, val 1, test 0"),
        ([make_photo("a", tree="trainval"), make_photo("b", tree="test")], "train 0, val 1, test 1"),
        ([], "train 0, val 0, test 0"),
    ],
)
def test_an_empty_part_is_an_error_with_counts_and_remedy(photos: list[Photo], counts: str) -> None:
    with pytest.raises(ValueError, match=f"found {counts}; add photos") as caught:
        assign_splits(photos, SplitSettings())
    assert "split.train_share" in str(caught.value)


def test_a_drawn_tree_is_split_by_class(tmp_path: Path) -> None:
    root = draw_photo_tree(tmp_path, {"trainval": {"A": 10, "B": 5}, "test": {"A": 3}})
    assigned = assign_splits(scan_photos(root).photos, SplitSettings())
    counts = Counter((photo.class_name, photo.split) for photo in assigned)
    assert counts == {
        ("A", "train"): 8,
        ("A", "val"): 2,
        ("A", "test"): 3,
        ("B", "train"): 4,
        ("B", "val"): 1,
    }


def test_the_real_rooms_give_118_train_33_val_35_test(real_data: Path) -> None:
    photos = assign_splits(scan_photos(real_data / "rooms", threads=2).photos, SplitSettings())
    assert Counter(photo.split for photo in photos) == {"train": 118, "val": 33, "test": 35}


def burst(name: str, count: int, seed: int, class_name: str = "A", tree: str = "") -> list[Photo]:
    """Make photos whose perceptual hashes differ from their neighbour's in a few bits."""
    rng = random.Random(seed)
    value, shots = rng.getrandbits(64), []
    for number in range(count):
        shot = make_photo(f"{name}_{number}.jpg", class_name, tree)
        shots.append(replace(shot, perceptual_hash=f"{value:016x}"))
        for bit in rng.sample(range(64), 4):
            value ^= 1 << bit
    return shots


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=30, max_size=60), st.integers(0, 99))
def test_the_shots_of_a_burst_are_in_one_part(sizes: list[int], seed: int) -> None:
    bursts = [burst(f"b{i}", n, 1000 * seed + i, "AB"[i % 2]) for i, n in enumerate(sizes)]
    assigned = splits([photo for shots in bursts for photo in shots])
    for shots in bursts:
        assert len({assigned[photo.path] for photo in shots}) == 1


def test_photos_are_apart_where_near_identical_ones_are_not_asked_for() -> None:
    shots = burst("b", 60, 1)
    assert set(splits(shots, SplitSettings(near_identical=0)).values()) == {"train", "val", "test"}


def test_a_look_alike_of_a_test_photo_is_left_out_where_folders_decide() -> None:
    shots = burst("b", 3, 1)
    test = [replace(shots[1], tree="test", path="test/images/A/b.jpg")]
    others = [make_photo(f"{number}.jpg", tree="trainval") for number in range(10)]
    found = {
        photo.path: photo for photo in assign_splits([shots[0], *test, shots[2], *others], SplitSettings())
    }
    for shot in (shots[0], shots[2]):
        assert found[shot.path].split == ""
        assert found[shot.path].reason == ("nearly the same picture as test/images/A/b.jpg, which is in test")


@pytest.mark.parametrize("change", ["added", "removed"])
@pytest.mark.parametrize(
    "count", [60, *(pytest.param(count, marks=pytest.mark.slow) for count in (175, 600))]
)
def test_a_tenth_more_or_less_moves_few_between_train_and_val_and_none_of_test(
    change: str, count: int
) -> None:
    shares = []
    for draw in range(200):
        rng = random.Random(draw)
        names = [(str(rng.random()), rng.choice("ABCDE")) for _ in range(count + count // 10)]
        whole, part = [make_photo(*name) for name in names], [make_photo(*name) for name in names[:count]]
        before, after = (part, whole) if change == "added" else (whole, part)
        old, new = splits(before), splits(after)
        kept = old.keys() & new.keys()
        assert all((old[path] == "test") == (new[path] == "test") for path in kept)
        shares.append(sum(old[path] != new[path] for path in kept) / len(kept))
    assert sorted(shares)[int(0.95 * len(shares))] <= 0.05


def test_shots_a_hand_apart_look_alike_and_other_rooms_do_not(real_data: Path) -> None:
    photos = [photo for photo in scan_photos(real_data / "rooms", threads=2).photos if photo.reason is None]
    groups = near_identical_groups([photo.perceptual_hash for photo in photos], 8)
    assert len(groups) == len(photos) == 186
    rng, near = np.random.default_rng(0), 0
    for photo in photos[:40]:
        image = read_photo(real_data / "rooms" / photo.path)
        height, width = image.shape[:2]
        moved = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-0.5, 0.5), 1.0)
        moved[:, 2] += rng.uniform(-0.01, 0.01, 2) * width
        shot = cv2.warpAffine(image, moved, (width, height), borderMode=cv2.BORDER_REFLECT)
        shot = np.clip(shot * rng.uniform(0.9, 1.1) + rng.normal(0, 4, shot.shape), 0, 255).astype(np.uint8)
        pair = [photo.perceptual_hash, perceptual_hash(shot)]
        near += len(near_identical_groups(pair, 8)) == 1
    assert near >= 38
