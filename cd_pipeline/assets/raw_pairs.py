"""The raw pairs of a two-date data set: observed, or drawn where none are configured."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from cd_pipeline.assets.identity import PICTURES, raw_source
from cd_pipeline.assets.source import observe
from cd_pipeline.assets.stage import stage
from cd_pipeline.metadata import table, warn_of_left_out
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace

if TYPE_CHECKING:
    from cd_pipeline.data.two_date import TwoDateInventory


def raw_pairs_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `raw_pairs` of a recipe."""

    @stage(recipe, kinds=["png"], settings=[recipe.source], packages=PICTURES, also=raw_source(recipe))
    def raw_pairs(
        context: dg.AssetExecutionContext, workspace: Workspace, compute: Compute
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """The pairs of pictures and their labels, each read once; what cannot be used is listed with the reason.

        Your own folder is only read. With none configured, aerial tiles are drawn.
        """
        from cd_pipeline.data.manifest import write_two_date
        from cd_pipeline.data.two_date import scan_two_date
        from cd_pipeline.synthesis.sample_tiles import draw_sample_tiles

        source = observe(
            context.log,
            workspace,
            recipe,
            compute.cores,
            scan=scan_two_date,
            draw=draw_sample_tiles,
            sample="drawn tiles, not photos",
        )
        inventory = source.inventory
        write_two_date(workspace.folder(recipe, "raw_pairs") / "pairs.parquet", inventory.pairs)
        left_out = [(f"{pair.split}/{pair.name}", pair.reason) for pair in inventory.quarantined]
        warn_of_left_out(context.log, "left out", left_out, "pairs.parquet")
        bits = max(pair.bits for pair in inventory.usable)
        if 8 < bits < recipe.source.bits:
            context.log.warning(
                f"16-bit pictures use values below {1 << bits} alone: set source.bits to {bits}, or they are dark"
            )
        counts = f"{len(inventory.usable)} pairs, {len(left_out)} left out"
        context.log.info(f"{counts}, in {source.root}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(inventory.version),
            metadata={**source.figures(), **inventory_figures(inventory)},
        )

    return raw_pairs


def inventory_figures(inventory: "TwoDateInventory") -> dict[str, Any]:
    """Return counts and tables of what was found, used or not."""
    from cd_pipeline.data.split import SPLITS

    usable = inventory.usable
    rows = []
    for split in SPLITS:
        of_split = [pair for pair in usable if pair.split == split]
        pixels = sum(pair.width * pair.height for pair in of_split)
        changed = sum(pair.changed_share * pair.width * pair.height for pair in of_split)
        sizes = sorted({f"{pair.width}x{pair.height}" for pair in of_split})
        rows.append(
            {
                "split": split,
                "pairs": len(of_split),
                "unchanged": sum(pair.changed_share == 0 for pair in of_split),
                "changed_pixel_share": changed / max(1, pixels),
                "sizes": ", ".join(sizes[:4]) + (" …" if len(sizes) > 4 else ""),
            }
        )
    return {
        "pairs": len(usable),
        "quarantined": len(inventory.quarantined),
        "bits": max(pair.bits for pair in usable),
        "splits": table(rows),
        "quarantined_pairs": table(
            [{"pair": f"{p.split}/{p.name}", "reason": p.reason or ""} for p in inventory.quarantined],
            "pairs.parquet",
        ),
    }
