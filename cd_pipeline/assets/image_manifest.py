"""The image manifest."""

from collections import Counter

import dagster as dg

from cd_pipeline.assets.identity import PICTURES
from cd_pipeline.assets.inputs import divided_images
from cd_pipeline.assets.stage import stage
from cd_pipeline.metadata import table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Workspace


def image_manifest_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `image_manifest` of a recipe."""

    @stage(
        recipe,
        after=["split"],
        kinds=["parquet"],
        settings=[recipe.source, recipe.input],
        packages=PICTURES,
    )
    def image_manifest(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """One row an image or a tile of it: its mask, its split, and how many pixels of each class it holds."""
        from cd_pipeline.data.files import file_digest
        from cd_pipeline.data.image_manifest import image_rows, read_masked_images, write_labelled_images

        images = read_masked_images(divided_images(workspace, recipe))
        rows = image_rows(workspace.roots(recipe).source, images, recipe.input, recipe.mask_form)
        path = workspace.folder(recipe, "image_manifest") / "images.parquet"
        write_labelled_images(path, rows, recipe.plan_version)
        marked = sum(any(row.class_pixels[1:]) for row in rows)
        splits = Counter((row.split, any(row.class_pixels[1:])) for row in rows)
        context.log.info(f"{len(rows)} rows: {marked} with something marked")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(file_digest(path)),
            metadata={
                "rows": len(rows),
                "marked": marked,
                "unmarked": len(rows) - marked,
                "splits": table(
                    [{"split": s, "marked": m, "rows": n} for (s, m), n in sorted(splits.items())]
                ),
            },
        )

    return image_manifest
