from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cd_pipeline.data.files import file_digest
from cd_pipeline.data.samples import Roots, Sample
from cd_pipeline.synthesis.nuisance import Nuisance, apply_nuisance, draw_nuisance
from cd_pipeline.synthesis.photo_store import PhotoStore
from cd_pipeline.synthesis.realistic_plan import (
    Patch,
    PhotoSource,
    RealisticChange,
    RealisticPlan,
    View,
    plan_realistic,
)
from cd_pipeline.synthesis.realistic_render import Rendering, render_realistic
from cd_pipeline.synthesis.render import untruthful_pixels
from cd_pipeline.synthesis.settings import (
    REALISTIC_WEIGHTS,
    SHAPE_WEIGHTS,
    NuisanceSettings,
    RealisticSynthesis,
)
from cd_pipeline_tests.drawn import Pixels

SIZE = 64
SETTINGS = RealisticSynthesis.model_validate({"preset": "realistic", "no_change_share": 0.05})
KINDS, SHAPES = tuple(REALISTIC_WEIGHTS), tuple(SHAPE_WEIGHTS)
WHOLE = View(0.0, 0.0, 1.0, 1.0, False)
CHANGE = RealisticChange(
    kind="black",
    shape="rectangle",
    left=0.25,
    top=0.125,
    width=0.375,
    height=0.25,
    to_left=0.5,
    to_top=0.625,
    feather=0.0,
    seed=3,
)
NOTHING = RealisticPlan(WHOLE, (), False, 1.5, None, None)


@pytest.fixture(scope="module")
def photos(room_roots: Roots) -> PhotoStore:
    return PhotoStore(room_roots)


def drawn(seed: int, pool: list[PhotoSource], options: RealisticSynthesis = SETTINGS) -> RealisticPlan:
    rng = np.random.default_rng(seed)
    return plan_realistic(rng, pool[seed % len(pool)], pool, options, options.weights_of("train"))


def of(pool: list[PhotoSource], plan: RealisticPlan, photos: PhotoStore, **options: bool) -> Rendering:
    """Render a plan of the first photo."""
    return render_realistic(plan, pool[0].photo, pool[0].sha256, photos, SIZE, **options)


def with_outline(change: RealisticChange, pool: list[PhotoSource]) -> RealisticChange:
    """Give a change what its kind and shape take from photos."""
    box = pool[1].boxes[0]
    patch = Patch(pool[1].photo, pool[1].sha256, box.cx - box.w / 2, box.cy - box.h / 2, box.w, box.h)
    return replace(
        change,
        source=patch if change.kind in ("insert", "replace", "retexture") else None,
        outline=patch if change.shape == "cutout" else None,
    )


def differs(pair: Sample) -> npt.NDArray[np.bool_]:
    return np.asarray((pair.before != pair.after).any(axis=2))


def test_without_nuisance_the_mask_is_255_wherever_before_and_after_differ(
    pool: list[PhotoSource], photos: PhotoStore
) -> None:
    seen = Counter[tuple[str, str]]()
    for seed in range(150):
        plan = drawn(seed, pool)
        source = pool[seed % len(pool)]
        pair, owners = render_realistic(plan, source.photo, source.sha256, photos, SIZE, nuisance=False)
        assert [image.shape for image in pair.arrays[:3]] == [(64, 64, 3), (64, 64, 3), (64, 64)]
        assert pair.valid is None
        assert set(np.unique(pair.mask)) <= {0, 255}
        assert not (differs(pair) & (pair.mask == 0)).any()
        assert untruthful_pixels(pair) == 0
        assert (owners.dtype, owners.shape) == (np.int16, (64, 64))
        np.testing.assert_array_equal(owners >= 0, pair.mask == 255)
        assert owners.max(initial=-1) < len(plan.changes)
        if not plan.changes:
            assert not pair.mask.any()
        seen.update((change.kind, change.shape) for change in plan.changes)
    assert set(seen) == {(kind, shape) for kind in KINDS for shape in SHAPES}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_and_shape_alone_changes_something_where_its_mask_says(
    kind: str, pool: list[PhotoSource], photos: PhotoStore
) -> None:
    for shape in SHAPES:
        for feather in (0.0, 0.03):
            change = with_outline(replace(CHANGE, kind=kind, shape=shape, feather=feather), pool)
            pair, owners = of(pool, replace(NOTHING, changes=(change,), min_visible=0.0), photos)
            found = differs(pair)
            assert found.sum() > 0.1 * (pair.mask > 0).sum() > 0, shape
            assert not (found & (pair.mask == 0)).any()
            assert set(np.unique(owners)) == {-1, 0}


def test_a_rectangle_is_marked_exactly(pool: list[PhotoSource], photos: PhotoStore) -> None:
    pair, _ = of(pool, replace(NOTHING, changes=(CHANGE,)), photos)
    expected = np.zeros((64, 64), np.uint8)
    expected[8:24, 16:40] = 255
    np.testing.assert_array_equal(pair.mask, expected)
    assert not pair.after[8:24, 16:40].any()
    np.testing.assert_array_equal(pair.after[expected == 0], pair.before[expected == 0])


@pytest.mark.parametrize("target", [(0.5, 0.625), (0.3125, 0.25)], ids=["apart", "overlapping"])
def test_the_mask_of_a_move_covers_both_places(
    target: tuple[float, float], pool: list[PhotoSource], photos: PhotoStore
) -> None:
    change = replace(CHANGE, kind="move", to_left=target[0], to_top=target[1])
    pair, _ = of(pool, replace(NOTHING, changes=(change,)), photos)
    x, y = (int(share * 64) for share in target)
    expected = np.zeros((64, 64), np.uint8)
    expected[8:24, 16:40] = expected[y : y + 16, x : x + 24] = 255
    np.testing.assert_array_equal(pair.mask, expected)
    np.testing.assert_array_equal(pair.after[y : y + 16, x : x + 24], pair.before[8:24, 16:40])


def test_where_changes_overlap_the_later_one_owns_the_pixels(
    pool: list[PhotoSource], photos: PhotoStore
) -> None:
    changes = tuple(
        with_outline(replace(CHANGE, kind=kind, shape=shape, left=left, seed=number), pool)
        for number, (kind, shape, left) in enumerate(
            [
                ("black", "rectangle", 0.1),
                ("move", "ellipse", 0.3),
                ("replace", "polygon", 0.5),
                ("rect", "cutout", 0.2),
            ]
        )
    )
    plan = replace(NOTHING, changes=changes, min_visible=0.0)
    owners = of(pool, plan, photos).owners
    expected = np.full((64, 64), -1)
    for number, change in enumerate(changes):  # regions do not depend on what the picture shows
        alone, _ = of(pool, replace(plan, changes=(change,)), photos)
        expected[alone.mask > 0] = number
    np.testing.assert_array_equal(owners, expected)
    assert set(np.unique(owners)) == {-1, 0, 1, 2, 3}


def test_an_invisible_change_is_undone_and_not_marked(pool: list[PhotoSource], photos: PhotoStore) -> None:
    for seed in range(25):
        plan = replace(drawn(seed, pool), min_visible=256.0)
        pair, owners = of(pool, plan, photos, nuisance=False)
        np.testing.assert_array_equal(pair.before, pair.after)
        assert not pair.mask.any()
        assert (owners == -1).all()


def test_an_invisible_change_leaves_the_visible_ones_alone(
    pool: list[PhotoSource], photos: PhotoStore
) -> None:
    inert = replace(CHANGE, kind="replace", left=0.2, top=0.1, width=0.5, height=0.5)  # shows itself
    alone, _ = of(pool, replace(NOTHING, changes=(replace(CHANGE, left=0.6, top=0.6),)), photos)
    plan = replace(NOTHING, changes=(inert, replace(CHANGE, left=0.6, top=0.6), replace(inert, left=0.0)))
    both, owners = of(pool, plan, photos)
    for image, expected in zip(both.arrays[:3], alone.arrays[:3], strict=True):
        np.testing.assert_array_equal(image, expected)
    assert set(np.unique(owners)) == {-1, 1}


def test_swapping_exchanges_before_and_after(pool: list[PhotoSource], photos: PhotoStore) -> None:
    for seed in range(12):
        plan = drawn(seed, pool)
        plain, swapped = (
            of(pool, replace(plan, swapped=swap), photos, nuisance=False) for swap in (False, True)
        )
        np.testing.assert_array_equal(plain.pair.before, swapped.pair.after)
        np.testing.assert_array_equal(plain.pair.after, swapped.pair.before)
        np.testing.assert_array_equal(plain.pair.mask, swapped.pair.mask)
        np.testing.assert_array_equal(plain.owners, swapped.owners)


def test_each_photo_has_its_own_nuisance_and_the_mask_none(
    pool: list[PhotoSource], photos: PhotoStore
) -> None:
    for seed in range(25):
        plan = drawn(seed, pool)
        plain, noisy = (of(pool, plan, photos, nuisance=on).pair for on in (False, True))
        np.testing.assert_array_equal(plain.mask, noisy.mask)
        shown = np.full((64, 64), 255, np.uint8)
        for before, after, nuisance in (
            (plain.before, noisy.before, plan.before_nuisance),
            (plain.after, noisy.after, plan.after_nuisance),
        ):
            if nuisance is None:
                np.testing.assert_array_equal(before, after)
            else:
                expected, seen = apply_nuisance(before, nuisance)
                np.testing.assert_array_equal(after, expected)
                shown = np.minimum(shown, seen)
        if plan.uncovers:
            np.testing.assert_array_equal(noisy.valid, shown)


def nuisance_of(*corners: float) -> Nuisance:
    drawn_ = draw_nuisance(np.random.default_rng(0), NuisanceSettings())
    return replace(drawn_, corners=corners or (0.0,) * 8)


@pytest.mark.parametrize(
    ("before", "after", "border"),
    [
        (None, None, None),
        (nuisance_of(), None, None),
        (nuisance_of(), nuisance_of(), None),
        (nuisance_of(*(2.0, 1.0) * 4), None, (2, 1, 0, 0)),
        (None, nuisance_of(*(-3.0, 0.0) * 4), (0, 0, 3, 0)),
        (nuisance_of(*(1.0, -2.0) * 4), nuisance_of(*(-2.0, 1.0) * 4), (1, 1, 2, 2)),
    ],
)
def test_only_the_border_that_a_shift_uncovers_does_not_count(
    before: Nuisance | None,
    after: Nuisance | None,
    border: tuple[int, int, int, int] | None,
    pool: list[PhotoSource],
    photos: PhotoStore,
) -> None:
    plan = replace(NOTHING, changes=(CHANGE,), before_nuisance=before, after_nuisance=after)
    assert plan.uncovers == (border is not None)
    valid = of(pool, plan, photos).pair.valid
    if border is None:
        assert valid is None
        return
    left, top, right, bottom = border
    expected = np.zeros((64, 64), np.uint8)
    expected[top : 64 - bottom, left : 64 - right] = 255
    np.testing.assert_array_equal(valid, expected)


def test_valid_is_there_exactly_where_a_plan_moves_corners(
    pool: list[PhotoSource], photos: PhotoStore
) -> None:
    seen = set()
    for seed in range(60):
        plan = drawn(seed, pool)
        pair = of(pool, plan, photos).pair
        drawn_ = [n for n in (plan.before_nuisance, plan.after_nuisance) if n is not None]
        moves = any(abs(offset) > 0 for n in drawn_ for offset in n.corners)
        assert (pair.valid is not None) == moves
        if pair.valid is not None:
            assert set(np.unique(pair.valid)) <= {0, 255}
            assert (pair.valid[6:-6, 6:-6] == 255).all()  # shift 2 px and warp 3 px
        seen.add(moves)
    assert seen == {True, False}


def area_mean(photo: npt.NDArray[np.float64], rows: int, columns: int) -> npt.NDArray[np.float64]:
    """Shrink by averaging what each new pixel covers, parts of pixels included."""

    def cover(new: int, old: int) -> npt.NDArray[np.float64]:
        edges = np.arange(old + 1)
        starts = np.arange(new)[:, None] * old / new
        inside = np.clip(edges[None], starts, starts + old / new)
        return np.asarray(np.diff(inside, axis=1) * new / old)

    both = (cover(rows, photo.shape[0]), photo, cover(columns, photo.shape[1]))
    return np.asarray(np.einsum("yi,ijc,xj->yxc", *both, optimize=True))


def cropped(photo: Pixels, view: View) -> npt.NDArray[np.float64]:
    """Reduce a photo to a shorter side of 128 px, cut out the view and shrink it to 64x64."""
    height, width = photo.shape[:2]
    scale = 128 / min(height, width)
    small = np.rint(area_mean(photo.astype(np.float64), round(height * scale), round(width * scale)))
    height, width = small.shape[:2]
    rows, columns = round(view.height * height), round(view.width * width)
    top, left = int(view.top * height), int(view.left * width)
    part = area_mean(small[top : top + rows, left : left + columns], 64, 64)
    return part[:, ::-1] if view.flipped else part


@pytest.mark.parametrize("seed", range(8))
def test_without_nuisance_before_is_the_view_of_the_photo(
    room_roots: Roots, pool: list[PhotoSource], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    width, height = rng.uniform(0.6, 1.0, 2)
    view = View(
        rng.random() * (1 - width), rng.random() * (1 - height), width, height, bool(rng.random() < 0.5)
    )
    pair, _ = of(pool, replace(NOTHING, view=view), PhotoStore(room_roots))
    photo = np.asarray(Image.open(room_roots.resolve(pool[0].photo)))
    np.testing.assert_allclose(pair.before, cropped(photo, view), rtol=0, atol=1.01)
    np.testing.assert_array_equal(pair.before, pair.after)


def test_a_view_of_whole_pixels_is_the_mean_of_its_blocks(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (128, 192, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    photos = PhotoStore(Roots(tmp_path, tmp_path))
    for left, flipped in ((0.0, False), (1 / 3, False), (1 / 3, True)):
        view = View(left, 0.0, 2 / 3, 1.0, flipped)
        sha256 = file_digest(tmp_path / "a.png")
        pair, _ = render_realistic(replace(NOTHING, view=view), "source:a.png", sha256, photos, 64)
        x = round(left * 192)
        blocks = pixels[:, x : x + 128].reshape(64, 2, 64, 2, 3).mean((1, 3))
        np.testing.assert_allclose(pair.before, blocks[:, ::-1] if flipped else blocks, rtol=0, atol=0.51)


@pytest.mark.parametrize("flipped", [False, True])
def test_a_cutout_of_the_photo_lies_on_its_object(flipped: bool, tmp_path: Path) -> None:
    y, x = np.mgrid[:128, :128]
    half = ((x - 40) ** 2 + (y - 60) ** 2 <= 26**2) & (x <= 40 + 8)  # not symmetric: mirroring shows
    rng = np.random.default_rng(0)
    pixels = np.where(half[..., None], (230, 200, 60), (30, 40, 50)) + rng.normal(0, 5, (128, 128, 3))
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    sha256 = file_digest(tmp_path / "a.png")
    left, top, width, height = 12 / 128, 32 / 128, 40 / 128, 56 / 128
    change = replace(
        CHANGE,
        shape="cutout",
        left=1 - left - width if flipped else left,
        top=top,
        width=width,
        height=height,
        outline=Patch("source:a.png", sha256, left, top, width, height),
    )
    plan = replace(NOTHING, view=View(0.0, 0.0, 1.0, 1.0, flipped), changes=(change,))
    photos = PhotoStore(Roots(tmp_path, tmp_path))
    mask = render_realistic(plan, "source:a.png", sha256, photos, SIZE).pair.mask > 0
    expected = half[::2, ::2]
    expected = expected[:, ::-1] if flipped else expected
    assert (mask & expected).sum() / (mask | expected).sum() > 0.85


def test_the_bytes_do_not_depend_on_order_threads_or_cache(
    room_roots: Roots, pool: list[PhotoSource]
) -> None:
    plans = [drawn(seed, pool) for seed in range(24)]

    def bytes_of(number: int, photos: PhotoStore) -> tuple[bytes, ...]:
        pair, owners = of(pool, plans[number], photos)
        return (*(image.tobytes() for image in pair.arrays), owners.tobytes())

    kept, small, none = (PhotoStore(room_roots, size) for size in (1 << 30, 200_000, 0))
    first = [bytes_of(number, kept) for number in range(24)]
    assert [bytes_of(number, small) for number in reversed(range(24))][::-1] == first
    assert [bytes_of(number, kept) for number in reversed(range(24))][::-1] == first
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda number: bytes_of(number, none), range(24))) == first
        shared = PhotoStore(room_roots)
        assert list(threads.map(lambda number: bytes_of(number, shared), range(24))) == first


def test_a_plan_shows_the_same_places_at_another_size(room_roots: Roots, pool: list[PhotoSource]) -> None:
    photos = PhotoStore(room_roots)
    for kind in ("black", "move"):
        plan = replace(NOTHING, changes=(replace(CHANGE, kind=kind, shape="ellipse"),))
        small, large = (
            render_realistic(plan, pool[0].photo, pool[0].sha256, photos, size).pair.mask > 0
            for size in (64, 128)
        )
        enlarged = small.repeat(2, 0).repeat(2, 1)
        assert (enlarged & large).sum() / (enlarged | large).sum() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_changes_of_any_size_up_to_the_whole_view_can_be_made(
    kind: str, pool: list[PhotoSource], photos: PhotoStore
) -> None:
    whole = replace(CHANGE, left=0.0, top=0.0, width=1.0, height=1.0, to_left=0.0, to_top=0.0)
    tiny = replace(CHANGE, left=0.99, top=0.99, width=0.01, height=0.01, to_left=0.0, to_top=0.0)
    for change, limit in ((whole, 64 * 64), (tiny, 2 * 2 * 2)):
        for shape in SHAPES:
            made = with_outline(replace(change, kind=kind, shape=shape, feather=0.01), pool)
            pair, _ = of(pool, replace(NOTHING, changes=(made,), min_visible=0.0), photos)
            assert 0 < (pair.mask > 0).sum() <= limit
            assert not (differs(pair) & (pair.mask == 0)).any()
