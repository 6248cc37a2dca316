"""What a recipe accepts: parts of one layout have no place in the other."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from cd_pipeline.recipe import Recipe, RecipeSettings

TWO_DATE: dict[str, Any] = {"source": {"layout": "two_date"}, "threshold": {"pairs": "own"}}
DEFS = Path(__file__).parents[1] / "cd_pipeline" / "defs"


def refusal(settings: dict[str, Any]) -> str:
    """The message of the one error of wrong settings."""
    with pytest.raises(ValidationError) as caught:
        RecipeSettings.model_validate(settings)
    (error,) = caught.value.errors()
    return str(error["msg"])


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ({"synthesis": {"preset": "realistic"}}, "synthesis"),
        ({"synthesis": {"preset": "published", "change_probability": 0.9}}, "synthesis"),
        ({"split": {"seed": 1}}, "split"),
        ({"real_pairs": {"folder": "/pairs"}}, "real_pairs"),
    ],
)
def test_a_part_that_pairs_of_a_folder_have_no_use_for_is_refused_by_name(
    part: dict[str, Any], name: str
) -> None:
    message = refusal({**TWO_DATE, **part})
    assert f"{name}: no part of a recipe with source.layout two_date; leave it out" in message


@pytest.mark.parametrize("augmentation", [{}, {"preset": "published"}])
def test_augmentation_is_for_pairs_of_a_folder(augmentation: dict[str, Any]) -> None:
    message = refusal({"augmentation": augmentation})
    assert "augmentation: no part of a recipe with source.layout labelled_photos; leave it out" in message
    settings = RecipeSettings.model_validate({**TWO_DATE, "augmentation": augmentation})
    assert settings.augmentation is not None


@pytest.mark.parametrize("threshold", [{}, {"pairs": "realistic"}, {"tolerance": 0}])
def test_realistic_pairs_cannot_choose_the_threshold_of_pairs_of_a_folder(threshold: dict[str, Any]) -> None:
    message = refusal({**TWO_DATE, "threshold": threshold})
    assert "threshold.pairs: realistic pairs are drawn from labelled photos; set it to own" in message


def test_tiles_are_for_pairs_of_a_folder() -> None:
    assert "input.fit: tile is for source.layout two_date; leave it out" in refusal(
        {"input": {"fit": "tile"}}
    )
    assert RecipeSettings.model_validate({**TWO_DATE, "input": {"fit": "tile"}}).input.fit == "tile"


@pytest.mark.parametrize(
    "part", [{"split": {}}, {"synthesis": {"preset": "published"}}, {"real_pairs": {"folder": None}}]
)
def test_a_part_at_its_default_does_no_harm(part: dict[str, Any]) -> None:
    assert RecipeSettings.model_validate({**TWO_DATE, **part}) == RecipeSettings.model_validate(TWO_DATE)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"source": {"layout": "folders"}}, ("source", "layout")),
        ({"input": {"fit": "crop"}}, ("input", "fit")),
        ({"input": {"overlap": 1.0}}, ("input", "overlap")),
        ({"threshold": {"fixed": 0.0}}, ("threshold", "fixed")),
        ({**TWO_DATE, "augmentation": {"scale": [2, 1]}}, ("augmentation", "scale")),
        ({**TWO_DATE, "augmentation": {"flip": 1}}, ("augmentation", "flip")),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(
    settings: dict[str, Any], place: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as caught:
        RecipeSettings.model_validate(settings)
    assert [error["loc"] for error in caught.value.errors()] == [place]


def test_the_layout_decides_the_first_assets() -> None:
    photos, pairs = Recipe(name="rooms"), Recipe.model_validate({"name": "levir", **TWO_DATE})
    assert (photos.raw_asset, photos.pair_assets) == ("raw_photos", ["pair_manifest", "change_masks"])
    assert (pairs.raw_asset, pairs.pair_assets) == ("raw_pairs", ["pair_manifest"])


def test_the_rows_of_pairs_of_a_folder_depend_on_size_and_fit_alone() -> None:
    def version(**changes: object) -> str:
        return Recipe.model_validate({"name": "levir", **TWO_DATE, **changes}).plan_version

    plain = version()
    assert version(training={"epochs": 3}) == version(augmentation={}) == plain
    assert version(prediction={"overlap": 0.5}) == plain
    assert len({plain, version(input={"size": 512}), version(input={"fit": "tile"})}) == 3


@pytest.mark.parametrize("name", ["rooms", "levir"])
def test_the_recipe_files_are_valid_and_survive_as_plain_values(name: str) -> None:
    content = yaml.safe_load((DEFS / name / "defs.yaml").read_text(encoding="utf-8"))
    recipe = Recipe.model_validate({"name": name, **content["attributes"]})
    assert recipe.source.layout == ("two_date" if name == "levir" else "labelled_photos")
    assert Recipe.model_validate(recipe.plain()) == recipe
