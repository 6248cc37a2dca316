"""The realistic pairs: ours, and one pair at a time with every photo read anew."""

from itertools import count
from pathlib import Path

import cv2

from cd_pipeline.data.files import digest
from cd_pipeline.data.machine import usable_cores
from cd_pipeline.data.samples import Roots, Sample, load_sample
from cd_pipeline.synthesis.photo_store import PhotoStore
from cd_pipeline.synthesis.rendered_pairs import render_pair, render_pairs
from cd_pipeline_tests.benchmarks.cases.profiles import profiled_rendering
from cd_pipeline_tests.benchmarks.cases.rooms import first_pairs, prepare_plans, roots
from cd_pipeline_tests.benchmarks.measure import Side, Sizes


def prepare(folder: Path, sizes: Sizes) -> None:
    prepare_plans(folder)


def ours(folder: Path, sizes: Sizes) -> Side:
    pairs = first_pairs(folder, "realistic", "val", sizes["pairs"])
    places, runs = roots(folder, "synthesis_realistic"), count()

    def run() -> None:
        # photos that were decoded once are kept in the workspace: a first run has a new one
        here = roots(folder, f"synthesis_realistic_{next(runs)}") if "first" in sizes else places
        render_pairs(pairs, here, threads=usable_cores())

    def answer() -> dict[str, str]:
        render_pairs(pairs, places, threads=usable_cores())
        return {pair.pair_id: hashed(load_sample(pair, places)) for pair in pairs}

    return Side(run, answer, lambda: profiled_rendering(pairs, places))


def reference(folder: Path, sizes: Sizes) -> Side:
    pairs = first_pairs(folder, "realistic", "val", sizes["pairs"])
    places = roots(folder, "synthesis_realistic_reference")

    def run() -> None:
        for pair in pairs:
            sample = render_pair(pair, PhotoStore(places, cache_bytes=0))
            write(places, sample, pair.pair_id)

    def answer() -> dict[str, str]:
        return {pair.pair_id: hashed(render_pair(pair, PhotoStore(places, cache_bytes=0))) for pair in pairs}

    return Side(run, answer)


def write(places: Roots, sample: Sample, name: str) -> None:
    for kind, image in zip(("before", "after", "mask", "valid"), sample.arrays, strict=False):
        (places.workspace / kind).mkdir(parents=True, exist_ok=True)
        ordered = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
        cv2.imwrite(str(places.workspace / kind / f"{name}.png"), ordered)


def hashed(sample: Sample) -> str:
    return digest(*(image.tobytes() for image in sample.arrays))


def compare(found: dict[str, str], expected: dict[str, str]) -> str:
    assert found == expected, "pictures differ"
    return f"{len(found)} pairs, equal bytes"
