"""The raw photos: observed, or drawn where none are configured."""

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
from tqdm import tqdm

from cd_pipeline.assets.sample import ensure_sample, mark_sample
from cd_pipeline.assets.stage import on_terminal, stage
from cd_pipeline.metadata import table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace

if TYPE_CHECKING:
    from cd_pipeline.data.photos import Inventory


def raw_photos_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `raw_photos` of a recipe."""

    @stage(recipe, kinds=["jpeg"], settings=[recipe.source])
    def raw_photos(
        context: dg.AssetExecutionContext, workspace: Workspace, compute: Compute
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """The labelled photos, each read once; files that cannot be used are listed with the reason.

        Your own folder is only read. With none configured, sample rooms are drawn.
        """
        from cd_pipeline.data.manifest import write_photos
        from cd_pipeline.data.photos import scan_photos
        from cd_pipeline.synthesis.sample_rooms import draw_sample_rooms

        def sample_version() -> str:
            return scan_photos(own, threads=compute.cores).version

        own = workspace.folder(recipe, "raw_photos")
        configured = workspace.configured_source(recipe)
        draw = partial(draw_sample_rooms, own, workers=compute.cores)
        root = configured or ensure_sample(
            context.log,
            own,
            "drawn rooms, not photos",
            lambda progress: draw(progress=progress),
            sample_version,
        )
        with tqdm(desc="reading photos", unit=" files", leave=False, disable=not on_terminal()) as bar:
            inventory = scan_photos(root, threads=compute.cores, progress=bar.update)
        if configured is None:
            mark_sample(own, inventory.version)
        write_photos(own / "photos.parquet", inventory.photos)
        for photo in inventory.quarantined:
            context.log.warning(f"quarantined {photo.path}: {photo.reason}")
        counts = f"{len(inventory.usable)} photos, {len(inventory.quarantined)} files quarantined"
        context.log.info(f"{counts}, in {root}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(inventory.version),
            metadata={
                "sample_data": configured is None,
                "folder": dg.MetadataValue.path(root.absolute()),
                **inventory_figures(inventory),
            },
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
        "quarantined_files": table([{"file": p.path, "reason": p.reason or ""} for p in quarantined]),
        "dropped_labels": table([{"file": path, "line": line} for path, line in dropped]),
    }
