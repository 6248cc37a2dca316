"""The published rooms pipeline on your photos: counts, seconds, quality rows, and the epoch's speed.

    python -m cd_pipeline_tests.benchmarks.notebook_parity PHOTOS [--real-pairs FOLDER]

PHOTOS holds trainval/ and test/, or images/ and labels/. Each training seed trains anew on the same
frozen pairs; real pairs ({A,B,label}) are scored and choose nothing.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from cd_pipeline.data.datasets import SampleDataset
from cd_pipeline.data.files import file_digest
from cd_pipeline.data.manifest import Pair, read_pairs
from cd_pipeline.data.samples import Roots, load_sample
from cd_pipeline.evaluation.threshold import ChosenThreshold
from cd_pipeline.models.runtime import resolve_runtime
from cd_pipeline.pipeline import build_pipeline
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace
from cd_pipeline.training.checkpoint import load_checkpoint
from cd_pipeline.training.settings import TrainingSettings
from cd_pipeline_tests.benchmarks.cases.our_trainer import OurTrainer
from cd_pipeline_tests.benchmarks.cases.published_files import write_published_pair
from cd_pipeline_tests.benchmarks.published_reference import (
    PublishedDataset,
    PublishedTrainer,
    published_loader,
)
from cd_pipeline_tests.benchmarks.quality import Network, print_summary, read_rooms, score_network

RECIPE = "parity"
STAGES = (
    "raw_photos",
    "split",
    "pair_manifest",
    "change_masks",
    "checkpoint",
    "threshold",
    "test_predictions",
)


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Path(options.workspace or temporary)
        report = run(options, workspace)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--real-pairs", type=Path, help="folder with A/, B/ and label/")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--preset", default="published", help="of training")
    parser.add_argument("--epoch-rounds", type=int, default=3, help="timed epochs of each kind; 0: none")
    parser.add_argument("--workspace", type=Path, help="keep what is made here")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def run(options: argparse.Namespace, workspace: Path) -> dict[str, Any]:
    report: dict[str, Any] = {"seeds": {}}
    for seed in options.seeds:
        recipe = make_recipe(options, seed)
        stages = STAGES if seed == options.seeds[0] else STAGES[-3:]
        seconds = materialize(recipe, workspace, stages)
        if seed == options.seeds[0]:
            report["counts"] = print_counts(recipe, workspace)
        print_seconds(seed, seconds)
        report["seeds"][seed] = score_seed(recipe, workspace, options, seed)
    report["summary"] = print_summary(list(report["seeds"].values()))
    if options.epoch_rounds:
        report["epoch"] = compare_epochs(
            make_recipe(options, options.seeds[0]), workspace, options.epoch_rounds
        )
    return report


def make_recipe(options: argparse.Namespace, seed: int) -> Recipe:
    training = TrainingSettings(preset=options.preset, epochs=options.epochs, seed=seed)
    recipe = Recipe(name=RECIPE, training=training)
    return recipe.model_copy(
        update={
            "source": recipe.source.model_copy(update={"folder": str(options.photos)}),
            "model": recipe.model.model_copy(update={"pretrained": False}),
            "threshold": recipe.threshold.model_copy(update={"pairs": "own", "tolerance": 0}),
        }
    )


def materialize(recipe: Recipe, workspace: Path, stages: Sequence[str]) -> dict[str, float]:
    """Run assets of the recipe through Dagster and return the seconds of each."""
    definitions = build_pipeline(recipe)
    result = dg.materialize(
        list(definitions.assets or []),
        selection=[dg.AssetKey(recipe.asset_key(stage)) for stage in stages],
        resources={"workspace": Workspace(root=str(workspace)), "compute": Compute()},
    )
    return {
        str(event.step_key).removeprefix(f"{RECIPE}__"): event.step_success_data.duration_ms / 1000
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.STEP_SUCCESS
    }


def roots_of(recipe: Recipe, workspace: Path) -> Roots:
    return Roots(Path(str(recipe.source.folder)), workspace / recipe.name)


def manifest_of(workspace: Path) -> Path:
    return workspace / RECIPE / "pair_manifest" / "pairs.parquet"


def print_counts(recipe: Recipe, workspace: Path) -> dict[str, Any]:
    pairs = read_pairs(manifest_of(workspace))
    counts: dict[str, Any] = {part: sum(p.split == part for p in pairs) for part in ("train", "val", "test")}
    counts["manifest"] = file_digest(manifest_of(workspace))[:12]
    print(f"\npairs: train {counts['train']}, val {counts['val']}, test {counts['test']}")
    print(f"manifest {counts['manifest']}, synthesis seed {recipe.synthesis.seed}, truthful masks")
    return counts


def print_seconds(seed: int, seconds: dict[str, float]) -> None:
    print(
        f"\nseed {seed}: seconds a stage: "
        + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
    )


def score_seed(recipe: Recipe, workspace: Path, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Print all rows of the protocol for one trained network, at the threshold of its own val pairs."""
    folder = workspace / RECIPE
    chosen = ChosenThreshold.load(folder / "threshold" / "threshold.json")
    saved = load_checkpoint(folder / "checkpoint" / "model.pt")
    runtime = resolve_runtime()
    runtime.prepare()
    name = f"seed {seed}, manifest {file_digest(manifest_of(workspace))[:12]}, epochs {len(saved.history)}"
    network = Network(name, runtime.place(saved.model()), recipe.input.size, saved.version[:12])
    folders = [options.real_pairs] if options.real_pairs else []
    return score_network(network, read_rooms(options.photos), folders, runtime, chosen=chosen)


def compare_epochs(recipe: Recipe, workspace: Path, rounds: int) -> dict[str, float]:
    """Time the published epoch and ours in turn, on the same pairs, threads and machine."""
    pairs, roots = read_pairs(manifest_of(workspace), "train"), roots_of(recipe, workspace)
    runtime = resolve_runtime()
    runtime.prepare()
    copied = published_loader(published_copy(pairs, roots, workspace / "published", recipe.input.size))
    reference = PublishedTrainer()
    ours = OurTrainer(SampleDataset(pairs, roots, recipe.input.size), recipe.training, runtime)
    ours.epoch_seconds(0), reference.epoch_seconds(copied)
    slow, fast = [], []
    for number in range(1, rounds + 1):
        slow.append(reference.epoch_seconds(copied))
        fast.append(ours.epoch_seconds(number))
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    figures = {
        "published_seconds": statistics.median(slow),
        "our_seconds": statistics.median(fast),
        "ratio": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
    }
    print(
        f"\ntraining epoch of {len(pairs)} pairs: published {figures['published_seconds']:.2f} s, "
        f"ours {figures['our_seconds']:.2f} s: {figures['ratio']:.2f}x faster "
        f"({min(ratios):.2f}-{max(ratios):.2f} over {rounds} rounds)"
    )
    return figures


def published_copy(pairs: Sequence[Pair], roots: Roots, folder: Path, size: int) -> PublishedDataset:
    for pair in pairs:
        arrays = load_sample(pair, roots)
        write_published_pair(folder, pair.pair_id, arrays.before, arrays.after, arrays.mask)
    return PublishedDataset(folder, [pair.pair_id for pair in pairs], size)


if __name__ == "__main__":
    main()
