"""The split."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import dagster as dg

from cd_pipeline.assets.inputs import found_images
from cd_pipeline.assets.stage import stage
from cd_pipeline.metadata import table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from cd_pipeline.data.masked_images import MaskedImage


def split_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `split` of a recipe."""

    @stage(recipe, after=[recipe.raw_asset], kinds=["parquet"], settings=[recipe.split], packages=())
    def split(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """Each picture's part: train, val or test, decided by its content alone, or by the data set's lists."""
        from cd_pipeline.data.files import file_digest

        path = workspace.folder(recipe, "split") / "split.parquet"
        divide = divide_images if recipe.one_image else divide_photos
        figures = divide(workspace, recipe, path)
        context.log.info(", ".join(f"{part} {figures[part]}" for part in ("train", "val", "test")))
        return dg.MaterializeResult(data_version=dg.DataVersion(file_digest(path)), metadata=figures)

    return split


def divide_photos(workspace: Workspace, recipe: Recipe, path: "Path") -> dict[str, Any]:
    """Divide labelled photos within each class, and return what is shown of it."""
    from cd_pipeline.data.manifest import read_photos, write_photos
    from cd_pipeline.data.split import assign_splits

    photos = assign_splits(
        read_photos(workspace.require(recipe, recipe.raw_asset, "photos.parquet")), recipe.split
    )
    write_photos(path, photos)
    return split_figures(
        "class",
        ((photo.class_name, photo.split) for photo in photos if photo.split),
        [{"file": photo.path, "reason": photo.reason or ""} for photo in photos if photo.reason],
    )


def divide_images(workspace: Workspace, recipe: Recipe, path: "Path") -> dict[str, Any]:
    """Divide images within each data set, and return what is shown of it."""
    from cd_pipeline.data.image_manifest import read_masked_images, write_masked_images
    from cd_pipeline.data.masked_images import label_of, split_masked_images

    found = read_masked_images(found_images(workspace, recipe))
    images: list[MaskedImage] = split_masked_images(found, recipe.split)
    write_masked_images(path, images, recipe.split_version)
    return split_figures(
        "data_set",
        ((image.dataset or "all", image.split) for image in images if image.reason is None),
        [{"file": label_of(image), "reason": image.reason} for image in images if image.reason],
    )


def split_figures(
    group: str, used: Iterable[tuple[str, str]], quarantined: list[dict[str, str]]
) -> dict[str, Any]:
    """Return counts and tables of (group, split) of each used picture, and of those left out."""
    import pandas as pd

    from cd_pipeline.data.split import SPLITS

    frame = pd.DataFrame(list(used), columns=[group, "split"])
    counts = pd.crosstab(frame[group], frame["split"]).reindex(columns=list(SPLITS), fill_value=0)
    return {
        **{part: int(counts[part].sum()) for part in SPLITS},
        "quarantined": len(quarantined),
        "counts": table(counts.reset_index()),
        "quarantined_files": table(quarantined, "split.parquet"),
    }
