"""The pair manifest."""

from collections import Counter
from typing import TYPE_CHECKING

import dagster as dg

from cd_pipeline.assets.identity import PICTURES
from cd_pipeline.assets.stage import stage
from cd_pipeline.metadata import table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Workspace

if TYPE_CHECKING:
    from cd_pipeline.data.manifest import Pair


def pair_manifest_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `pair_manifest` of a recipe."""
    first = "split" if recipe.source.layout == "labelled_photos" else recipe.raw_asset

    @stage(
        recipe,
        after=[first],
        kinds=["parquet"],
        settings=[recipe.source, recipe.synthesis, recipe.input],
        packages=PICTURES,
    )
    def pair_manifest(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """One row a pair: its pictures, its split, and the whole plan of its changes or its crop."""
        from cd_pipeline.data.files import file_digest
        from cd_pipeline.data.manifest import write_pairs
        from cd_pipeline.synthesis.pairs import plan_of

        pairs = manifest_rows(workspace, recipe)
        path = workspace.folder(recipe, "pair_manifest") / "pairs.parquet"
        write_pairs(path, pairs, recipe.plan_version)
        planned = [pair for pair in pairs if pair.changed is not None]
        kinds = Counter(change.kind for pair in planned if pair.photo for change in plan_of(pair).changes)
        changed = sum(bool(pair.changed) for pair in planned)
        splits = Counter((pair.split, bool(pair.changed)) for pair in planned)
        context.log.info(f"{len(pairs)} pairs, {len(planned)} of them frozen: {changed} changed")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(file_digest(path)),
            metadata={
                "pairs": len(pairs),
                "frozen": len(planned),
                "changed_pairs": changed,
                "unchanged_pairs": len(planned) - changed,
                "drawn_each_epoch": len(pairs) - len(planned),
                "splits": table(
                    [{"split": s, "changed": c, "pairs": n} for (s, c), n in sorted(splits.items())]
                ),
                "change_kinds": table([{"kind": kind, "changes": n} for kind, n in sorted(kinds.items())]),
            },
        )

    return pair_manifest


def manifest_rows(workspace: Workspace, recipe: Recipe) -> "list[Pair]":
    """Return the pairs of what the first assets found: planned from photos, or really taken at two times."""
    from cd_pipeline.data.manifest import read_photos, read_two_date
    from cd_pipeline.data.two_date_pairs import two_date_rows
    from cd_pipeline.synthesis.pairs import plan_pairs

    if recipe.source.layout == "two_date":
        found = read_two_date(workspace.require(recipe, recipe.raw_asset, "pairs.parquet"))
        return two_date_rows(workspace.roots(recipe).source, found, recipe.input, recipe.source.bits)
    photos = read_photos(workspace.require(recipe, "split", "split.parquet"))
    return plan_pairs(photos, recipe.synthesis, recipe.input.size)
