"""Networks and losses of the recipe `cracks`, compared on one folder of images and masks.

    python -m cd_pipeline_tests.benchmarks.segmentation FOLDER [--runs NAME...] [--seeds 42] [--workspace FOLDER]

Every run is the recipe with a few settings changed; it goes through Dagster from the folder to the test
predictions. Epoch and threshold are chosen on val. ODS and OIS are of the test images: by their definition they
choose their thresholds there.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from cd_pipeline.models.build import build_model
from cd_pipeline.pipeline import build_pipeline
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace

RECIPE = "cracks"
PUBLISHED_UNET = {"name": "unet", "widths": [32, 64, 128, 256, 512], "align_corners": True}
RUNS: Mapping[str, Mapping[str, Any]] = {
    "recipe": {},
    "bce": {"training": {"loss": "bce"}},
    "focal": {"training": {"loss": "focal"}},
    "focal_dice": {"training": {"loss": "focal_dice"}},
    "unet_7_85_million": {"model": PUBLISHED_UNET, "training": {"epochs": 16, "learning_rate": 2e-3}},
}
STAGES = (*("raw_images", "split", "image_manifest", "checkpoint", "threshold", "test_predictions"),)
COLUMNS = ("val_f1", "f1", "ods", "ods_precision", "ods_recall", "ois")


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(options.workspace or temporary)
        rows = [run(name, seed, options, root) for name in options.runs for seed in options.seeds]
    print_table(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="images/ and masks/")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS), metavar="RUN")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--epochs", type=int, help="instead of each run's own")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--precision", default="auto", help="of training: auto, float32 or bfloat16")
    parser.add_argument("--workspace", type=Path, help="keep what is made here")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def recipe_of(name: str, folder: Path, seed: int = 42, epochs: int | None = None) -> Recipe:
    """Return the recipe `cracks` with the settings of a run."""
    file = files("cd_pipeline") / "defs" / RECIPE / "defs.yaml"
    settings: dict[str, Any] = yaml.safe_load(file.read_text())["attributes"]
    settings["source"]["folder"] = str(folder)
    changes = RUNS[name]
    settings["model"] = dict(changes.get("model", settings["model"]))
    settings["training"] = {**settings["training"], **changes.get("training", {}), "seed": seed}
    if epochs:
        settings["training"]["epochs"] = epochs
    return Recipe(name=f"{name}_seed_{seed}", **settings)


def run(name: str, seed: int, options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Train and score a run with one seed."""
    recipe = recipe_of(name, options.folder.resolve(), seed, options.epochs)
    started = time.perf_counter()
    result = dg.materialize(
        list(build_pipeline(recipe).assets or []),  # type: ignore[arg-type]
        selection=[dg.AssetKey(recipe.asset_key(stage)) for stage in STAGES],
        resources={
            "workspace": Workspace(root=str(root)),
            "compute": Compute(threads=options.threads, precision=options.precision),
        },
    )
    metrics = json.loads((root / recipe.name / "test_predictions" / "metrics.json").read_text())
    trained = result.asset_materializations_for_node("__".join(recipe.asset_key("checkpoint")))[0].metadata
    return {
        "run": name,
        "seed": seed,
        "parameters": sum(p.numel() for p in build_model(recipe.model, recipe.task).parameters()),
        "minutes": (time.perf_counter() - started) / 60,
        "val_f1": trained["val_f1"].value,
        **{key: metrics[key] for key in COLUMNS if key in metrics},
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print a Markdown row a run."""
    print("\n| run | seed | parameters | " + " | ".join(COLUMNS) + " | minutes |")
    print("|---" * (len(COLUMNS) + 4) + "|")
    for row in rows:
        cells = " | ".join(f"{row[column]:.3f}" for column in COLUMNS)
        print(f"| {row['run']} | {row['seed']} | {row['parameters']:,} | {cells} | {row['minutes']:.1f} |")


if __name__ == "__main__":
    main()
