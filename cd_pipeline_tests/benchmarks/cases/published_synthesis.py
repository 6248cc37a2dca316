"""The published kinds of change: ours, and one photo at a time by the published rules."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.files import digest
from cd_pipeline.data.images import read_mask, read_photo
from cd_pipeline.data.machine import usable_cores
from cd_pipeline.data.manifest import Pair
from cd_pipeline.synthesis.pairs import plan_of
from cd_pipeline.synthesis.plan import Change, ChangePlan
from cd_pipeline.synthesis.rendered_pairs import render_pairs
from cd_pipeline_tests.benchmarks.cases.profiles import profiled_rendering
from cd_pipeline_tests.benchmarks.cases.published_files import write_published_pair
from cd_pipeline_tests.benchmarks.cases.rooms import first_pairs, prepare_plans, roots
from cd_pipeline_tests.benchmarks.measure import Side, Sizes

Pixels = npt.NDArray[np.uint8]


def prepare(folder: Path, sizes: Sizes) -> None:
    prepare_plans(folder)


def ours(folder: Path, sizes: Sizes) -> Side:
    pairs = first_pairs(folder, "published", "train", sizes["pairs"])
    places = roots(folder, "synthesis_published")

    def run() -> None:
        render_pairs(pairs, places, threads=usable_cores())

    def answer() -> dict[str, str]:
        files = {p.pair_id: [places.resolve(str(name)) for name in (p.after, p.mask)] for p in pairs}
        return {
            name: digest(read_photo(after).tobytes(), read_mask(mask).tobytes())
            for name, (after, mask) in files.items()
        }

    return Side(run, answer, lambda: profiled_rendering(pairs, places))


def reference(folder: Path, sizes: Sizes) -> Side:
    pairs = first_pairs(folder, "published", "train", sizes["pairs"])
    places = roots(folder, "synthesis_published_reference")

    def run() -> None:
        for pair in pairs:
            write_published_pair(places.workspace, pair.pair_id, *made(pair, str(places.resolve(pair.photo))))

    def answer() -> dict[str, str]:
        pictures = {pair.pair_id: made(pair, str(places.resolve(pair.photo))) for pair in pairs}
        return {name: digest(after.tobytes(), mask.tobytes()) for name, (_, after, mask) in pictures.items()}

    return Side(run, answer)


def made(pair: Pair, path: str) -> tuple[Pixels, Pixels, Pixels]:
    """Before, after and mask by the changes of the pair's plan; a dropped region is restored in the picture."""
    photo = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
    after, mask = photo.copy(), np.zeros(photo.shape[:2], np.uint8)
    plan = plan_of(pair)
    assert isinstance(plan, ChangePlan)
    for change in plan.changes:
        apply(change, after, mask)
        for polygon in change.erased:
            dropped = (
                cv2.fillPoly(np.zeros_like(mask), [np.array(polygon, np.int32).reshape(-1, 2)], (255,)) > 0
            )
            mask[dropped], after[dropped] = 0, photo[dropped]
    return photo, after, mask


def apply(change: Change, after: Pixels, mask: Pixels) -> None:
    """Make one change of S1, in place; black and inpaint take the rectangle with its far edges."""
    kind, x, y, w, h = change.kind, change.x, change.y, change.width, change.height
    region = slice(y, y + h), slice(x, x + w)
    inclusive = slice(y, y + h + 1), slice(x, x + w + 1)
    mask[inclusive if kind in ("black", "inpaint") else region] = 255
    if kind == "black":
        after[inclusive] = 0
    elif kind == "inpaint":
        hole = np.zeros_like(mask)
        hole[inclusive] = 255
        after[:] = cv2.inpaint(after, hole, 3, cv2.INPAINT_TELEA)
    elif kind == "rect":
        rng = np.random.Generator(np.random.PCG64(change.noise_seed))
        after[region] = rng.integers(0, 30, (h, w, 3), np.uint8)
    elif kind == "blur":
        kernel = max(3, 2 * (min(w, h) // 10) + 1)
        after[region] = cv2.GaussianBlur(after[region].copy(), (kernel, kernel), 0)
    elif kind == "pixel":
        small = max(1, int(w * 0.15)), max(1, int(h * 0.15))
        coarse = cv2.resize(after[region].copy(), small, interpolation=cv2.INTER_LINEAR)
        after[region] = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_NEAREST)
    else:
        assert change.to_x is not None and change.to_y is not None  # what `move` has
        to = slice(change.to_y, change.to_y + h), slice(change.to_x, change.to_x + w)
        after[to] = after[region].copy()
        after[region] = 0
        mask[to] = 255


def compare(found: dict[str, str], expected: dict[str, str]) -> str:
    differing = [name for name in expected if found.get(name) != expected[name]]
    assert not differing and len(found) == len(expected), f"after or mask differ: {differing[:5]}"
    return f"{len(found)} pairs: after (before any JPEG) and mask, equal bytes"
