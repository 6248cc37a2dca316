"""What each part of the rooms recipe brings: from the published pipeline to the recipe that ships.

    python -m cd_pipeline_tests.benchmarks.ablation PHOTOS [--pairs FOLDER...] [--seeds 42 43] [--steps NAME...]

Every step is a recipe that runs through Dagster and is scored by the measuring protocol, its threshold from
the realistic val pairs, which alone choose anything. A step keeps what the ones before it brought. With `nuisance`
comes the renderer of the realistic preset: soft edges, views that may be mirrored, moved things' old places
inpainted.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from cd_pipeline.models.runtime import resolve_runtime
from cd_pipeline.pipeline import build_pipeline
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace
from cd_pipeline_tests.benchmarks.quality import read_network, read_rooms, score_network, set_name

SHORT = {"preset": "realistic", "epoch_pairs": 1, "frozen_pairs": 100}
"""A pair a photo and epoch, as in the published training."""
RECTANGLES = {
    **SHORT,
    "kind_weights": {"black": 1, "remove": 1, "rect": 1, "blur": 1, "pixel": 1, "move": 2},
    "shape_weights": {"rectangle": 1},
    "box_share": 1.0,
    "view_shares": [1.0, 1.0],
    "swap_probability": 0.0,
}
"""The published kinds of change on labelled boxes, with nuisance."""
PUBLISHED_TRAINING = {"preset": "published", "sweep": {"low": 0.02, "high": 0.98, "steps": 97}}
SIAMESE = {"name": "tiny_siamese_unet", "pretrained": False}
EARLY = {"name": "tiny_change_unet", "pretrained": False}

STEPS: Mapping[str, dict[str, Any]] = {
    "published": {
        "synthesis": {"truthful_masks": False, "reencode_jpeg": True},
        "training": PUBLISHED_TRAINING,
        "model": EARLY,
    },
    "truthful masks": {"synthesis": {}, "training": PUBLISHED_TRAINING, "model": EARLY},
    "fresh pairs": {
        "synthesis": {"train_pairs": "fresh"},
        "training": PUBLISHED_TRAINING,
        "model": EARLY,
    },
    "nuisance": {"synthesis": RECTANGLES, "training": PUBLISHED_TRAINING, "model": EARLY},
    "realistic kinds": {
        "synthesis": SHORT,
        "training": PUBLISHED_TRAINING,
        "model": EARLY,
    },
    "siamese network": {
        "synthesis": SHORT,
        "training": PUBLISHED_TRAINING,
        "model": SIAMESE,
    },
    "tuned training": {
        "synthesis": {"preset": "realistic"},
        "training": {"preset": "rooms"},
        "model": SIAMESE,
    },
    "tuned training, published network": {
        "synthesis": {"preset": "realistic"},
        "training": {"preset": "rooms"},
        "model": EARLY,
    },
}
STAGES = ("raw_photos", "split", "pair_manifest", "change_masks", "checkpoint")


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(options.workspace or temporary)
        report = {step: run_step(step, options, root) for step in options.steps}
    print_table(report, [set_name(folder, options.pairs) for folder in options.pairs])
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--pairs", type=Path, nargs="*", default=[], help="folders with A/, B/ and label/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43])
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=list(STEPS), metavar="STEP")
    parser.add_argument("--epochs", type=int, help="instead of each step's own")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--workspace", type=Path, help="keep what is made here")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def run_step(step: str, options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Train and score a step with every seed."""
    return {str(seed): run_seed(step, options, root / step.replace(" ", "_"), seed) for seed in options.seeds}


def run_seed(step: str, options: argparse.Namespace, root: Path, seed: int) -> dict[str, Any]:
    settings = {key: dict(value) for key, value in STEPS[step].items()}
    settings["training"]["seed"] = seed
    if options.epochs:
        settings["training"]["epochs"] = options.epochs
    recipe = Recipe(name=f"seed_{seed}", source={"folder": str(options.photos)}, **settings)  # type: ignore[arg-type]
    started = time.perf_counter()
    dg.materialize(
        list(build_pipeline(recipe).assets or []),
        selection=[dg.AssetKey(recipe.asset_key(stage)) for stage in STAGES],
        resources={
            "workspace": Workspace(root=str(root)),
            "compute": Compute(threads=options.threads),
        },
    )
    seconds = time.perf_counter() - started
    runtime = resolve_runtime(threads=options.threads).exact()
    runtime.prepare()
    network = read_network(root / recipe.name / "checkpoint" / "model.pt", runtime)
    rows = score_network(network, read_rooms(options.photos), options.pairs, runtime)
    print(f"{step}, seed {seed}: {seconds:.0f} s")
    return {**rows, "seconds": seconds}


def print_table(report: Mapping[str, Mapping[str, Any]], folders: Sequence[str]) -> None:
    """Print a Markdown row a step: means over the seeds."""
    names = ["published test", "realistic test", *(n for f in folders for n in (f, f"{f} + nuisance"))]
    print("\n| step | realistic val | " + " | ".join(names) + " | false alarms | minutes |")
    print("|---" * (len(names) + 4) + "|")
    for step, seeds in report.items():
        values = [statistics.mean(rows["val_f1"] for rows in seeds.values())]
        values += [statistics.mean(rows[name]["f1"] for rows in seeds.values()) for name in names]
        alarms = statistics.mean(rows["no change + nuisance"]["rate"] for rows in seeds.values())
        minutes = statistics.mean(rows["seconds"] for rows in seeds.values()) / 60
        cells = [f"{value:.3f}" for value in values] + [f"{alarms:.1%}", f"{minutes:.1f}"]
        print(f"| {step} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
