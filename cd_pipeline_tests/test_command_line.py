"""The commands of the README, run as a newcomer runs them, in processes of their own."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cd_pipeline.recipe import RecipeSettings

ROOT = Path(__file__).parents[1]
DAGSTER = str(Path(sys.executable).with_name("dagster"))


def readme_commands() -> list[list[str]]:
    """All `dagster ...` command lines of the README, without the lines' install part and comments."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    parts = [part for block in blocks for line in block.splitlines() for part in line.split("&&")]
    words = [shlex.split(part, comments=True) for part in parts]
    return [line for line in words if line and Path(line[0]).name == "dagster"]


def run_dagster(arguments: list[str], data: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run dagster in the project's folder with its own data root and history."""
    cleaned = {
        name: value for name, value in os.environ.items() if not name.startswith(("CD_PIPELINE_", "DAGSTER_"))
    }
    (data / "home").mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [DAGSTER, *arguments],
        cwd=ROOT,
        env={**cleaned, "CD_PIPELINE_DATA": str(data), "DAGSTER_HOME": str(data / "home"), **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_workspace_file_is_valid(tmp_path: Path) -> None:
    done = run_dagster(["definitions", "validate", "-w", "workspace.yaml"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Validation successful for code location cd_pipeline" in done.stdout + done.stderr


@pytest.mark.slow
def test_without_inputs_the_package_command_says_what_to_run(tmp_path: Path) -> None:
    arguments = ["asset", "materialize", "--select", "mlpackage"]
    done = run_dagster(arguments, tmp_path, DAGSTER_MODULE_NAME="cd_pipeline.definitions")
    assert done.returncode != 0
    remedy = 'model.pt is not there: run dagster asset materialize -m cd_pipeline.definitions --select "*checkpoint"'
    assert any(remedy in line for line in (done.stdout + done.stderr).splitlines())


def test_a_wrong_recipe_is_refused_with_file_line_and_allowed_values(tmp_path: Path) -> None:
    recipe = tmp_path / "my_rooms" / "defs" / "garage" / "defs.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("type: cd_pipeline.Pipeline\nattributes:\n  training:\n    preset: publishd\n")
    (tmp_path / "my_rooms" / "__init__.py").touch()
    project = '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "my_rooms"\n'
    (tmp_path / "pyproject.toml").write_text(project)
    code = "import dagster as dg, pathlib; dg.load_from_defs_folder(path_within_project=pathlib.Path.cwd() / 'my_rooms')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert f"attributes.training.preset at {recipe}:4" in done.stderr
    assert "Input should be 'published'" in done.stderr


@pytest.mark.slow
def test_the_main_job_of_the_readme_makes_the_package_from_nothing(tmp_path: Path) -> None:
    command = next(line for line in readme_commands() if "*mlpackage" in line)
    done = run_dagster(command[1:], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    rooms = tmp_path / "rooms"
    log = done.stdout + done.stderr
    for path in (
        "mlpackage/change_detector.mlpackage",
        "test_predictions/gallery.png",
        "test_predictions/metrics.json",
    ):
        assert (rooms / path).exists()
        assert str(rooms / path) in log
    assert "SAMPLE DATA" in log
    assert "epoch 2/" in log
    counts = [
        len(list((rooms / "raw_photos" / tree).glob("images/*/*.jpg"))) for tree in ("trainval", "test")
    ]
    assert counts == [147, 33]
    metrics = json.loads((rooms / "test_predictions" / "metrics.json").read_text())
    assert metrics["pairs"] == 330
    assert metrics["f1"] > metrics["differencing_oracle_f1"]
    again = run_dagster(
        ["asset", "materialize", "--select", "mlpackage"],
        tmp_path,
        DAGSTER_MODULE_NAME="cd_pipeline.definitions",
    )
    assert again.returncode == 0, again.stderr[-3000:]


@pytest.mark.slow
def test_the_readmes_command_for_two_dates_makes_a_package_from_nothing(tmp_path: Path) -> None:
    (command,) = [line for line in readme_commands() if "*levir/mlpackage" in line]
    done = run_dagster(command[1:], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "SAMPLE DATA" in done.stdout + done.stderr
    assert (tmp_path / "levir" / "mlpackage" / "change_detector.mlpackage").exists()
    metrics = json.loads((tmp_path / "levir" / "test_predictions" / "metrics.json").read_text())
    assert metrics["pairs"] == 8
    assert metrics["f1"] > metrics["differencing_oracle_f1"]
    assert metrics["exchanged_f1"] == pytest.approx(metrics["f1"], abs=1e-3)  # this network is symmetric


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "score", "floor"),
    [("cracks", "f1", "everything_marked_f1"), ("voc", "miou", "baseline_miou")],
)
def test_the_readmes_commands_for_single_images_make_a_package_from_nothing(
    recipe: str, score: str, floor: str, tmp_path: Path
) -> None:
    (command,) = [line for line in readme_commands() if f"*{recipe}/mlpackage" in line]
    done = run_dagster(command[1:], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "SAMPLE DATA" in done.stdout + done.stderr
    assert (tmp_path / recipe / "mlpackage" / "segmenter.mlpackage").exists()
    metrics = json.loads((tmp_path / recipe / "test_predictions" / "metrics.json").read_text())
    assert metrics["images"] == 12
    assert metrics[score] > 1.5 * metrics[floor]


@pytest.mark.parametrize(
    ("file", "networks"),
    [
        ("README.md", {"tiny_siamese_unet", "siamese_unet"}),
        ("cd_pipeline/docs/segmentation.md", {"unet", "resunet"}),
    ],
)
def test_the_recipes_in_the_documents_are_valid(file: str, networks: set[str]) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / file).read_text(), flags=re.DOTALL)
    recipes = [RecipeSettings.model_validate(yaml.safe_load(block)["attributes"]) for block in blocks]
    assert {recipe.model.name for recipe in recipes} == networks
