"""The published rooms pipeline on your photos: counts, seconds, quality rows, and the epoch's speed.

    python -m cd_pipeline_tests.benchmarks.notebook_parity PHOTOS [--real-pairs FOLDER]

PHOTOS holds trainval/ and test/, or images/ and labels/. Each training seed trains anew on the same
frozen pairs; real pairs ({A,B,label}) are scored and choose nothing.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt
import torch
from timm.utils import ModelEmaV3

from cd_pipeline.data.datasets import PairDataset
from cd_pipeline.data.files import file_digest
from cd_pipeline.data.images import Image, read_mask, read_photo
from cd_pipeline.data.manifest import Pair, read_pairs
from cd_pipeline.data.pairs import PairArrays, Roots, at_input_size, input_pairs, load_pair
from cd_pipeline.evaluation.predict import load_batches, predict_probability
from cd_pipeline.evaluation.protocol import (
    AlarmRate,
    SetScores,
    alarm_rate,
    score_set,
    with_nuisance_on_after,
)
from cd_pipeline.evaluation.realistic_pairs import draw_realistic_pairs, no_change_pairs
from cd_pipeline.evaluation.threshold import ChosenThreshold
from cd_pipeline.models.runtime import Runtime, resolve_runtime
from cd_pipeline.models.tiny_change_unet import TinyChangeUNet
from cd_pipeline.pipeline import build_pipeline
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace
from cd_pipeline.training.checkpoint import load_checkpoint
from cd_pipeline.training.loop import build_loss, build_optimizer, train_epoch
from cd_pipeline.training.settings import TrainingSettings
from cd_pipeline_tests.benchmarks.published_reference import (
    PublishedDataset,
    PublishedTrainer,
    write_published_pair,
)

RECIPE = "parity"
PAIRS = 300
EVALUATION_SEED = 42
ORACLE_LIMIT = 0.50
"""The measuring protocol: realistic pairs on which plain differencing does better are too easy."""
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
        report["seeds"][seed] = score_seed(recipe, workspace, options.real_pairs, seed)
    report["summary"] = print_summary(report["seeds"])
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


def score_seed(recipe: Recipe, workspace: Path, real: Path | None, seed: int) -> dict[str, Any]:
    """Print all rows of the protocol for one trained network."""
    folder, size = workspace / RECIPE, recipe.input.size
    chosen = ChosenThreshold.load(folder / "threshold" / "threshold.json")
    saved = load_checkpoint(folder / "checkpoint" / "model.pt")
    runtime = resolve_runtime()
    runtime.prepare()
    predict = partial(_predict, runtime.place(saved.model()), runtime)
    manifest = file_digest(manifest_of(workspace))[:12]
    label = f"seed {seed}  manifest {manifest}"
    print(f"{label}: threshold {chosen.threshold:.3f}, val F1 {chosen.f1:.3f}, epochs {len(saved.history)}")
    rows: dict[str, Any] = {"threshold": chosen.threshold, "val_f1": chosen.f1, "weights": saved.version[:12]}
    rows |= {
        name: print_scores(f"{label}  {name}", score_set(predict, pairs, chosen.threshold))
        for name, pairs in evaluation_sets(recipe, workspace, real)
    }
    loaders = photo_loaders(recipe, workspace)
    unchanged = (
        (p.before, p.after) for p in no_change_pairs(loaders, PAIRS, seed=EVALUATION_SEED, size=size)
    )
    rows["no_change"] = print_alarms(label, alarm_rate(predict, unchanged, chosen.threshold))
    if rows["realistic test"]["oracle_f1"] > ORACLE_LIMIT:
        raise SystemExit(
            f"realistic test: plain differencing reaches more than {ORACLE_LIMIT}: too easy a set"
        )
    return rows


def evaluation_sets(
    recipe: Recipe, workspace: Path, real: Path | None
) -> Iterator[tuple[str, Iterator[PairArrays]]]:
    size, roots = recipe.input.size, roots_of(recipe, workspace)
    yield "synthetic test", input_pairs(read_pairs(manifest_of(workspace), "test"), roots, size)
    drawn = draw_realistic_pairs(photo_loaders(recipe, workspace), PAIRS, seed=EVALUATION_SEED, size=size)
    yield "realistic test", (PairArrays(p.before, p.after, p.mask) for p in drawn)
    if real is not None:
        named = list(read_real_pairs(real, size))
        yield "real pairs", (pair for _, pair in named)
        yield "real pairs + nuisance", with_nuisance_on_after(named)


def photo_loaders(recipe: Recipe, workspace: Path) -> list[Any]:
    """Loaders of the test photos, in the manifest's order."""
    roots = roots_of(recipe, workspace)
    read = lru_cache(maxsize=64)(read_photo)
    return [partial(read, roots.resolve(pair.photo)) for pair in read_pairs(manifest_of(workspace), "test")]


def read_real_pairs(folder: Path, size: int) -> Iterator[tuple[str, PairArrays]]:
    for path in sorted((folder / "A").iterdir()):
        (after,) = (folder / "B").glob(f"{path.stem}.*")
        (mask,) = (folder / "label").glob(f"{path.stem}.*")
        yield path.stem, at_input_size(PairArrays(read_photo(path), read_photo(after), read_mask(mask)), size)


def _predict(
    model: torch.nn.Module, runtime: Runtime, before: Image, after: Image
) -> npt.NDArray[np.float32]:
    return predict_probability(model, before, after, runtime)


def print_scores(label: str, s: SetScores) -> dict[str, float]:
    print(
        f"  {label:<52} n {s.pairs:>3}  P {s.precision:.3f}  R {s.recall:.3f}  F1 {s.f1:.3f}  IoU {s.iou:.3f}"
        f"  best F1 {s.best_f1:.3f}  per-image F1 {s.mean_image_f1:.3f}  | differencing oracle {s.oracle_f1:.3f}"
    )
    return asdict(s)


def print_alarms(label: str, a: AlarmRate) -> dict[str, float]:
    name = f"{label}  no change + nuisance"
    print(f"  {name:<52} n {a.pairs:>3}  false-alarm rate {a.rate:.3f} (95 % {a.low:.3f}-{a.high:.3f})")
    return {**asdict(a), "rate": a.rate}


def print_summary(seeds: dict[int, dict[str, Any]]) -> dict[str, list[float]]:
    """Print mean and range over the training seeds."""
    print(f"\nmean (range) over {len(seeds)} training seeds")
    summary: dict[str, list[float]] = {}
    first = next(iter(seeds.values()))
    wanted = [
        (name, key)
        for name, row in first.items()
        if isinstance(row, dict)
        for key in ("f1", "iou", "mean_image_f1", "rate")
        if key in row
    ]
    for name, key in wanted:
        values = [rows[name][key] for rows in seeds.values()]
        summary[f"{name} {key}"] = [statistics.mean(values), min(values), max(values)]
        print(f"  {name + ' ' + key:<40} {statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})")
    return summary


def compare_epochs(recipe: Recipe, workspace: Path, rounds: int) -> dict[str, float]:
    """Time the published epoch and ours in turn, on the same pairs, threads and machine."""
    pairs, roots = read_pairs(manifest_of(workspace), "train"), roots_of(recipe, workspace)
    runtime = resolve_runtime()
    runtime.prepare()
    reference = PublishedTrainer(published_copy(pairs, roots, workspace / "published", recipe.input.size))
    ours = OurTrainer(PairDataset(pairs, roots, recipe.input.size), recipe.training, runtime)
    ours.epoch_seconds(0), reference.epoch_seconds()
    slow, fast = [], []
    for number in range(1, rounds + 1):
        slow.append(reference.epoch_seconds())
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
        arrays = load_pair(pair, roots)
        write_published_pair(folder, pair.pair_id, arrays.before, arrays.after, arrays.mask)
    return PublishedDataset(folder, [pair.pair_id for pair in pairs], size)


class OurTrainer:
    """The product's own epoch: the same functions that the checkpoint asset runs."""

    def __init__(self, dataset: PairDataset, settings: TrainingSettings, runtime: Runtime) -> None:
        torch.manual_seed(settings.seed)
        self.dataset, self.settings, self.runtime = dataset, settings, runtime
        self.model = runtime.place(TinyChangeUNet())
        self.loss = build_loss(dataset, settings, runtime)
        self.optimizer = build_optimizer(self.model, settings)
        self.average = ModelEmaV3(self.model, decay=settings.ema_decay, foreach=True)
        self.scaler = torch.amp.GradScaler(enabled=False)

    def epoch_seconds(self, epoch: int) -> float:
        started = time.perf_counter()
        batches = load_batches(
            self.dataset, self.runtime, self.settings.batch_size, epoch=epoch, shuffle_seed=self.settings.seed
        )
        train_epoch(
            self.model,
            self.average,
            batches,
            self.loss,
            self.optimizer,
            self.scaler,
            self.settings.clip_norm,
            self.runtime,
        )
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
