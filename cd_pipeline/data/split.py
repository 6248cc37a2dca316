"""The split: depends on each photo's content, never on listing order, file times or machine."""

from collections import defaultdict
from dataclasses import replace

from cd_pipeline.data.files import digest
from cd_pipeline.data.listing import one_line
from cd_pipeline.data.near_identical import near_identical_groups
from cd_pipeline.data.photos import Photo
from cd_pipeline.data.settings import SplitSettings

SPLITS = ("train", "val", "test")


def assign_splits(photos: list[Photo], settings: SplitSettings) -> list[Photo]:
    """Give every usable photo its split; the second of two identical pictures is quarantined.

    In a single tree, a photo is in test when its own hash falls under the test share, so that it never
    moves as the set grows. The others are ranked by hash within their class; the first
    floor(train_share * n) are train, the rest val. Near-identical photos stay together: the one with the
    smallest hash decides for all. With a test folder, photos that are near-identical to one in it are
    quarantined.

    Args:
        photos: the inventory's photos, usable or not.
        settings: shares and seed.

    Returns:
        All photos in path order; `split` is train, val or test, and "" for a quarantined one.

    Raises:
        ValueError: a split would be empty.
    """
    checked = quarantine_duplicates(photos, settings)
    groups = _groups(checked, settings)
    checked = _without_look_alikes_of_test(checked, groups)
    left_out = {photo.path for photo in checked if photo.reason is not None}
    split_of: dict[str, str] = {}
    classes: dict[str, list[list[Photo]]] = defaultdict(list)
    for group in groups:
        if is_test(group[0], settings):
            split_of |= {photo.path: "test" for photo in group}
        else:
            classes[group[0].class_name].append(group)
    for members in classes.values():
        split_of |= _train_and_val(members, settings)
    split_of = {path: split for path, split in split_of.items() if path not in left_out}
    _refuse_empty(split_of)
    return [replace(photo, split=split_of.get(photo.path, "")) for photo in checked]


def _groups(photos: list[Photo], settings: SplitSettings) -> list[list[Photo]]:
    # near-identical usable photos, the one that decides first: of test where a folder says so, else by hash
    usable = [photo for photo in photos if photo.reason is None]
    found = near_identical_groups([photo.perceptual_hash for photo in usable], settings.near_identical)
    return [
        sorted(
            (usable[index] for index in group),
            key=lambda photo: (photo.tree != "test", digest(settings.seed, "rank", photo.sha256), photo.path),
        )
        for group in found
    ]


def _without_look_alikes_of_test(photos: list[Photo], groups: list[list[Photo]]) -> list[Photo]:
    reasons = {
        photo.path: f"nearly the same picture as {one_line(group[0].path)}, which is in test"
        for group in groups
        for photo in group
        if group[0].tree == "test" and photo.tree != "test"
    }
    return [replace(photo, reason=reasons.get(photo.path, photo.reason)) for photo in photos]


def _train_and_val(groups: list[list[Photo]], settings: SplitSettings) -> dict[str, str]:
    ranked = sorted(groups, key=lambda group: digest(settings.seed, "rank", group[0].sha256))
    count = int(settings.train_share * sum(map(len, ranked)) + 1e-9)  # 0.8 * 35 is 28.000000000000004
    split_of: dict[str, str] = {}
    for group in ranked:
        split = "train" if len(split_of) < count else "val"
        split_of |= {photo.path: split for photo in group}
    return split_of


def is_test(photo: Photo, settings: SplitSettings) -> bool:
    """Tell whether a photo belongs to test: by its folder, or by its own hash in a single tree."""
    if photo.tree:
        return photo.tree == "test"
    # 52 bits of the hash as a share in [0, 1)
    return int(digest(settings.seed, "test", photo.sha256)[:13], 16) / 16**13 < settings.test_share


def quarantine_duplicates(photos: list[Photo], settings: SplitSettings) -> list[Photo]:
    """Keep the first of identical pictures (those of test first, then by path) and quarantine the others.

    Returns the photos in path order.
    """
    first: dict[str, Photo] = {}
    result: list[Photo] = []
    for photo in sorted(photos, key=lambda photo: (not is_test(photo, settings), photo.path)):
        kept = first.setdefault(photo.pixels_sha256, photo) if photo.reason is None else photo
        result.append(
            photo if kept is photo else replace(photo, reason=f"same picture as {one_line(kept.path)}")
        )
    return sorted(result, key=lambda photo: photo.path)


def _refuse_empty(split_of: dict[str, str]) -> None:
    counts = {split: list(split_of.values()).count(split) for split in SPLITS}
    if not all(counts.values()):
        shown = ", ".join(f"{split} {count}" for split, count in counts.items())
        raise ValueError(
            f"split: every part needs a photo, found {shown}; add photos (5 a class or more) or change "
            "split.train_share or split.test_share in the recipe"
        )


def leaks(photos: list[Photo]) -> list[list[str]]:
    """Return the paths of every picture that is in two splits or more."""
    places: dict[str, list[Photo]] = defaultdict(list)
    for photo in photos:
        if photo.split:
            places[photo.pixels_sha256].append(photo)
    return [
        [photo.path for photo in same] for same in places.values() if len({photo.split for photo in same}) > 1
    ]
