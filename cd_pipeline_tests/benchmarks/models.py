"""What each registered network costs: parameters, multiply-adds of a sample (a pair or one image), seconds of a training step.

    python -m cd_pipeline_tests.benchmarks.models [--size 256] [--no-time] [--threads N] [--json]

A training step is forward, backward and AdamW on a batch of 8 samples, on this machine's cores in the memory
format of training; the least of three, after one that is not counted. The last column quotes the F1 of the
change class on LEVIR-CD's test set that is published for networks of the same class: orientation, no result
of these networks.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from cd_pipeline.models.build import NETWORKS, build_model
from cd_pipeline.models.network import Network
from cd_pipeline.models.runtime import Runtime, resolve_runtime
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline_tests.models.measuring import multiply_adds, parameters, photos

BATCH = 8
REPEATS = 3
PLAIN = {"align_corners": False, "bias": False}
OF_RECIPES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "unet of the recipe cracks": ("unet", {"widths": (16, 32, 64, 128), **PLAIN}),
    "unet of the recipe voc": ("unet", {"widths": (16, 32, 64, 128, 256), **PLAIN}),
}
"""Networks with other settings than their defaults."""
PUBLISHED_F1: Mapping[str, str] = {
    "siamese_unet": "86.3-90.3 (FC-Siam-diff)",
    "tiny_cd": "91.05 (TinyCD)",
}


def main() -> None:
    options = parse_options()
    every = {**{name: (name, {}) for name in NETWORKS}, **OF_RECIPES}
    rows = [
        {
            **measure(network, options.size, timed=not options.no_time, threads=options.threads, **settings),
            "name": name,
        }
        for name, (network, settings) in every.items()
    ]
    if options.json:
        print(json.dumps({"size": options.size, "batch": BATCH, "networks": rows}, indent=2))
    else:
        print_table(rows, options.size)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256, help="side of the photos in px")
    parser.add_argument("--no-time", action="store_true", help="skip the training steps")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    return parser.parse_args()


def measure(
    name: str,
    size: int,
    *,
    timed: bool,
    threads: int | None = None,
    **options: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Measure a network at size x size; `options` are further settings of it."""
    settings = ModelSettings(name=name, **options)  # type: ignore[arg-type]
    model = build_model(settings)
    return {
        "name": name,
        "parameters": parameters(model),
        "multiply_adds": multiply_adds(model, size, settings.pictures),
        "step_seconds": step_seconds(model, size, threads, settings.pictures) if timed else None,
        "published_levir_cd_f1": PUBLISHED_F1.get(name),
    }


def step_seconds(model: Network, size: int, threads: int | None, pictures: int) -> float:
    runtime = resolve_runtime(device="cpu", threads=threads)
    runtime.prepare()
    network = runtime.place(model).train()
    optimizer = torch.optim.AdamW(network.parameters())
    return min([one_step(network, optimizer, size, runtime, pictures) for _ in range(1 + REPEATS)][1:])


def one_step(
    network: torch.nn.Module, optimizer: torch.optim.Optimizer, size: int, runtime: Runtime, pictures: int
) -> float:
    before, after = (runtime.place_batch(batch) for batch in photos(size, size, BATCH))
    truth = (before - after).abs().mean(dim=1, keepdim=True).round()
    started = time.perf_counter()
    optimizer.zero_grad()
    answer = network(*(before, after)[:pictures])
    heads = answer if isinstance(answer, list) else [answer]
    torch.stack([F.binary_cross_entropy_with_logits(logits, truth) for logits in heads]).mean().backward()
    optimizer.step()
    return time.perf_counter() - started


def print_table(rows: Sequence[Mapping[str, Any]], size: int) -> None:
    """Print a Markdown row a network."""
    titles = ("network", "parameters", f"multiply-adds at {size}x{size}", f"s a step of {BATCH}")
    print("| " + " | ".join(titles) + " | LEVIR-CD F1, published |")
    print("|---" * 5 + "|")
    for row in rows:
        seconds = "-" if row["step_seconds"] is None else f"{row['step_seconds']:.2f}"
        print(
            f"| {row['name']} | {row['parameters']:,} | {row['multiply_adds'] / 1e6:,.0f} M | {seconds} "
            f"| {row['published_levir_cd_f1'] or '-'} |"
        )


if __name__ == "__main__":
    main()
