"""The pair manifest."""

from collections import Counter

import dagster as dg

from cd_pipeline.assets.stage import stage
from cd_pipeline.metadata import table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Workspace


def pair_manifest_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `pair_manifest` of a recipe."""

    @stage(recipe, after=["split"], kinds=["parquet"], settings=[recipe.synthesis, recipe.input])
    def pair_manifest(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """One row a pair: its photo, its split, and the whole plan of its changes."""
        from cd_pipeline.data.files import file_digest
        from cd_pipeline.data.manifest import read_photos, write_pairs
        from cd_pipeline.synthesis.pairs import plan_of, plan_pairs

        photos = read_photos(workspace.require(recipe, "split", "split.parquet"))
        pairs = plan_pairs(photos, recipe.synthesis, recipe.input.size)
        path = workspace.folder(recipe, "pair_manifest") / "pairs.parquet"
        write_pairs(path, pairs, recipe.plan_version)
        planned = [pair for pair in pairs if pair.changed is not None]
        kinds = Counter(change.kind for pair in planned for change in plan_of(pair).changes)
        changed = sum(bool(pair.changed) for pair in planned)
        context.log.info(f"{len(pairs)} pairs, {len(planned)} of them frozen: {changed} changed")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(file_digest(path)),
            metadata={
                "pairs": len(pairs),
                "frozen": len(planned),
                "changed": changed,
                "unchanged": len(planned) - changed,
                "drawn_each_epoch": len(pairs) - len(planned),
                "change_kinds": table([{"kind": kind, "changes": n} for kind, n in sorted(kinds.items())]),
            },
        )

    return pair_manifest
