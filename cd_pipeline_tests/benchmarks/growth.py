"""Time and memory of the first stages as the photos grow.

    python -m cd_pipeline_tests.benchmarks.growth [--photos 1000 10000 100000] [--folder DIR] [--json]

Labelled photos of 64x48 px are drawn, all different in bytes, pixels and perceptual hash, one in ten another shot
of the one before it. Each row is a process of its own, so that its peak memory is its own:

- packages: what is imported before anything is read. In the peak of all others.
- reading: every photo and label is read and decoded, and nothing is kept.
- raw_photos, split, pair_manifest: the assets, through Dagster, as a run makes them.
- unchanged: raw_photos again, which finds that nothing is new.
- fingerprint: a look of the folder's sensor.
- train rows, test rows: what training and prediction read of the manifest.

Split and manifest must take less than 2 minutes at any size, beyond reading, and no process more than 1 GB.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

CLASSES = ("BATH", "HALL", "KITCHEN", "STUDY", "YARD")
SIZE = (48, 64)
"""Height and width, px."""
ANOTHER_SHOT = 10
"""One photo in so many shows what the one before it shows."""
MOST_SECONDS = 120.0
MOST_MEGABYTES = 1000.0
DRAW = "draw"
PLANNED = ("raw_photos", "split", "pair_manifest")
"""What the limit of time is for, less `reading`."""


class Row(TypedDict):
    """One process: seconds and those of all its threads at work, and the peak of its resident memory."""

    photos: int
    stage: str
    seconds: float
    cpu_seconds: float
    megabytes: float


def main() -> None:
    options = parse_options()
    if options.stage:
        print(json.dumps(measured(options.stage, options.folder, options.photos[0])))
        return
    rows: list[Row] = []
    for photos in options.photos:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            in_process(DRAW, Path(folder), photos)
            for stage in STAGES:
                rows.append(in_process(stage, Path(folder), photos))
                if not options.json:
                    print(line_of(rows[-1]), flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))
    if broken := [
        fault for photos in options.photos for fault in faults([r for r in rows if r["photos"] == photos])
    ]:
        raise SystemExit("\n".join(broken))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument(
        "--folder", type=Path, help="where they are drawn; none: the system's temporary folder"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stage", choices=[DRAW, *STAGES], help=argparse.SUPPRESS)
    return parser.parse_args()


def line_of(row: Row) -> str:
    """Return a row as a line of the table."""
    times = f"{row['seconds']:>9.1f} s{row['cpu_seconds']:>9.1f} s CPU"
    return f"{row['photos']:>8,}  {row['stage']:14}{times}{row['megabytes']:>9,.0f} MB"


def in_process(stage: str, folder: Path, photos: int) -> Row:
    """Run a stage in a process of its own."""
    # this one stays small: a process begins with the peak of the one that started it
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__]
    arguments = ["--stage", stage, "--folder", str(folder), "--photos", str(photos)]
    done = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, check=True, text=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def measured(stage: str, folder: Path, photos: int) -> Row:
    """Run a stage in this process."""
    if stage == DRAW:
        draw(folder / "photos", photos)
        return Row(photos=photos, stage=stage, seconds=0, cpu_seconds=0, megabytes=0)
    start, worked = time.perf_counter(), time.process_time()
    STAGES[stage](folder)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Row(photos=photos, stage=stage, seconds=seconds, cpu_seconds=cpu_seconds, megabytes=peak / 1e6)


def faults(rows: list[Row]) -> list[str]:
    """Say which limits the rows of one number of photos break."""
    seconds = {row["stage"]: row["seconds"] for row in rows}
    beyond = sum(seconds[stage] for stage in PLANNED) - seconds["reading"]
    found = [
        f"{row['photos']:,} photos: {row['stage']} takes {row['megabytes']:,.0f} MB, at most {MOST_MEGABYTES:,.0f}"
        for row in rows
        if row["megabytes"] > MOST_MEGABYTES
    ]
    if beyond > MOST_SECONDS:
        found.append(
            f"{rows[0]['photos']:,} photos: split and manifest take {beyond:.0f} s beyond reading, at most {MOST_SECONDS:.0f}"
        )
    return found


def draw(root: Path, photos: int) -> None:
    """Draw a single tree of labelled photos: patches of colour, and 1 to 3 boxes."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        for name in CLASSES:
            (root / part / name).mkdir(parents=True)
    coarse = np.zeros((6, 8, 3), np.uint8)
    for number in range(photos):
        name = CLASSES[number % len(CLASSES)]
        if number % ANOTHER_SHOT:
            coarse = rng.integers(20, 230, coarse.shape, np.uint8)
        picture = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
        picture += rng.integers(0, 9, picture.shape, np.uint8)
        _, content = cv2.imencode(".jpg", picture)
        (root / "images" / name / f"photo_{number:06d}.jpg").write_bytes(content.tobytes())
        sides = rng.uniform(0.1, 0.5, (int(rng.integers(1, 4)), 2))
        centres = sides / 2 + rng.random(sides.shape) * (1 - sides)
        lines = [
            f"{number % 7} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n"
            for (x, y), (w, h) in zip(centres, sides, strict=True)
        ]
        (root / "labels" / name / f"photo_{number:06d}.txt").write_text("".join(lines))


def load_packages(folder: Path) -> None:
    from cd_pipeline.assets import pair_manifest, raw_photos, split  # noqa: F401
    from cd_pipeline.data import manifest, photos  # noqa: F401
    from cd_pipeline.synthesis import pairs, sample_rooms  # noqa: F401


def read(folder: Path) -> None:
    """Read and decode every file, by as many threads as the assets do."""
    from concurrent.futures import ThreadPoolExecutor

    from cd_pipeline.data.images import decode_photo
    from cd_pipeline.resources import Compute

    def photo(path: Path) -> None:
        decode_photo(path.read_bytes())
        (folder / "photos" / "labels" / path.parent.name / f"{path.stem}.txt").read_bytes()

    for name in CLASSES:
        with ThreadPoolExecutor(Compute().cores) as pool:
            for _ in pool.map(photo, (folder / "photos" / "images" / name).iterdir()):
                pass


def asset(name: str) -> Callable[[Path], None]:
    """Return what materializes an asset of the recipe `rooms`."""

    def materialize(folder: Path) -> None:
        import dagster as dg

        from cd_pipeline.pipeline import build_pipeline
        from cd_pipeline.recipe import Recipe
        from cd_pipeline.resources import Compute, Workspace

        recipe = Recipe(
            name="rooms",
            source={"folder": str(folder / "photos")},  # type: ignore[arg-type]
            synthesis={"preset": "realistic"},  # type: ignore[arg-type]
        )
        dg.materialize(
            list(build_pipeline(recipe).assets or []),  # type: ignore[arg-type]
            selection=dg.AssetSelection.assets(recipe.asset_key(name)),
            resources={"workspace": Workspace(root=str(folder / "data")), "compute": Compute(device="cpu")},
        )

    return materialize


def look(folder: Path) -> None:
    from cd_pipeline.data.folder_watch import fingerprint

    fingerprint(folder / "photos")


def rows_of(split: str) -> Callable[[Path], None]:
    """Return what reads a split of the manifest."""

    def read_back(folder: Path) -> None:
        from cd_pipeline.data.manifest import read_pairs
        from cd_pipeline.synthesis.pairs import photo_pools

        pairs = read_pairs(folder / "data" / "rooms" / "pair_manifest" / "pairs.parquet", split)
        photo_pools(pairs)

    return read_back


STAGES: dict[str, Callable[[Path], None]] = {
    "packages": load_packages,
    "reading": read,
    **{name: asset(name) for name in PLANNED},
    "unchanged": asset("raw_photos"),
    "fingerprint": look,
    "train rows": rows_of("train"),
    "test rows": rows_of("test"),
}

if __name__ == "__main__":
    main()
