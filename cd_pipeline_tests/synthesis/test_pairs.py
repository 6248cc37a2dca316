import hashlib
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cd_pipeline.data.images import read_mask, read_photo, write_png
from cd_pipeline.data.manifest import Pair, read_pairs, write_pairs
from cd_pipeline.data.photos import Photo, scan_photos
from cd_pipeline.data.samples import Roots, load_sample
from cd_pipeline.data.settings import SplitSettings
from cd_pipeline.data.split import assign_splits
from cd_pipeline.synthesis.pairs import draw_plan, draws_a_photo, pair_id, photo_pools, plan_of, plan_pairs
from cd_pipeline.synthesis.photo_store import PhotoStore
from cd_pipeline.synthesis.plan import ChangePlan
from cd_pipeline.synthesis.realistic_plan import RealisticPlan
from cd_pipeline.synthesis.render import untruthful_pixels
from cd_pipeline.synthesis.rendered_pairs import change_owners, render_pair, render_pairs, render_plan
from cd_pipeline.synthesis.settings import PublishedSynthesis, RealisticSynthesis
from cd_pipeline_tests.drawn import draw_photo_tree

PUBLISHED = PublishedSynthesis()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = {"trainval": {"A": 8, "연습실 1": 5}, "test": {"A": 3}}
    return draw_photo_tree(tmp_path_factory.mktemp("photos"), counts)


@pytest.fixture(scope="module")
def photos(source: Path) -> list[Photo]:
    return assign_splits(scan_photos(source).photos, SplitSettings())


@pytest.fixture
def roots(source: Path, tmp_path: Path) -> Roots:
    return Roots(source, tmp_path / "data")


def files(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, hidden ones too, except decoded photos."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.relative_to(folder).parts
    }


def test_there_is_one_pair_a_photo_with_its_identity(photos: list[Photo]) -> None:
    pairs = plan_pairs(photos, PUBLISHED)
    assert Counter(pair.split for pair in pairs) == {"train": 10, "val": 3, "test": 3}
    by_photo = {pair.photo: pair for pair in pairs}
    for photo in photos:
        pair = by_photo[f"source:{photo.path}"]
        assert pair.before == pair.photo
        assert pair.after in (pair.photo, f"workspace:change_masks/{photo.split}/after/{pair.pair_id}.png")
        assert pair.mask == f"workspace:change_masks/{photo.split}/mask/{pair.pair_id}.png"
        assert (pair.split, pair.class_name, pair.boxes) == (photo.split, photo.class_name, photo.boxes)
        assert (pair.width, pair.height, pair.photo_sha256) == (photo.width, photo.height, photo.sha256)


def test_an_unchanged_photo_is_not_written_again(photos: list[Photo], roots: Roots) -> None:
    pairs = plan_pairs(photos, PUBLISHED)
    unchanged = [pair for pair in pairs if not plan_of(pair).changes]
    assert 0 < len(unchanged) < len(pairs)
    render_pairs(pairs, roots)
    for pair in pairs:
        written = roots.workspace / f"change_masks/{pair.split}/after/{pair.pair_id}.png"
        assert written.exists() == (pair not in unchanged) == (pair.after != pair.photo)
    for pair in unchanged:
        assert (pair.after, pair.after_sha256) == (pair.photo, pair.photo_sha256)
        assert not load_sample(pair, roots).mask.any()


def test_an_unchanged_photo_that_went_through_jpeg_is_written(photos: list[Photo], roots: Roots) -> None:
    pairs = plan_pairs(photos, PublishedSynthesis(reencode_jpeg=True))
    render_pairs(pairs, roots)
    for pair in pairs:
        for kind in ("before", "after"):
            assert (roots.workspace / f"change_masks/{pair.split}/{kind}/{pair.pair_id}.png").is_file()


def test_photos_without_a_split_get_no_pair(photos: list[Photo]) -> None:
    bad = replace(photos[0], split="", reason="empty file")
    assert len(plan_pairs([bad, *photos[1:]], PUBLISHED)) == len(photos) - 1


def test_the_plans_do_not_depend_on_the_order_of_the_photos(photos: list[Photo]) -> None:
    shuffled = photos.copy()
    random.Random(1).shuffle(shuffled)
    assert plan_pairs(shuffled, PUBLISHED) == plan_pairs(photos, PUBLISHED)


def test_a_plan_does_not_depend_on_the_other_photos(photos: list[Photo]) -> None:
    everything = {pair.pair_id: pair for pair in plan_pairs(photos, PUBLISHED)}
    for pair in plan_pairs(photos[::3], PUBLISHED):
        assert everything[pair.pair_id] == pair


def test_another_seed_gives_other_plans(photos: list[Photo]) -> None:
    first, second = (plan_pairs(photos, PublishedSynthesis(seed=seed)) for seed in (42, 43))
    assert [pair.pair_id for pair in first] == [pair.pair_id for pair in second]
    assert all(a.seed != b.seed for a, b in zip(first, second, strict=True))
    assert [pair.plan for pair in first] != [pair.plan for pair in second]


def test_a_pair_is_changed_when_its_mask_is_not_empty(photos: list[Photo], roots: Roots) -> None:
    options = PublishedSynthesis(
        change_probability=0.7, partial_keep_probability=0.9, partial_keep_drop_probability=0.9
    )
    seen = Counter[tuple[bool, bool]]()
    for seed in range(4):
        for pair in plan_pairs(photos, options.model_copy(update={"seed": seed})):
            mask = render_pair(pair, PhotoStore(roots)).mask
            assert pair.plan is not None
            assert pair.changed == bool(mask.any())
            seen[bool(pair.plan["changes"]), bool(pair.changed)] += 1
    # pairs whose changes were all taken back are no-change pairs
    assert set(seen) == {(True, True), (True, False), (False, False)}


def test_training_pairs_that_are_drawn_each_epoch_have_no_plan(photos: list[Photo]) -> None:
    for pair in plan_pairs(photos, PublishedSynthesis(train_pairs="fresh")):
        nothing = (pair.after, pair.mask, pair.plan, pair.changed)
        assert (nothing == (None,) * 4) == (pair.split == "train")
        assert pair.before == pair.photo


def test_val_and_test_pairs_are_the_same_whether_training_pairs_are_frozen_or_not(
    photos: list[Photo],
) -> None:
    frozen, fresh = (
        [pair for pair in plan_pairs(photos, PublishedSynthesis(train_pairs=kind)) if pair.split != "train"]
        for kind in ("frozen", "fresh")
    )
    assert frozen == fresh


def test_the_frozen_plan_and_those_of_the_epochs_differ(photos: list[Photo]) -> None:
    options = PublishedSynthesis(change_probability=1)
    pair = plan_pairs(photos, options)[0]
    plans = {draw_plan(pair, options, {}, epoch) for epoch in (None, 0, 1, 2)}
    assert len(plans) == 4
    assert pair.plan is not None
    assert ChangePlan.from_row(pair.plan) == draw_plan(pair, options, {})


names = st.text(min_size=1, max_size=80).filter(lambda text: "/" not in text and "\0" not in text)


def named(class_name: str, stem: str, content: str) -> Photo:
    digest_ = hashlib.sha256(content.encode()).hexdigest()
    path = f"images/{class_name}/{stem}.jpg"
    return Photo(path, "", class_name, "", digest_, "", digest_, 64, 48, (), (), None, "val")


@settings(max_examples=300, deadline=None)
@given(names, names)
def test_a_pair_name_is_safe_and_short_whatever_the_photo_is_called(class_name: str, stem: str) -> None:
    name = pair_id(named(class_name, stem, stem))
    assert len(name.encode()) <= 120
    assert not name.startswith(".")
    assert re.fullmatch(r"[\w.-]+", name)
    assert not set(name) & set('/\\:*?"<>|\n\r\t ')


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(names, names), min_size=2, max_size=10))
def test_photos_of_different_content_have_different_pair_names(entries: list[tuple[str, str]]) -> None:
    made = {pair_id(named(*entry, f"content {number}")) for number, entry in enumerate(entries)}
    assert len(made) == len(entries)


def test_a_pair_name_tells_class_and_stem_of_the_photo() -> None:
    photo = named("연습실 1", "방 사진 (2).v3", "x")
    assert pair_id(photo) == f"연습실_1__방_사진__2_.v3__{photo.sha256[:8]}"


def test_photos_that_differ_in_extension_alone_have_different_names() -> None:
    photo = named("A", "a", "jpg")
    other = replace(named("A", "a", "png"), path="images/A/a.png")
    assert pair_id(photo) != pair_id(other)
    assert len({pair.pair_id for pair in plan_pairs([photo, other], PUBLISHED)}) == 2


def test_two_photos_of_one_name_are_an_error_that_names_it() -> None:
    photo = named("A", "a", "x")
    with pytest.raises(ValueError, match=rf"two photos give the pair name {pair_id(photo)}"):
        plan_pairs([photo, replace(photo, path="images/A/a.png")], PUBLISHED)


def test_rendering_writes_a_mask_a_pair_and_what_is_not_the_photo_itself(
    photos: list[Photo], roots: Roots
) -> None:
    pairs = plan_pairs(photos, PUBLISHED)
    calls: list[None] = []
    render_pairs(pairs, roots, threads=1, progress=lambda: calls.append(None))
    changed = [pair for pair in pairs if plan_of(pair).changes]
    expected = {
        f"change_masks/{pair.split}/{kind}/{pair.pair_id}.png"
        for kind, those in (("after", changed), ("mask", pairs))
        for pair in those
    }
    assert set(files(roots.workspace)) == expected
    assert len(calls) == len(pairs)
    for pair in pairs:
        loaded = load_sample(pair, roots)
        assert untruthful_pixels(loaded) == 0
        for stored, drawn in zip(loaded, render_pair(pair, PhotoStore(roots)), strict=True):
            np.testing.assert_array_equal(stored, drawn)


def test_rendering_gives_the_same_bytes_for_any_thread_count_order_and_place(
    photos: list[Photo], source: Path, tmp_path: Path
) -> None:
    pairs = plan_pairs(photos, PUBLISHED)
    write_pairs(tmp_path / "pairs.parquet", pairs)
    again = read_pairs(tmp_path / "pairs.parquet")
    first, second, third = (Roots(source, tmp_path / name) for name in ("a", "b", "c"))
    version = render_pairs(pairs, first, threads=1)
    assert render_pairs(again, second, threads=4) == version
    render_pairs(pairs[::-1], third, threads=2)
    assert files(first.workspace) == files(second.workspace) == files(third.workspace)


def test_the_version_changes_with_the_pictures(photos: list[Photo], roots: Roots) -> None:
    versions = {
        render_pairs(plan_pairs(photos, PublishedSynthesis(seed=seed)), roots, threads=2)
        for seed in (1, 2, 1)
    }
    assert len(versions) == 2


def test_leftovers_of_an_earlier_manifest_are_deleted(photos: list[Photo], roots: Roots) -> None:
    reencoded = plan_pairs(photos, PublishedSynthesis(reencode_jpeg=True))
    render_pairs(reencoded, roots, threads=2)
    assert len(files(roots.workspace)) == 3 * len(photos)
    pairs = plan_pairs(photos[1:], PublishedSynthesis(train_pairs="fresh"))
    render_pairs(pairs, roots, threads=2)
    frozen = [pair for pair in pairs if pair.split != "train"]
    assert set(files(roots.workspace)) == {
        f"change_masks/{pair.split}/{kind}/{pair.pair_id}.png"
        for pair in frozen
        for kind in ("after", "mask")
    }


def test_reencoded_pairs_bring_their_own_before(photos: list[Photo], roots: Roots) -> None:
    pairs = plan_pairs(photos[:2], PublishedSynthesis(reencode_jpeg=True))
    render_pairs(pairs, roots, threads=1)
    for pair in pairs:
        assert pair.before == f"workspace:change_masks/{pair.split}/before/{pair.pair_id}.png"
        before = load_sample(pair, roots).before
        assert (before != read_photo(roots.resolve(pair.photo))).any()


def test_the_users_photos_are_not_touched(photos: list[Photo], roots: Roots) -> None:
    before = files(roots.source)
    render_pairs(plan_pairs(photos, PublishedSynthesis(reencode_jpeg=True)), roots, threads=2)
    assert files(roots.source) == before


def test_masks_are_0_and_255_and_of_the_photos_size(photos: list[Photo], roots: Roots) -> None:
    pairs = plan_pairs(photos, PUBLISHED)
    render_pairs(pairs, roots, threads=2)
    values = set()
    for pair in pairs:
        mask = read_mask(roots.resolve(str(pair.mask)))
        assert mask.shape == (pair.height, pair.width)
        values |= set(np.unique(mask))
    assert values == {0, 255}


def test_a_photo_that_changed_its_size_is_an_error_with_the_remedy(
    photos: list[Photo], tmp_path: Path
) -> None:
    pair = replace(plan_pairs(photos, PUBLISHED)[0], photo="source:a.png")
    write_png(tmp_path / "a.png", np.zeros((50, 60, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: the file has changed; materialize all assets again"):
        render_pair(pair, PhotoStore(Roots(tmp_path, tmp_path)))


def test_a_photo_that_is_gone_is_an_error_with_its_path(photos: list[Photo], tmp_path: Path) -> None:
    pairs = plan_pairs(photos, PUBLISHED)
    with pytest.raises(FileNotFoundError, match=re.escape(pairs[0].photo.removeprefix("source:"))):
        render_pairs(pairs[:1], Roots(tmp_path, tmp_path / "data"), threads=1)


def test_a_pair_without_a_plan_cannot_be_rendered(photos: list[Photo], roots: Roots) -> None:
    pair: Pair = replace(plan_pairs(photos, PUBLISHED)[0], plan=None)
    with pytest.raises(ValueError, match="no plan in the manifest"):
        render_pair(pair, PhotoStore(roots))


def realistic(**values: object) -> RealisticSynthesis:
    return RealisticSynthesis.model_validate(
        {"preset": "realistic", "epoch_pairs": 25, "frozen_pairs": 7, **values}
    )


def parts(pair: Pair) -> dict[str, str]:
    """Return the references of a frozen realistic pair that its name decides."""
    return {
        kind: f"workspace:change_masks/{pair.split}/{kind}/{pair.pair_id}.png"
        for kind in ("before", "after", "mask", "valid")
    }


@pytest.mark.parametrize(("wanted", "each"), [(1, 1), (10, 1), (11, 2), (25, 3), (30, 3)])
def test_each_photo_gives_as_many_realistic_pairs_as_it_takes(
    photos: list[Photo], wanted: int, each: int
) -> None:
    # 10 train, 3 val and 3 test photos
    settings_ = realistic(epoch_pairs=wanted)
    assert draws_a_photo(photos, settings_) == {"train": each, "val": 3, "test": 3}
    pairs = plan_pairs(photos, settings_, 64)
    counts = Counter((pair.split, pair.photo) for pair in pairs)
    assert {
        split: {n for (s, _), n in counts.items() if s == split} for split in ("train", "val", "test")
    } == {
        "train": {each},
        "val": {3},
        "test": {3},
    }
    assert len({pair.pair_id for pair in pairs}) == len(pairs)
    assert len({pair.seed for pair in pairs}) == len(pairs)


def test_fresh_realistic_pairs_have_no_plan_and_frozen_ones_have_theirs(photos: list[Photo]) -> None:
    for kind in ("fresh", "frozen"):
        for pair in plan_pairs(photos, realistic(train_pairs=kind), 64):
            assert pair.side == 64
            assert pair.plan is None
            if kind == "fresh" and pair.split == "train":
                nothing = (pair.after, pair.mask, pair.valid, pair.changed, pair.realistic_plan)
                assert nothing == (None,) * 5
                assert pair.before == pair.photo
                continue
            plan, expected = plan_of(pair), parts(pair)
            assert isinstance(plan, RealisticPlan)
            assert (pair.before, pair.after, pair.mask) == tuple(expected.values())[:3]
            corners = [n.corners for n in (plan.before_nuisance, plan.after_nuisance) if n is not None]
            assert pair.valid == (expected["valid"] if any(map(any, corners)) else None)
            assert pair.changed == (len(plan.changes) > 0)


def test_realistic_plans_do_not_depend_on_the_order_of_the_photos(photos: list[Photo]) -> None:
    shuffled = photos.copy()
    random.Random(1).shuffle(shuffled)
    assert plan_pairs(shuffled, realistic(), 64) == plan_pairs(photos, realistic(), 64)


def test_the_size_of_realistic_pairs_changes_no_plan(photos: list[Photo]) -> None:
    small, large = (plan_pairs(photos, realistic(), size) for size in (64, 128))
    assert [replace(pair, side=128) for pair in small] == large


def test_another_seed_gives_other_realistic_plans(photos: list[Photo]) -> None:
    first, second = (plan_pairs(photos, realistic(seed=seed), 64) for seed in (42, 43))
    assert [pair.pair_id for pair in first] == [pair.pair_id for pair in second]
    frozen = [(a, b) for a, b in zip(first, second, strict=True) if a.after is not None]
    assert all(a.realistic_plan != b.realistic_plan for a, b in frozen)


def test_objects_and_textures_never_come_from_another_split(photos: list[Photo]) -> None:
    pairs = plan_pairs(photos, realistic(train_pairs="frozen"), 64)
    splits = {f"source:{photo.path}": photo.split for photo in photos}
    pools = photo_pools(pairs)
    for split, members in pools.items():
        names = [member.photo for member in members]
        assert names == sorted(name for name, of in splits.items() if of == split)
    taken = Counter[str]()
    for pair in pairs:
        plan = plan_of(pair)
        assert isinstance(plan, RealisticPlan)
        for change in plan.changes:
            for patch in (change.source, change.outline):
                if patch is not None:
                    assert splits[patch.photo] == pair.split
                    taken[pair.split] += patch.photo != pair.photo
    assert min(taken[split] for split in splits.values()) > 0


def test_held_out_kinds_are_never_in_train_or_val_plans(photos: list[Photo]) -> None:
    held_out = {"blur", "move", "insert"}
    settings_ = realistic(held_out_kinds=sorted(held_out), frozen_pairs=90)
    kinds: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    pairs = plan_pairs(photos, settings_, 64)
    pools = photo_pools(pairs)
    for pair in pairs:
        plans = (
            [draw_plan(pair, settings_, pools, epoch) for epoch in range(3)]
            if pair.after is None
            else [plan_of(pair)]
        )
        kinds[pair.split] |= {change.kind for plan in plans for change in plan.changes}
    assert kinds["test"] == set(settings_.kind_weights)
    assert kinds["train"] == kinds["val"] == kinds["test"] - held_out


def test_the_frozen_realistic_plan_is_the_one_drawn_without_an_epoch(photos: list[Photo]) -> None:
    settings_ = realistic()
    pairs = plan_pairs(photos, settings_, 64)
    pools = photo_pools(pairs)
    for pair in [pair for pair in pairs if pair.after is not None][:6]:
        drawn = [draw_plan(pair, settings_, pools, epoch) for epoch in (None, 0, 1)]
        assert plan_of(pair) == drawn[0]
        assert drawn[0] != drawn[1] != drawn[2]


def test_realistic_pairs_are_written_whole_and_read_back_as_rendered(
    photos: list[Photo], roots: Roots, tmp_path: Path
) -> None:
    pairs = plan_pairs(photos, realistic(), 64)
    frozen = [pair for pair in pairs if pair.split != "train"]
    version = render_pairs(pairs, roots, threads=1)
    expected = {
        parts(pair)[kind].removeprefix("workspace:")
        for pair in frozen
        for kind in ("before", "after", "mask", *(["valid"] if pair.valid else []))
    }
    assert set(files(roots.workspace)) == expected
    store = PhotoStore(roots, cache_bytes=0)
    for pair in frozen:
        loaded, drawn = load_sample(pair, roots), render_pair(pair, store)
        assert (loaded.valid is None) == (pair.valid is None)
        for stored, rendered in zip(loaded, drawn, strict=True):
            np.testing.assert_array_equal(stored, rendered)
        assert loaded.mask.shape == (64, 64)
        assert untruthful_pixels(render_pair(pair, store, nuisance=False)) == 0
    other = Roots(roots.source, tmp_path / "other")
    assert render_pairs(pairs[::-1], other, threads=3) != ""
    assert files(other.workspace) == files(roots.workspace)
    assert render_pairs(pairs, other, threads=3) == version


def test_leftovers_of_realistic_pairs_are_deleted(photos: list[Photo], roots: Roots) -> None:
    render_pairs(plan_pairs(photos, realistic(), 64), roots, threads=2)
    still = realistic(frozen_pairs=3, nuisance={"shift": 0.0, "warp": 0.0})
    render_pairs(plan_pairs(photos, still, 64), roots, threads=2)
    kept = Counter(Path(name).parent.name for name in files(roots.workspace))
    assert kept == {"before": 6, "after": 6, "mask": 6}
    published = plan_pairs(photos, PublishedSynthesis(train_pairs="fresh"))
    render_pairs(published, roots, threads=2)
    kept = Counter(Path(name).parent.name for name in files(roots.workspace))
    assert kept == {"after": 6, "mask": 6}


def test_the_owners_of_a_frozen_pair_agree_with_its_mask(photos: list[Photo], roots: Roots) -> None:
    store = PhotoStore(roots)
    for settings_ in (PUBLISHED, realistic()):
        for pair in plan_pairs(photos, settings_, 64):
            if pair.after is None:
                continue
            owners, kinds = change_owners(pair, store)
            assert kinds == [change.kind for change in plan_of(pair).changes]
            np.testing.assert_array_equal(owners >= 0, render_pair(pair, store).mask == 255)
            assert owners.max() < len(kinds)


def test_a_realistic_pair_needs_its_side(photos: list[Photo], roots: Roots) -> None:
    pairs = plan_pairs(photos, realistic(), 64)
    pair = next(pair for pair in pairs if pair.after is not None)
    with pytest.raises(ValueError, match="no side in the manifest; materialize pair_manifest again"):
        render_pair(replace(pair, side=None), PhotoStore(roots))


def test_a_photo_that_changed_is_an_error_for_realistic_pairs_too(photos: list[Photo], roots: Roots) -> None:
    settings_ = realistic()
    pairs = plan_pairs(photos, settings_, 64)
    fresh = next(pair for pair in pairs if pair.after is None)
    plan = draw_plan(fresh, settings_, photo_pools(pairs), epoch=0)
    changed = replace(fresh, photo_sha256="0" * 64)
    with pytest.raises(ValueError, match="the file has changed; materialize all assets again"):
        render_plan(changed, plan, PhotoStore(roots))
