"""What the product's stages cost, each beside a plain reference of the same work, measured in one run.

    python -m cd_pipeline_tests.benchmarks [--only NAME...] [--quick] [--profile] [--json]

Each side runs in a process of its own, warmed up once; rounds alternate. Of both sides the table shows the
median seconds with the CPU seconds of all cores, and the peak memory with what had been held before the first
round: the libraries and what was prepared. A ratio is reference / ours of the same round: its median, and the
lowest and highest; above 1 ours is faster, or smaller. Every case compares the answers of both sides.

Photos are those of CD_PIPELINE_REAL_DATA, or sample rooms are drawn. Two quiet cores take ten minutes; --quick
takes a minute or two and shows that all runs, not how fast.
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cd_pipeline.data.machine import usable_cores
from cd_pipeline_tests.benchmarks.cases import CASES
from cd_pipeline_tests.benchmarks.measure import OURS, REFERENCE, Case, MeasureError, measure
from cd_pipeline_tests.conftest import REAL_DATA

PACKAGES = ("torch", "numpy", "opencv-python", "dagster")
TITLES = (
    "",
    "ours s (CPU)",
    "reference s (CPU)",
    "ratio (range)",
    "CPU ratio",
    "ours MB",
    "reference MB",
    "ratio",
)


def main() -> None:
    options = parse_options()
    measured: list[dict[str, Any]] = []
    report = {"machine": machine(), "photos": photos(), "quick": options.quick, "cases": measured}
    if not options.json:
        print(f"{report['machine']}; photos: {report['photos']}" + ("; quick" if options.quick else ""))
        print_line(TITLES)
        print_line(["---", *["---:"] * (len(TITLES) - 1)])
    failures = []
    with tempfile.TemporaryDirectory(prefix="cd_pipeline_benchmark_") as folder:
        for case in chosen(options.only):
            try:
                found = measure(case, Path(folder), quick=options.quick, profiled=options.profile)
            except MeasureError as error:
                failures.append(str(error))
                continue
            measured.append(found)
            if not options.json:
                print_rows(found)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print_notes(measured)
    if failures:
        raise SystemExit("\n\n".join(failures))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m cd_pipeline_tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [case.name for case in CASES]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of: {'; '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="small sizes and two rounds")
    parser.add_argument(
        "--profile", action="store_true", help="also the top functions or ops of the slowest stages"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    return parser.parse_args()


def chosen(names: Sequence[str] | None) -> Iterator[Case]:
    return (case for case in CASES if names is None or case.name in names)


def machine() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{platform.machine()}, {usable_cores()} cores{load}; Python {platform.python_version()}, {packages}"
    )


def photos() -> str:
    return "real rooms" if REAL_DATA in os.environ else "drawn sample rooms"


def print_rows(found: Mapping[str, Any]) -> None:
    for number, row in enumerate(found["rows"]):
        memory = memory_cells(found) if number == 0 else ["", "", ""]
        ratio = ranged(row["ratio"], row["ratio_low"], row["ratio_high"])
        print_line(
            [
                row["name"],
                *(seconds(row[side]) for side in (OURS, REFERENCE)),
                ratio,
                times(row["cpu_ratio"]),
                *memory,
            ]
        )


def memory_cells(found: Mapping[str, Any]) -> list[str]:
    sides = [found["memory"][side] for side in (OURS, REFERENCE)]
    return [
        *(f"{side['peak_mb']:.0f} ({side['before_mb']:.0f})" for side in sides),
        times(found["memory_ratio"]),
    ]


def seconds(side: Mapping[str, float]) -> str:
    share = f", {side['share']:.1%}" if side["share"] < 1 else ""
    return f"{side['seconds']:.3g} ({side['cpu_seconds']:.3g}{share})"


def ranged(middle: float | None, low: float | None, high: float | None) -> str:
    return "-" if middle is None else f"{middle:.2f} ({low:.2f}-{high:.2f})"


def times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def print_line(cells: Sequence[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def print_notes(measured: Sequence[Mapping[str, Any]]) -> None:
    """Print what is compared and how far the answers agree, and the profiles that were asked for."""
    print()
    for found in measured:
        sizes = ", ".join(f"{name} {number}" for name, number in found["sizes"].items())
        print(f"- {found['name']}: {found['what']}{f' ({sizes})' if sizes else ''}.")
        print(f"  Ours: {found[OURS]}. Reference: {found[REFERENCE]}. Answers: {found['agreement']}.")
    for found in measured:
        if "profile" in found:
            print(f"\n{found['name']}, where ours spends its time:")
            for name, share in found["profile"]:
                print(f"  {share:6.1%}  {name}")


if __name__ == "__main__":
    main()
