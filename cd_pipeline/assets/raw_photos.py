"""The raw photos: observed, or drawn where none are configured."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import dagster as dg

from cd_pipeline.assets.identity import PICTURES, raw_source
from cd_pipeline.assets.source import observe
from cd_pipeline.assets.stage import stage
from cd_pipeline.metadata import table, warn_of_left_out
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace

if TYPE_CHECKING:
    from cd_pipeline.data.photos import Inventory


def raw_photos_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `raw_photos` of a recipe."""

    @stage(recipe, kinds=["jpeg"], settings=[recipe.source], packages=PICTURES, also=raw_source(recipe))
    def raw_photos(
        context: dg.AssetExecutionContext, workspace: Workspace, compute: Compute
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """The labelled photos, each read once; files that cannot be used are listed with the reason.

        Your own folder is only read. With none configured, sample rooms are drawn.
        """
        from cd_pipeline.data.manifest import write_photos
        from cd_pipeline.data.photos import scan_photos
        from cd_pipeline.synthesis.sample_rooms import draw_sample_rooms

        source = observe(
            context.log,
            workspace,
            recipe,
            compute.cores,
            scan=scan_photos,
            draw=draw_sample_rooms,
            sample="drawn rooms, not photos",
        )
        inventory = source.inventory
        path = workspace.folder(recipe, "raw_photos") / "photos.parquet"
        write_photos(path, inventory.photos)
        left_out = [(photo.path, photo.reason) for photo in inventory.quarantined]
        warn_of_left_out(context.log, "quarantined", left_out, path.name)
        counts = f"{len(inventory.usable)} photos, {len(left_out)} files quarantined"
        context.log.info(f"{counts}, in {source.root}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(inventory.version),
            metadata={**source.figures(), **inventory_figures(inventory)},
        )

    return raw_photos


def inventory_figures(inventory: "Inventory") -> dict[str, Any]:
    """Return counts and tables of what was found, used or not."""
    usable, quarantined = inventory.usable, inventory.quarantined
    dropped = [(photo.path, line) for photo in inventory.photos for line in photo.dropped_labels]
    classes = Counter((photo.class_name, photo.tree or "all") for photo in usable)
    return {
        "photos": len(usable),
        "boxes": sum(len(photo.boxes) for photo in usable),
        "quarantined": len(quarantined),
        "dropped_label_lines": len(dropped),
        "labels_without_photo": len(inventory.orphan_labels),
        "classes": table([{"class": c, "tree": t, "photos": n} for (c, t), n in sorted(classes.items())]),
        "quarantined_files": table(
            [{"file": photo.path, "reason": photo.reason or ""} for photo in quarantined], "photos.parquet"
        ),
        "dropped_labels": table([{"file": path, "line": line} for path, line in dropped], "photos.parquet"),
    }
