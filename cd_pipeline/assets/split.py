"""The split."""

from collections import Counter

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
        from cd_pipeline.data.files import file_digest
        from cd_pipeline.data.manifest import read_photos, write_photos
        from cd_pipeline.data.split import SPLITS, assign_splits

        photos = assign_splits(
            read_photos(workspace.require(recipe, "raw_photos", "photos.parquet")), recipe.split
        )
        path = workspace.folder(recipe, "split") / "split.parquet"
        write_photos(path, photos)
        counts = Counter((photo.class_name, photo.split) for photo in photos if photo.split)
        sizes = {part: sum(n for (_, s), n in counts.items() if s == part) for part in SPLITS}
        context.log.info(", ".join(f"{part} {size}" for part, size in sizes.items()))
        quarantined = [photo for photo in photos if photo.reason]
        rows = [
            {"class": name, **{part: counts[name, part] for part in SPLITS}}
            for name in sorted({name for name, _ in counts})
        ]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(file_digest(path)),
            metadata={
                **sizes,
                "quarantined": len(quarantined),
                "counts": table(rows),
                "quarantined_files": table([{"file": p.path, "reason": p.reason or ""} for p in quarantined]),
            },
        )

    return split
