"""The code location: what it defines, how fast it loads, and how it refuses a wrong recipe."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from pydantic import ValidationError

from cd_pipeline.definitions import defs
from cd_pipeline.pipeline import build_pipeline
from cd_pipeline.recipe import Recipe, RecipeSettings
from cd_pipeline.resources import Compute, Workspace

HEAVY = ("torch", "timm", "cv2", "coremltools", "matplotlib")


def asset_graph(recipe: Recipe) -> AssetGraph:
    """The graph of one recipe."""
    resources = {"workspace": Workspace(), "compute": Compute()}
    return dg.Definitions.merge(
        build_pipeline(recipe), dg.Definitions(resources=resources)
    ).resolve_asset_graph()


def test_the_rooms_recipe_is_the_default_and_its_keys_carry_no_prefix() -> None:
    keys = {key.to_user_string() for key in defs().resolve_all_asset_keys()}
    assert {"raw_photos", "split", "pair_manifest", "change_masks", "checkpoint"} <= keys
    assert {"threshold", "test_predictions", "mlpackage"} <= keys


def test_other_recipes_carry_their_name_as_prefix_and_group() -> None:
    graph = asset_graph(Recipe(name="garage"))
    assert dg.AssetKey(["garage", "mlpackage"]) in graph.get_all_asset_keys()
    assert {graph.get(key).group_name for key in graph.get_all_asset_keys()} == {"garage"}


def test_everything_but_what_is_only_looked_at_leads_to_the_package() -> None:
    graph = asset_graph(Recipe(name="rooms"))
    upstream = dg.AssetSelection.assets("mlpackage").upstream().resolve(graph)
    after = {dg.AssetKey(name) for name in ("real_pairs", "release", "report")}
    assert graph.get_all_asset_keys() - upstream == after


def test_nothing_depends_on_the_real_pairs() -> None:
    graph = asset_graph(Recipe(name="rooms"))
    assert graph.get(dg.AssetKey("real_pairs")).child_keys == set()


def test_every_asset_has_description_kinds_and_code_version() -> None:
    graph = asset_graph(Recipe(name="rooms"))
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.kinds, key
        assert node.code_version, key


def test_assets_that_train_or_predict_share_the_gpu_pool() -> None:
    graph = asset_graph(Recipe(name="rooms"))
    pooled = {key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).pools == {"gpu"}}
    assert pooled == {"checkpoint", "threshold", "test_predictions", "real_pairs", "release"}


def test_a_changed_setting_changes_the_code_version_of_just_what_depends_on_it() -> None:
    def code_versions(recipe: Recipe) -> dict[str, str | None]:
        graph = asset_graph(recipe)
        return {key.to_user_string(): graph.get(key).code_version for key in graph.get_all_asset_keys()}

    before = code_versions(Recipe(name="rooms"))
    after = code_versions(Recipe(name="rooms", training={"epochs": 7}))  # type: ignore[arg-type]
    assert {name for name in before if before[name] != after[name]} == {"checkpoint"}


def test_loading_the_definitions_imports_no_heavy_package() -> None:
    code = (
        "import sys; import cd_pipeline.definitions as d; d.defs(); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_library_below_the_assets_imports_no_dagster() -> None:
    code = (
        "import sys, pkgutil, importlib, cd_pipeline\n"
        "for stage in ('data', 'synthesis', 'models', 'training', 'evaluation', 'export'):\n"
        "    package = importlib.import_module(f'cd_pipeline.{stage}')\n"
        "    for module in pkgutil.iter_modules(package.__path__):\n"
        "        importlib.import_module(f'cd_pipeline.{stage}.{module.name}')\n"
        "print('dagster' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"training": {"preset": "publishd"}}, "training.preset"),
        ({"training": {"epoch": 3}}, "training.epoch"),
        ({"split": {"train_share": 1.5}}, "split.train_share"),
        ({"synthesis": {"kind_weights": {"black": 1, "sparkle": 2}}}, "synthesis.published.kind_weights"),
        ({"synthesis": {"preset": "realistick"}}, "synthesis"),
        (
            {"synthesis": {"preset": "realistic", "side_shares": [0.5, 0.1]}},
            "synthesis.realistic.side_shares",
        ),
        (
            {"synthesis": {"preset": "realistic", "nuisance": {"gamma": 2}}},
            "synthesis.realistic.nuisance.gamma",
        ),
        ({"synthesis": {"preset": "realistic", "held_out_kinds": ["melt"]}}, "synthesis.realistic"),
        ({"input": {"size": 250}}, "input.size"),
        ({"threshold": {"low": 0.5, "high": 0.4}}, "threshold"),
    ],
)
def test_a_wrong_setting_is_refused_by_the_name_of_its_field(settings: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RecipeSettings.model_validate(settings)
    (error,) = caught.value.errors()
    assert ".".join(str(part) for part in error["loc"]) == field


def test_every_recipe_file_lies_in_a_folder_named_after_it() -> None:
    folder = Path(__file__).parents[1] / "cd_pipeline" / "defs"
    assert {path.parent.name for path in folder.glob("*/defs.yaml")} == {"rooms", "levir", "cracks", "voc"}
