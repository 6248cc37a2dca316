"""The split."""

import dagster as dg

from cd_pipeline.assets.stage import stage
from cd_pipeline.metadata import table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Workspace


def split_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `split` of a recipe."""

    @stage(recipe, after=["raw_photos"], kinds=["parquet"], settings=[recipe.split])
    def split(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """Each photo's part: train, val or test, decided by its content alone."""
        import pandas as pd

        from cd_pipeline.data.files import file_digest
        from cd_pipeline.data.manifest import read_photos, write_photos
        from cd_pipeline.data.split import SPLITS, assign_splits

        photos = assign_splits(
            read_photos(workspace.require(recipe, "raw_photos", "photos.parquet")), recipe.split
        )
        path = workspace.folder(recipe, "split") / "split.parquet"
        write_photos(path, photos)
        used = pd.DataFrame([(p.class_name, p.split) for p in photos if p.split], columns=["class", "split"])
        counts = pd.crosstab(used["class"], used["split"]).reindex(columns=list(SPLITS), fill_value=0)
        sizes = {part: int(counts[part].sum()) for part in SPLITS}
        context.log.info(", ".join(f"{part} {size}" for part, size in sizes.items()))
        quarantined = [photo for photo in photos if photo.reason]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(file_digest(path)),
            metadata={
                **sizes,
                "quarantined": len(quarantined),
                "counts": table(counts.reset_index()),
                "quarantined_files": table([{"file": p.path, "reason": p.reason or ""} for p in quarantined]),
            },
        )

    return split
