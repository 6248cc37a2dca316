"""Every row of the measuring protocol for trained networks.

    python -m cd_pipeline_tests.benchmarks.quality CHECKPOINT... --rooms PHOTOS [--pairs FOLDER...] [--json FILE]

CHECKPOINT is a `model.pt` of the pipeline or a state dict of the published network. PHOTOS holds trainval/
and test/, or images/ and labels/, split as the checkpoint's recipe says; its val photos choose the threshold,
its test photos are scored. FOLDER holds A/, B/ and label/; real pairs choose nothing. Of several checkpoints
(training seeds) mean and range follow. Beside every F1 stand that of plain differencing at its best on the same
set and a hash of the set. `--gallery FILE` draws pairs of every set: before, after, truth, what the network
marks, what differencing marks.
"""

import argparse
import json
import pickle
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from cd_pipeline.data.files import digest, write_bytes
from cd_pipeline.data.images import Image, encode_jpeg
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.photos import scan_photos
from cd_pipeline.data.samples import Roots, Sample, at_input_size
from cd_pipeline.data.settings import SplitSettings
from cd_pipeline.data.split import assign_splits
from cd_pipeline.evaluation.differencing import DifferencingOracle, difference_sum
from cd_pipeline.evaluation.figures import outline, overlay
from cd_pipeline.evaluation.metrics import AnyMask, Confusion
from cd_pipeline.evaluation.predict import Predict, predict_probability
from cd_pipeline.evaluation.protocol import (
    ORACLE_LIMIT,
    AlarmRate,
    SetScores,
    false_alarms,
    realistic_set,
    score_set,
    with_nuisance_on_after,
)
from cd_pipeline.evaluation.real_pairs import sized_pairs
from cd_pipeline.evaluation.realistic_pairs import PAIR_COUNT, PhotoLoader, photo_loaders
from cd_pipeline.evaluation.threshold import ChosenThreshold, choose, predict_samples, sweep_predictions
from cd_pipeline.models.build import build_model
from cd_pipeline.models.runtime import Runtime, resolve_runtime
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.recipe import ThresholdSettings
from cd_pipeline.synthesis.pairs import plan_pairs
from cd_pipeline.synthesis.photo_store import PhotoStore
from cd_pipeline.synthesis.rendered_pairs import render_pair
from cd_pipeline.synthesis.settings import PublishedSynthesis
from cd_pipeline.training.checkpoint import CheckpointError, load_checkpoint, weights_digest

Row = SetScores | AlarmRate
SHOWN = ("precision", "recall", "f1", "iou", "best_f1", "gap", "mean_image_f1", "oracle_f1")
SUMMARISED = ("f1", "iou", "gap", "mean_image_f1", "rate")
SHOWN_SHARE = 0.02
"""Changed share of a pair that is worth drawing."""


@dataclass(frozen=True)
class Network:
    """A network to score."""

    name: str
    model: torch.nn.Module
    size: int
    weights: str
    split: SplitSettings = field(default_factory=SplitSettings)


@dataclass(frozen=True)
class Rooms:
    """The photos of a folder by split, as pairs of the published preset and rules, and a hash of them."""

    pairs: list[Pair]
    roots: Roots
    version: str

    def of(self, split: str) -> list[Pair]:
        return [pair for pair in self.pairs if pair.split == split]

    def loaders(self, split: str, size: int) -> list[PhotoLoader]:
        return photo_loaders(self.of(split), self.roots, size)


def main() -> None:
    options = parse_options()
    runtime = resolve_runtime(device=options.device, threads=options.threads).exact()
    runtime.prepare()
    if options.count < PAIR_COUNT:
        print(f"a figure of the measuring protocol needs {PAIR_COUNT} pairs or more, not {options.count}")
    networks = [read_network(path, runtime) for path in options.checkpoints]
    results = {
        network.name: score_network(
            network, read_rooms(options.rooms, network.split), options.pairs, runtime, options.count
        )
        for network in networks
    }
    summary = print_summary(list(results.values())) if len(results) > 1 else {}
    if options.json:
        report = {"checkpoints": results, "summary": summary}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.gallery:
        sheet = draw_gallery(networks[0], results[networks[0].name]["threshold"], options, runtime)
        write_bytes(options.gallery, encode_jpeg(sheet, 88))
    too_easy = [name for name, rows in results.items() if rows["realistic test"]["oracle_f1"] > ORACLE_LIMIT]
    if too_easy:
        raise SystemExit(f"realistic test: plain differencing reaches more than {ORACLE_LIMIT}: too easy")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT")
    parser.add_argument("--rooms", type=Path, required=True, help="labelled photos")
    parser.add_argument("--pairs", type=Path, nargs="*", default=[], help="folders with A/, B/ and label/")
    parser.add_argument("--count", type=int, default=PAIR_COUNT, help="pairs of each drawn set")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--gallery", type=Path, help="JPEG of the first checkpoint's predictions")
    return parser.parse_args()


def read_rooms(folder: Path, split: SplitSettings | None = None) -> Rooms:
    photos = assign_splits(scan_photos(folder).photos, split or SplitSettings())
    pairs = plan_pairs(photos, PublishedSynthesis(truthful_masks=False))
    return Rooms(pairs, Roots(folder, folder), digest(*(p.photo_sha256 for p in pairs))[:12])


def read_network(path: Path, runtime: Runtime) -> Network:
    """Read a checkpoint of the pipeline, or a state dict of the published network."""
    try:
        saved = load_checkpoint(path)
    except CheckpointError as error:
        try:
            published = build_model(ModelSettings(name="tiny_change_unet"))
            published.load_published_state(torch.load(path, map_location="cpu", weights_only=True))
        except (RuntimeError, AttributeError, TypeError, pickle.UnpicklingError):
            raise error from None  # neither: what is wrong with the checkpoint helps more
        return Network(
            str(path), runtime.place(published.eval()), 256, weights_digest(published.state_dict())[:12]
        )
    model, size, split = (
        saved.model(),
        int(saved.recipe["input"]["size"]),
        SplitSettings(**saved.recipe["split"]),
    )
    return Network(str(path), runtime.place(model), size, saved.version[:12], split)


def score_network(
    network: Network,
    rooms: Rooms,
    folders: Sequence[Path],
    runtime: Runtime,
    count: int = PAIR_COUNT,
    chosen: ChosenThreshold | None = None,
) -> dict[str, Any]:
    """Print and return all rows of one network, at a chosen threshold or that of the realistic val pairs."""
    predict: Predict = partial(predict_probability, network.model, runtime=runtime)
    print(f"\n{network.name}: weights {network.weights}, photos {rooms.version}: ", end="")
    print(f"{len(rooms.of('val'))} of val choose the threshold, {len(rooms.of('test'))} of test are scored")
    source = "as chosen on its own val pairs" if chosen else f"from {count} realistic val pairs"
    chosen = chosen or realistic_threshold(predict, rooms, network, count)
    threshold = chosen.threshold
    print(f"threshold {threshold:.3f} {source} (F1 {chosen.f1:.3f} there)")
    print(f"{'set':<42}{'pairs':>6}" + "".join(f"{name:>14}" for name in SHOWN) + "  hash")
    rows: dict[str, Any] = {"threshold": threshold, "val_f1": chosen.f1, "weights": network.weights}
    rows["photos"] = rooms.version
    for name, pairs in sets(network, rooms, folders, count):
        rows[name] = print_scores(name, score_set(predict, pairs, threshold))
    alarms = false_alarms(predict, threshold, rooms.loaders("test", network.size), network.size, count)
    rows["no change + nuisance"] = print_alarms("no change + nuisance", alarms)
    return rows


def realistic_threshold(predict: Predict, rooms: Rooms, network: Network, count: int) -> ChosenThreshold:
    pairs = realistic_set(rooms.loaders("val", network.size), network.size, count)
    sweep = sweep_predictions(predict_samples(predict, pairs), low=0.01, high=0.99, steps=99)
    return choose(sweep, network.weights, ThresholdSettings().tolerance)


def sets(
    network: Network, rooms: Rooms, folders: Sequence[Path], count: int
) -> Iterator[tuple[str, Iterable[Sample]]]:
    photos = PhotoStore(rooms.roots, cache_bytes=0)
    yield (
        "published test",
        (at_input_size(render_pair(pair, photos), network.size) for pair in rooms.of("test")),
    )
    yield "realistic test", realistic_set(rooms.loaders("test", network.size), network.size, count)
    for folder in folders:
        name = set_name(folder, folders)
        problems: list[str] = []
        named = sized_pairs(folder, network.size, problems)
        for problem in problems:
            print(f"{name}: left out: {problem}")
        yield name, (pair for _, pair in named)
        yield f"{name} + nuisance", with_nuisance_on_after(named)


def set_name(folder: Path, folders: Sequence[Path]) -> str:
    """Return a folder's name, or its path where two have the same."""
    return folder.name if [other.name for other in folders].count(folder.name) == 1 else str(folder)


def draw_gallery(network: Network, threshold: float, options: argparse.Namespace, runtime: Runtime) -> Image:
    """Draw rows of every set but the published one."""
    rooms = read_rooms(options.rooms, network.split)
    predict = partial(predict_probability, network.model, runtime=runtime)
    rows = [titles(network.size)]
    for name, pairs in sets(network, rooms, options.pairs, options.count):
        if name != "published test":
            rows += gallery_rows(predict, threshold, list(pairs))
    return np.vstack(rows)


def gallery_rows(predict: Predict, threshold: float, pairs: Sequence[Sample]) -> list[Image]:
    """Draw the changed pairs at a quarter, half and three quarters of the network's F1, and the one where
    it is furthest ahead of differencing."""
    oracle = DifferencingOracle()
    for pair in pairs:
        oracle.update(pair.before, pair.after, pair.mask, pair.valid)
    best = oracle.best()
    found = []
    for pair in pairs:
        ours = predict(pair.before, pair.after) > threshold
        plain = difference_sum(pair.before, pair.after, best.kernel) / 3 > best.threshold
        scores = [Confusion.of(mask, pair.mask, pair.valid).f1 for mask in (ours, plain)]
        if pair.mask.mean() > 255 * SHOWN_SHARE:
            found.append((scores, comparison_row(pair, ours, plain)))
    if not found:
        return []
    found.sort(key=lambda item: item[0][0])
    shown = [found[len(found) * quarter // 4][1] for quarter in (3, 2, 1)]
    return [*shown, max(found, key=lambda item: item[0][0] - item[0][1])[1]]


def comparison_row(pair: Sample, ours: AnyMask, plain: AnyMask) -> Image:
    truth = outline(overlay(pair.after, pair.mask), pair.mask)
    marked = (outline(overlay(pair.after, mask.astype(np.uint8)), pair.mask) for mask in (ours, plain))
    return np.hstack([pair.before, pair.after, truth, *marked])


def titles(size: int) -> Image:
    line = np.full((22, 5 * size, 3), 255, np.uint8)
    for column, title in enumerate(("before", "after", "truth", "prediction", "plain differencing")):
        cv2.putText(line, title, (column * size + 6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1)
    return line


def print_scores(name: str, scores: SetScores) -> dict[str, Any]:
    row = {**asdict(scores), "gap": scores.gap}
    figures = "".join(f"{row[key]:>14.3f}" for key in SHOWN)
    print(f"{name:<42}{scores.pairs:>6}{figures}  {scores.version}", flush=True)
    return row


def print_alarms(name: str, alarms: AlarmRate) -> dict[str, Any]:
    interval = f"95 %: {alarms.low:.3f}-{alarms.high:.3f}"
    print(f"{name:<42}{alarms.pairs:>6}  false-alarm rate {alarms.rate:.3f} ({interval})  {alarms.version}")
    return {**asdict(alarms), "rate": alarms.rate}


def print_summary(results: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Print mean and range over the networks."""
    print(f"\nmean (range) of {len(results)}")
    summary = {}
    for name, row in results[0].items():
        for key in SUMMARISED if isinstance(row, dict) else ():
            if key in row:
                values = [float(result[name][key]) for result in results]
                mean = statistics.mean(values)
                summary[f"{name} {key}"] = [mean, min(values), max(values)]
                print(f"  {f'{name} {key}':<50}{mean:.3f} ({min(values):.3f}-{max(values):.3f})")
    return summary


if __name__ == "__main__":
    main()
