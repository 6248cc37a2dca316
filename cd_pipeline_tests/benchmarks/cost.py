"""What the rooms pipeline costs at any number of photos, on paper: rates times counts, and what breaks first.

    python -m cd_pipeline_tests.benchmarks.cost [--photos 10000000] [--nodes 4 --cores 32 --gpus 8 --memory-gb 256]
                                                [--epochs 40] [--set render_cpu_s=0.05 ...]

RATES are measured on few photos and taken as they are: each stage is linear in its units, all cores that it can use
are at work, and nothing waits for disk or network. A stage that is not spread over the cluster has the cores and
the memory of one machine, or one core. Measured on two cores, on photos of rooms of at most 640 px; what concerns
GPUs is an estimate.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cd_pipeline.data.settings import SplitSettings
from cd_pipeline.models.runtime import MAX_WORKERS

RATES: dict[str, tuple[float | None, str]] = {
    "photo_mb": (0.066, "MB a photo of at most 640 px, as the rooms' that the rest is measured on"),
    "read_cpu_s": (0.0038, "CPU s a photo: raw_photos reads, hashes and decodes it"),
    "read_memory_kb": (2.5, "kB of memory a photo in raw_photos"),
    "split_cpu_s": (0.00012, "CPU s a photo: split, near-identical photos included"),
    "split_memory_kb": (2.2, "kB of memory a photo in split"),
    "plan_cpu_s": (0.0002, "CPU s a pair: pair_manifest draws its plan"),
    "plan_memory_kb": (2.3, "kB of memory a pair in pair_manifest"),
    "plan_stored_kb": (0.28, "kB of pairs.parquet a pair"),
    "render_cpu_s": (0.013, "CPU s a frozen pair: change_masks renders and writes it"),
    "render_memory_kb": (0.9, "kB of memory a frozen pair in change_masks, beyond its start"),
    "render_stored_kb": (203, "kB of pictures a frozen pair in change_masks"),
    "check_cpu_s": (0.0017, "CPU s a frozen pair: its mask and after picture are read by the checks"),
    "whole_cpu_s": (0.0002, "CPU s a frozen pair: its files are hashed by the next asset in another process"),
    "train_gpu_s": (0.0002, "GPU s a pair and epoch; NOT MEASURED: 1.0 GFLOP a pair at 5 TFLOP/s"),
    "train_cpu_s": (0.0075, "CPU s a pair and epoch: the loader draws it anew"),
    "train_memory_kb": (2.0, "kB of memory a train pair in each training process and each of its loaders"),
    "validate_cpu_s": (0.0026, "CPU s a val pair and epoch: the first training process reads it"),
    "predict_gpu_s": (0.00014, "GPU s a test pair; NOT MEASURED: 0.7 GFLOP in both orders at 5 TFLOP/s"),
    "predict_cpu_s": (0.03, "CPU s a test pair: test_predictions reads, scores and writes it"),
    "predict_memory_kb": (8.0, "kB of memory a test pair in test_predictions, beyond its start"),
    "predict_stored_kb": (10.5, "kB of masks and rows a test pair in test_predictions"),
    "release_cpu_s": (6.5e-5, "CPU s a test pair: release resamples the test photos, 2,000 times"),
    "release_memory_kb": (0.2, "kB of memory a test pair in release"),
}
"""Value and unit. None: not measured yet; the script asks for it."""
MAX_HOURS = 24.0
"""A stage that takes longer is broken, as is one that needs more memory than its machine has."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Machines of one kind."""

    nodes: int
    cores: int
    gpus: int
    memory_gb: float


@dataclass(frozen=True, slots=True)
class Stage:
    """One asset's work, linear in its units.

    Attributes:
        name: in Markdown.
        share: units a photo.
        passes: how often each is worked on.
        copies: of what is held, on a machine.
        processes: as many cores it has at most; 0: all of its machines.
        cpu_s: CPU seconds a unit and pass.
        gpu_s: GPU seconds a unit and pass.
        memory_kb: held at a time by the process that runs the stage, a unit.
        stored_kb: on disk, a unit.
        spread: over all machines; else it has the cores of one.
        one_thread: it has one core.
    """

    name: str
    share: float
    cpu_s: float
    memory_kb: float
    gpu_s: float = 0.0
    stored_kb: float = 0.0
    passes: int = 1
    copies: int = 1
    processes: int = 0
    spread: bool = False
    one_thread: bool = False

    def cpu_hours(self, photos: float) -> float:
        return photos * self.share * self.passes * self.cpu_s / 3600

    def gpu_hours(self, photos: float) -> float:
        return photos * self.share * self.passes * self.gpu_s / 3600

    def hours(self, photos: float, cluster: Cluster) -> float:
        """CPUs and GPUs work at the same time: the slower one tells."""
        cores = cluster.cores * (cluster.nodes if self.spread else 1)
        on_cpus = self.cpu_hours(photos) / (1 if self.one_thread else min(cores, self.processes or cores))
        return max(on_cpus, self.gpu_hours(photos) / cluster.gpus if self.gpu_s else 0.0)

    def memory_gb(self, photos: float) -> float:
        return photos * self.share * self.memory_kb * self.copies / 1e6

    def stored_gb(self, photos: float) -> float:
        return photos * self.share * self.stored_kb / 1e6

    def breaks_at(self, cluster: Cluster) -> tuple[float, str]:
        """Return at how many photos it takes too long or too much memory, whichever is first, and which it is."""
        limits = [
            (MAX_HOURS, self.hours(1, cluster), "hours"),
            (cluster.memory_gb, self.memory_gb(1), "memory"),
        ]
        return min((limit / a_photo, what) for limit, a_photo, what in limits if a_photo)


def stages(rates: Mapping[str, float], cluster: Cluster, *, epochs: int, split: SplitSettings) -> list[Stage]:
    """Return the stages of the recipe rooms on one tree of photos, a pair a photo; a training process a GPU."""
    trainers = max(1, cluster.gpus // cluster.nodes)
    loaders = max(1, min(MAX_WORKERS, cluster.cores // trainers - 1))
    test = split.test_share
    train, frozen = (1 - test) * split.train_share, 1 - (1 - test) * split.train_share
    named = {name: rates[name] for name in RATES}

    def of(rate: str) -> dict[str, float]:
        columns = ("cpu_s", "gpu_s", "memory_kb", "stored_kb")
        return {column: named[f"{rate}_{column}"] for column in columns if f"{rate}_{column}" in named}

    return [
        Stage("`raw_photos`", 1, **of("read"), stored_kb=named["photo_mb"] * 1000),
        Stage("`split`", 1, **of("split"), one_thread=True),
        Stage("`pair_manifest`", 1, **of("plan"), one_thread=True),
        Stage("`change_masks`", frozen, **of("render"), spread=True),
        Stage("checks of `change_masks`", frozen, **of("check"), memory_kb=0, one_thread=True),
        Stage("whether `change_masks` is whole", frozen, **of("whole"), memory_kb=0, one_thread=True),
        Stage(
            "`checkpoint`",
            train,
            **of("train"),
            passes=epochs,
            copies=trainers * (1 + loaders),
            processes=cluster.nodes * trainers * loaders,
            spread=True,
        ),
        Stage(
            "validation in `checkpoint`",
            frozen - test,
            **of("validate"),
            memory_kb=0,
            passes=epochs,
            one_thread=True,
        ),
        Stage("`test_predictions`", test, **of("predict"), spread=True),
        Stage("`release`", test, **of("release"), one_thread=True),
    ]


def lines(found: Sequence[Stage], photos: int, cluster: Cluster) -> list[str]:
    """Return the table in markdown, and below it the stages in the order in which they break."""
    rows = [
        "| stage | units | CPU hours | GPU hours | hours on this cluster | memory, GB | stored, GB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for stage in found:
        figures = (
            stage.cpu_hours(photos),
            stage.gpu_hours(photos),
            stage.hours(photos, cluster),
            stage.memory_gb(photos),
            stage.stored_gb(photos),
        )
        told = " | ".join(f"{figure:,.1f}" for figure in figures)
        rows.append(f"| {stage.name} | {photos * stage.share:,.0f} | {told} |")
    totals = [
        sum(figure) for figure in zip(*(_totals(stage, photos, cluster) for stage in found), strict=True)
    ]
    cpu, gpu, hours, stored = (f"{total:,.1f}" for total in totals)
    rows.append(f"| all | | {cpu} | {gpu} | {hours} | | {stored} |")
    order = sorted((*stage.breaks_at(cluster), stage.name) for stage in found)
    rows += ["", f"Breaks first, at more than {MAX_HOURS:g} hours or the memory of one machine:", ""]
    rows += [
        f"{place}. {name}: {what}, at {at:,.0f} photos" for place, (at, what, name) in enumerate(order, 1)
    ]
    return rows


def _totals(stage: Stage, photos: int, cluster: Cluster) -> tuple[float, float, float, float]:
    return (
        stage.cpu_hours(photos),
        stage.gpu_hours(photos),
        stage.hours(photos, cluster),
        stage.stored_gb(photos),
    )


def known_rates(given: Mapping[str, float]) -> dict[str, float]:
    """Return all rates, those given in place of the measured ones.

    Raises:
        ValueError: a name is unknown, or a rate is neither measured nor given, or negative.
    """
    if unknown := sorted(set(given) - set(RATES)):
        raise ValueError(f"no such rate: {', '.join(unknown)}; there are {', '.join(RATES)}")
    rates = {name: given.get(name, value) for name, (value, _) in RATES.items()}
    missing = [f"{name} ({RATES[name][1]})" for name, value in rates.items() if value is None]
    if missing:
        raise ValueError(
            f"not measured yet; write it into RATES or add --set NAME=VALUE: {'; '.join(missing)}"
        )
    if negative := [name for name, value in rates.items() if value is not None and value < 0]:
        raise ValueError(f"a rate is never negative: {', '.join(negative)}")
    return {name: value for name, value in rates.items() if value is not None}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=10_000_000)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--cores", type=int, default=32, help="of each node")
    parser.add_argument("--gpus", type=int, default=8, help="of all nodes")
    parser.add_argument("--memory-gb", type=float, default=256, help="of each node")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", dest="given", help="a rate")
    options = parser.parse_args()
    try:
        rates = known_rates(
            {name: float(value) for name, _, value in (one.partition("=") for one in options.given)}
        )
    except ValueError as error:
        parser.error(str(error))
    cluster = Cluster(options.nodes, options.cores, options.gpus, options.memory_gb)
    found = stages(rates, cluster, epochs=options.epochs, split=SplitSettings())
    print("\n".join(lines(found, options.photos, cluster)))


if __name__ == "__main__":
    main()
