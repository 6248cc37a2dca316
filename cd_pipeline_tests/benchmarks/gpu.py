"""Whether a GPU waits for its pairs: training of the default network with pairs made on the CPU and on the device.

    python -m cd_pipeline_tests.benchmarks.gpu [--rooms ~/photos] [--device auto] [--batch 8 32 128]
        [--precision bfloat16 float16] [--pairs N] [--epochs 2] [--workers N] [--json]

Each row is a training as the recipe `rooms` does it (`cd_pipeline.training.loop.train`), on realistic pairs drawn anew in
every epoch; the first epoch, in which loader processes start and photos are decoded, is not counted.

- pairs/s: of the training steps, without validation.
- on the device: nothing, the nuisance of pairs (`nuisance_on`), or their rendering too (`rendering_on`).
- waits: share of that time in which the loop waits for its next batch. What is done on the device is handed to a GPU in
  it, which does it meanwhile; a CPU does it in it.
- GPU: mean utilisation while steps run, as the driver counts it, and the most memory that torch has reserved.

Before that, what a pair costs a loader process, in ms of CPU time of one thread, and what its nuisance and its rendering
(without nuisance) cost on the device. Without a GPU all is measured on the CPU, in fewer pairs.
"""

import argparse
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from torch.utils.data import default_collate

from cd_pipeline.data.datasets import to_item
from cd_pipeline.data.images import Image
from cd_pipeline.data.machine import usable_cores
from cd_pipeline.data.manifest import Pair, write_pairs
from cd_pipeline.data.photos import scan_photos
from cd_pipeline.data.samples import Roots
from cd_pipeline.data.settings import SplitSettings
from cd_pipeline.data.split import assign_splits
from cd_pipeline.evaluation.predict import Batch, BatchLoader
from cd_pipeline.models.build import build_model
from cd_pipeline.models.runtime import PRECISIONS, Runtime, resolve_runtime
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.synthesis.device_nuisance import UndisturbedPair, disturbed, undisturbed
from cd_pipeline.synthesis.device_render import DevicePhotos, render_chunk
from cd_pipeline.synthesis.fresh_pairs import UnrenderedPairs
from cd_pipeline.synthesis.nuisance import apply_nuisance
from cd_pipeline.synthesis.packed_plans import pack_plan
from cd_pipeline.synthesis.pairs import draw_plan, photo_pools, plan_pairs
from cd_pipeline.synthesis.photo_store import PhotoStore
from cd_pipeline.synthesis.plan_chunks import PlanChunk, pack_chunks
from cd_pipeline.synthesis.realistic_plan import RealisticPlan
from cd_pipeline.synthesis.realistic_render import Rendering, render_realistic
from cd_pipeline.synthesis.rendered_pairs import render_pairs
from cd_pipeline.synthesis.sample_rooms import draw_sample_rooms
from cd_pipeline.synthesis.settings import RealisticSynthesis
from cd_pipeline.training import loop
from cd_pipeline.training.sample_sets import training_sets
from cd_pipeline.training.settings import TrainingSettings

SIZE = 256
NETWORK = "tiny_siamese_unet"
VAL_PAIRS = 8
SAMPLE_SECONDS = 0.2
PLACES = {
    "nothing": {},
    "nuisance": {"nuisance_on": "device"},
    "rendering": {"nuisance_on": "device", "rendering_on": "device"},
}
"""What is done on the device, as settings of training."""
COSTED = 48
"""Pairs whose parts are timed."""
PARTS = (
    "plan",
    "render",
    "nuisance on the cpu",
    "to item",
    "pack",
    "pack plan",
    "collate plans",
    "nuisance on the device",
    "rendering on the device",
)


def main() -> None:
    options = parse_options()
    runtime = resolve_runtime(device=options.device, workers=options.workers, processes=1)
    on_gpu = runtime.device_type == "cuda"
    pairs = options.pairs or (2048 if on_gpu else 128)
    precisions = options.precision or (["bfloat16", "float16"] if on_gpu else ["float32", "bfloat16"])
    with tempfile.TemporaryDirectory(prefix="cd_pipeline_gpu_") as folder:
        work = prepare(Path(folder), options.rooms, pairs)
        report = {
            "device": runtime.description,
            "note": None if on_gpu else "no GPU: measured on the CPU",
            "cores": usable_cores(),
            "loader_processes": runtime.loader_processes(draws=True),
            "pairs_an_epoch": len(work.train),
            "ms_a_pair": measure_costs(work, runtime),
        }
        if not options.json:
            print(summary(report), flush=True)
        rows = []
        for batch, precision, place in product(options.batch, precisions, PLACES):
            rows.append(measure(work, replace(runtime, precision=precision), batch, place, options.epochs))
            if not options.json:
                print_row(rows[-1], first=len(rows) == 1)
    if options.json:
        print(json.dumps({**report, "trainings": rows}, indent=2))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m cd_pipeline_tests.benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rooms", type=Path, help="folder of labelled photos; none: sample rooms are drawn")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<n> or mps")
    parser.add_argument(
        "--batch",
        type=int,
        nargs="*",
        default=[8, 32, 128],
        help="pairs a batch; none: only what a pair costs",
    )
    parser.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, help="none: both halves, on a CPU float32 and bfloat16"
    )
    parser.add_argument("--pairs", type=int, help="an epoch; none: 2048, on a CPU 128")
    parser.add_argument("--epochs", type=int, default=2, help="that are counted")
    parser.add_argument("--workers", type=int, help="loader processes; none: as in training")
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    return parser.parse_args()


@dataclass(frozen=True)
class Work:
    """What is trained on: a manifest with its frozen val pairs, and the rows of train."""

    manifest: Path
    roots: Roots
    settings: RealisticSynthesis
    train: list[Pair]


def prepare(folder: Path, rooms: Path | None, pairs: int) -> Work:
    """Plan pairs of the photos and render those of val; without photos, sample rooms are drawn."""
    source = rooms or folder / "rooms"
    if rooms is None:
        draw_sample_rooms(source)
    settings = RealisticSynthesis(preset="realistic", epoch_pairs=pairs, frozen_pairs=1)
    photos = assign_splits(scan_photos(source).photos, SplitSettings())
    planned = plan_pairs(photos, settings, SIZE)
    train = [pair for pair in planned if pair.split == "train"]
    train = [train[i * len(train) // pairs] for i in range(pairs)]
    val = [pair for pair in planned if pair.split == "val"][:VAL_PAIRS]
    roots = Roots(source, folder)
    render_pairs(val, roots, threads=usable_cores())
    write_pairs(folder / "pairs.parquet", [*train, *val])
    return Work(folder / "pairs.parquet", roots, settings, train)


def measure_costs(work: Work, runtime: Runtime) -> dict[str, float]:
    """Return ms a pair: of a loader process by part, and of what is done to a batch on the device."""
    pools, photos = photo_pools(work.train), PhotoStore(work.roots)
    unrendered = UnrenderedPairs(work.train, work.roots, SIZE, work.settings)
    chosen = [work.train[i] for i in np.linspace(0, len(work.train) - 1, COSTED).astype(int)]
    torch.set_num_threads(1)
    cv2.setNumThreads(1)  # as in a loader process
    for _ in range(2):  # photos are decoded and outlines found the first time
        spent, whole, plans = dict.fromkeys(PARTS, 0.0), [], []
        for pair in chosen:
            plan = timed(spent, "plan", partial(draw_plan, pair, work.settings, pools, 1))
            assert isinstance(plan, RealisticPlan)
            whole.append(pack_whole(spent, pair, plan, photos))
            shown = unrendered.shown(pair)
            plans.append(timed(spent, "pack plan", partial(pack_plan, plan, shown, photos, SIZE)))
        chunks = timed(spent, "collate plans", partial(pack_chunks, plans, SIZE))
    pairs, on_device = default_collate(whole), unrendered.photos_on(runtime.device)
    spent["nuisance on the device"] = device_seconds(partial(disturbed, pairs, runtime.device), runtime)
    spent["rendering on the device"] = device_seconds(
        partial(render_all, chunks, on_device, runtime), runtime
    )
    return {name: 1e3 * seconds / COSTED for name, seconds in spent.items()}


def pack_whole(
    spent: dict[str, float], pair: Pair, plan: RealisticPlan, photos: PhotoStore
) -> UndisturbedPair:
    """Time what a loader process does where it renders pairs; returns one for the device to disturb."""
    rendering: Rendering = timed(
        spent,
        "render",
        partial(render_realistic, plan, pair.photo, pair.photo_sha256, photos, SIZE, nuisance=False),
    )
    clean, draws = rendering.pair, (plan.before_nuisance, plan.after_nuisance)

    def disturb() -> tuple[Image, ...]:
        given = zip(clean.pictures, draws, strict=True)
        return tuple(photo if draw is None else apply_nuisance(photo, draw)[0] for photo, draw in given)

    item = clean._replace(pictures=timed(spent, "nuisance on the cpu", disturb))
    timed(spent, "to item", partial(to_item, item))
    packed: UndisturbedPair = timed(spent, "pack", partial(undisturbed, clean, *draws))
    return packed


def render_all(chunks: list[PlanChunk], photos: DevicePhotos, runtime: Runtime) -> None:
    """Render a batch on the device."""
    for chunk in chunks:
        render_chunk(chunk, chunk.on(runtime.device), photos)


def timed(spent: dict[str, float], part: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Add the CPU seconds of a call to its part."""
    started = time.process_time()
    result = call()
    spent[part] += time.process_time() - started
    return result


def device_seconds(call: Callable[[], Any], runtime: Runtime) -> float:
    """Return the least of three: CPU seconds of one thread on a CPU, otherwise seconds until the device is done."""
    clock = time.process_time if runtime.device_type == "cpu" else time.perf_counter
    seconds = []
    for _ in range(4):
        started = clock()
        call()
        wait_for(runtime)
        seconds.append(clock() - started)
    return min(seconds[1:])


def measure(work: Work, runtime: Runtime, batch: int, place: str, epochs: int) -> dict[str, Any]:
    """Train for one epoch and those that are counted; `place` is one of `PLACES`."""
    asked: dict[str, Any] = {"preset": "rooms", "epochs": 1 + epochs, "batch_size": batch, **PLACES[place]}
    settings = TrainingSettings.model_validate(asked)
    train_set, val_set = training_sets(
        work.manifest,
        work.roots,
        SIZE,
        work.settings,
        nuisance_on=settings.nuisance_on,
        rendering_on=settings.rendering_on,
    )
    torch.manual_seed(settings.seed)
    model = build_model(ModelSettings(name=NETWORK, pretrained=False))
    watched: list[WatchedLoader] = []

    def loader(*arguments: Any, **options: Any) -> WatchedLoader:  # noqa: ANN401
        watched.append(WatchedLoader(*arguments, **options))
        return watched[-1]

    if runtime.device_type == "cuda":
        torch.cuda.reset_peak_memory_stats(runtime.device)
    with patch.object(loop, "BatchLoader", loader):
        result = loop.train(model, train_set, val_set, settings, runtime)
    (used,) = watched
    seconds = sum(used.seconds[1:])
    return {
        "batch": batch,
        "precision": runtime.precision,
        "on_the_device": place,
        "pairs_per_second": epochs * len(train_set) / seconds,
        "wait_share": sum(used.waited[1:]) / seconds,
        "gpu_utilisation_percent": float(np.mean(used.utilisation)) if used.utilisation else None,
        "gpu_memory_gb": result.history[-1].gpu_memory_gb,
        "loader_processes": runtime.loader_processes(draws=True),
        "last_train_loss": result.history[-1].train_loss,
    }


class WatchedLoader(BatchLoader):
    """Notes of each epoch how long it takes, how long the loop waits for batches, and what the GPU does."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments, **options)
        self.seconds: list[float] = []
        self.waited: list[float] = []
        self.utilisation: list[float] = []

    def epoch(self, number: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        wait_for(self.runtime)
        batches, waited, started = super().epoch(number), 0.0, time.perf_counter()
        with sampling(self.runtime, self.utilisation if number else []):
            while True:
                asked = time.perf_counter()
                batch = next(batches, None)
                waited += time.perf_counter() - asked
                if batch is None:
                    break
                yield batch
            wait_for(self.runtime)
        self.seconds.append(time.perf_counter() - started)
        self.waited.append(waited)


class sampling:  # noqa: N801 - a context manager
    """Samples the utilisation of a GPU into a list, in a thread of its own; elsewhere does nothing."""

    def __init__(self, runtime: Runtime, found: list[float]) -> None:
        self._read = utilisation_reader(runtime)
        self._found = found
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while self._read is not None and not self._done.wait(SAMPLE_SECONDS):
            self._found.append(self._read())

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def utilisation_reader(runtime: Runtime) -> Callable[[], float] | None:
    """Return what reads the share of time in which a kernel ran, in percent; None: there is no way to know.

    It asks the driver's own program, as torch.cuda.utilization needs a package that is not installed here.
    """
    if runtime.device_type != "cuda":
        return None
    index = torch.device(runtime.device).index
    index = torch.cuda.current_device() if index is None else index
    uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"  # it counts GPUs that are hidden from torch, too
    command = ["nvidia-smi", f"--id={uuid}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]

    def read() -> float:
        return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    try:
        read()
    except (OSError, subprocess.CalledProcessError, ValueError):  # not installed, or not for parts of a GPU
        return None
    return read


def wait_for(runtime: Runtime) -> None:
    """Wait until the device has done what it was given."""
    if runtime.device_type == "cuda":
        torch.cuda.synchronize(runtime.device)
    elif runtime.device_type == "mps":
        torch.mps.synchronize()


def print_row(row: Mapping[str, Any], *, first: bool) -> None:
    """Print a Markdown row a training."""
    if first:
        print("| batch | precision | on the device | pairs/s | waits | GPU | GPU memory |\n|" + "---|" * 7)
    busy, memory = row["gpu_utilisation_percent"], row["gpu_memory_gb"]
    print(
        f"| {row['batch']} | {row['precision']} | {row['on_the_device']} | {row['pairs_per_second']:.1f} "
        f"| {row['wait_share']:.0%} | {'-' if busy is None else f'{busy:.0f} %'} "
        f"| {'-' if memory is None else f'{memory:.1f} GB'} |",
        flush=True,
    )


def summary(report: Mapping[str, Any]) -> str:
    costs = report["ms_a_pair"]
    here = costs["plan"] + costs["render"]
    cpu, device = here + costs["nuisance on the cpu"] + costs["to item"], here + costs["pack"]
    packed = costs["plan"] + costs["pack plan"] + costs["collate plans"]
    return "\n".join(
        [
            *([report["note"]] if report["note"] else []),
            f"{report['device']}; {report['cores']} cores, {report['loader_processes']} loader processes, "
            f"{report['pairs_an_epoch']} pairs an epoch",
            f"ms a pair of {SIZE}x{SIZE}: "
            + ", ".join(f"{name} {value:.2f}" for name, value in costs.items()),
            f"a loader process: {cpu:.1f} ms a pair with all on the cpu, {device:.1f} with the nuisance on the device, "
            f"{packed:.1f} with the rendering there too",
            "",
        ]
    )


if __name__ == "__main__":
    main()
