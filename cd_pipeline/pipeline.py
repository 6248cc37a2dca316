"""The Dagster component `cd_pipeline.Pipeline`: one recipe file becomes its assets and checks."""

from typing import Self

import dagster as dg
from pydantic import BaseModel

from cd_pipeline.assets.change_masks import change_masks_asset
from cd_pipeline.assets.checkpoint import checkpoint_asset
from cd_pipeline.assets.cross_datasets import cross_datasets_asset
from cd_pipeline.assets.image_manifest import image_manifest_asset
from cd_pipeline.assets.mlpackage import mlpackage_asset
from cd_pipeline.assets.pair_manifest import pair_manifest_asset
from cd_pipeline.assets.raw_images import raw_images_asset
from cd_pipeline.assets.raw_pairs import raw_pairs_asset
from cd_pipeline.assets.raw_photos import raw_photos_asset
from cd_pipeline.assets.real_pairs import real_pairs_asset
from cd_pipeline.assets.release import release_asset
from cd_pipeline.assets.report import report_asset
from cd_pipeline.assets.split import split_asset
from cd_pipeline.assets.test_predictions import test_predictions_asset
from cd_pipeline.assets.threshold import threshold_asset
from cd_pipeline.automation import automate, remake_condition
from cd_pipeline.checks import build_checks
from cd_pipeline.recipe import Recipe, RecipeSettings

IMAGE_STAGES = (raw_images_asset, split_asset, image_manifest_asset)
STAGES = {
    "labelled_photos": (raw_photos_asset, split_asset, pair_manifest_asset, change_masks_asset),
    "two_date": (raw_pairs_asset, pair_manifest_asset),
    "masked_images": IMAGE_STAGES,
    "voc": IMAGE_STAGES,
}
"""What leads to the samples of a data set, by its layout."""
FURTHER_STAGES = {
    "labelled_photos": (real_pairs_asset,),
    "two_date": (),
    "masked_images": (cross_datasets_asset,),
    "voc": (cross_datasets_asset,),
}
"""What else is measured."""


class Pipeline(dg.Component):
    """A pipeline from raw data to a Core ML package; its name is that of its folder."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @classmethod
    def get_model_cls(cls) -> type[RecipeSettings]:
        """Return the schema of the recipe file's attributes."""
        return RecipeSettings

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Make the component from validated attributes."""
        settings = dict(attributes) if attributes is not None else {}
        return cls(Recipe(name=context.path.name, **settings))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the recipe's assets and checks."""
        return build_pipeline(self.recipe)


def build_pipeline(recipe: Recipe) -> dg.Definitions:
    """Build the assets and checks of a recipe, and what runs them by itself; resources are the caller's."""
    layout = recipe.source.layout
    stages = [
        *STAGES[layout],
        checkpoint_asset,
        *((threshold_asset,) if recipe.has_threshold else ()),
        test_predictions_asset,
        report_asset,
        mlpackage_asset,
        release_asset,
        *FURTHER_STAGES[layout],
    ]
    assets = dg.map_asset_specs(
        lambda spec: spec.replace_attributes(automation_condition=remake_condition()),
        [build(recipe) for build in stages],
    )
    return dg.Definitions.merge(
        dg.Definitions(assets=assets, asset_checks=list(build_checks(recipe))), automate(recipe, assets)
    )
