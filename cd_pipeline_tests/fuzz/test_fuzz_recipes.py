"""Recipes with a setting replaced by a hostile value: valid, or refused by pydantic, quickly."""

import copy
import json
import random
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.errors import DagsterError
from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.testing.utils import create_defs_folder_sandbox
from dagster_shared.check import CheckError
from pydantic import ValidationError

from cd_pipeline.data.settings import InputSettings
from cd_pipeline.pipeline import Pipeline
from cd_pipeline.recipe import RecipeSettings
from cd_pipeline_tests.fuzz.mutations import NAMES, damaged, outcomes

DEFS = Path(__file__).parents[2] / "cd_pipeline" / "defs"
DEEP: Any = "deep"
for _ in range(60):
    DEEP = {"a": [DEEP]}
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1e-300, 10**30, -(10**30), float("nan"), float("inf"), "", "1", [], {}, [[]], DEEP),
    *([float("nan")] * 3, [1, 2], {"name": 1}, {"": {}}, {"1": None}, ["x"] * 100, "x" * 500, *NAMES),
)


def hostile_recipes(count: int, seed: int) -> Iterator[bytes]:
    """Yield the settings of a recipe, as JSON, with one to three parts replaced, added or taken out."""
    rng = random.Random(seed)
    files = sorted(DEFS.glob("*/defs.yaml"))
    whole = [yaml.safe_load(path.read_text(encoding="utf-8"))["attributes"] for path in files]
    whole += [{**settings, "input": InputSettings().model_dump()} for settings in whole]
    for _ in range(count):
        settings = copy.deepcopy(rng.choice(whole))
        for _ in range(rng.choice((1, 1, 2, 3))):
            part = settings
            while inner := [value for value in part.values() if isinstance(value, dict) and value]:
                if rng.random() < 0.3:
                    break
                part = rng.choice(inner)
            name = rng.choice([*part, rng.choice(NAMES)])
            if rng.random() < 0.1:
                part.pop(name, None)
            else:
                part[name] = copy.deepcopy(rng.choice(VALUES))
        yield json.dumps(settings).encode()


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_hostile_recipe_is_valid_or_refused_by_the_names_of_its_fields(count: int) -> None:
    def read(content: bytes) -> None:
        try:
            RecipeSettings.model_validate(json.loads(content))
        except ValidationError as error:
            places = error.errors(include_url=False, include_context=False)
            assert all(len(place["msg"]) < 2000 for place in places)
            raise ValueError(f"{len(places)} errors: {places[0]['loc']}") from None

    found = outcomes(read, hostile_recipes(count, seed=count), ValueError)
    assert min(found["read"], found["refused"]) > count // 100


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["mean", "std", "clahe"])
def test_a_setting_of_the_input_that_is_no_number_is_refused_by_its_name(name: str, value: float) -> None:
    given = value if name == "clahe" else [0.5, value, 0.5]
    with pytest.raises(ValidationError, match=rf"{name}[\s\S]*finite number"):
        InputSettings.model_validate({"scaling": "mean_std", name: given})


def hostile_recipe_files(count: int, seed: int) -> Iterator[bytes]:
    """Yield recipe files as text: whole ones with characters changed, parts cut, doubled or nested."""
    texts = [path.read_bytes() for path in sorted(DEFS.glob("*/defs.yaml"))]
    yield from (b"", b"\0", b"[", b"a: &a [*a]", b"!!python/object/apply:os.system ['true']")
    yield from (
        texts[0] + b"---\n" + texts[1],
        texts[0].replace(b"Pipeline", b"Pipe"),
        b"x: " + b"{a: " * 500,
    )
    for content in damaged(texts, count, seed):
        yield content.decode("ascii", errors="ignore").encode()


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::pydantic.PydanticDeprecatedSince20")
@pytest.mark.parametrize("count", [60, pytest.param(2_000, marks=pytest.mark.slow)])
def test_a_damaged_recipe_file_is_loaded_or_refused_by_dagster(count: int) -> None:
    refusals = (
        *(yaml.YAMLError, ValidationError, ValueError, RecursionError),
        *(CheckError, ComponentTreeException, DagsterError),
    )
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.scaffold_component(component_cls=Pipeline, defs_path="mine")

        def read(content: bytes) -> None:
            (folder / "defs.yaml").write_bytes(content)
            try:
                with sandbox.load_component_and_build_defs(defs_path="mine") as (component, _):
                    assert isinstance(component, dg.Component)
            except refusals as error:
                raise ValueError(type(error).__name__) from None  # its text is Dagster's own

        found = outcomes(read, hostile_recipe_files(count, seed=count), ValueError)
    assert min(found["read"], found["refused"]) > count // 100


@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")
def test_a_wrong_setting_is_refused_with_its_file_line_and_name() -> None:
    text = (
        (DEFS / "levir" / "defs.yaml").read_text().replace("  training:", "  training: {epoch: 3}\n  was:", 1)
    )
    line = next(n for n, row in enumerate(text.splitlines(), 1) if "epoch: 3" in row)
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.scaffold_component(component_cls=Pipeline, defs_path="mine")
        (folder / "defs.yaml").write_text(text)
        with pytest.raises(ComponentTreeException) as caught, sandbox.load_component_and_build_defs("mine"):
            pass
    told = "".join(traceback.format_exception(caught.value))
    assert "training.epoch" in told and f"defs.yaml:{line}" in told
