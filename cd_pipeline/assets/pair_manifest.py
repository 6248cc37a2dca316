"""The pair manifest."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg

from cd_pipeline.assets.identity import PICTURES
from cd_pipeline.assets.stage import stage
from cd_pipeline.metadata import table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cd_pipeline.data.manifest import Pair


def pair_manifest_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `pair_manifest` of a recipe."""
    first = "split" if recipe.source.layout == "labelled_photos" else recipe.raw_asset

    @stage(
        recipe,
        after=[first],
        kinds=["parquet"],
        settings=[recipe.source, recipe.synthesis, recipe.input],
        code_version=2,
        packages=PICTURES,
    )
    def pair_manifest(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """One row a pair: its pictures, its split, and the whole plan of its changes or its crop."""
        from cd_pipeline.data.files import file_digest
        from cd_pipeline.data.manifest import write_pairs

        path = workspace.folder(recipe, "pair_manifest") / "pairs.parquet"
        counts = ManifestCounts()
        write_pairs(path, counts.counted(manifest_rows(workspace, recipe)), recipe.plan_version)
        pairs, frozen, changed = counts.pairs, counts.frozen, counts.changed
        context.log.info(f"{pairs} pairs, {frozen} of them frozen: {changed} changed")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(file_digest(path)),
            metadata={
                "pairs": pairs,
                "frozen": frozen,
                "changed_pairs": changed,
                "unchanged_pairs": frozen - changed,
                "drawn_each_epoch": pairs - frozen,
                "splits": table(
                    [{"split": s, "changed": c, "pairs": n} for (s, c), n in sorted(counts.splits.items())]
                ),
                "change_kinds": table(
                    [{"kind": kind, "changes": n} for kind, n in sorted(counts.kinds.items())]
                ),
            },
        )

    return pair_manifest


@dataclass
class ManifestCounts:
    """What a manifest holds, counted as its rows go by.

    Attributes:
        pairs: all of them.
        splits: those that are frozen, by split and whether something changed.
        kinds: planned changes by kind.
    """

    pairs: int = 0
    splits: Counter[tuple[str, bool]] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def frozen(self) -> int:
        """Pairs that are not drawn anew each epoch."""
        return self.splits.total()

    @property
    def changed(self) -> int:
        """Frozen pairs with a change."""
        return sum(count for (_, changed), count in self.splits.items() if changed)

    def counted(self, pairs: "Iterable[Pair]") -> "Iterator[Pair]":
        """Yield the pairs as they are."""
        for pair in pairs:
            self.pairs += 1
            if pair.changed is not None:
                self.splits[pair.split, pair.changed] += 1
                if pair.photo:
                    plan = pair.realistic_plan or pair.plan or {}
                    self.kinds.update(change["kind"] for change in plan["changes"])
            yield pair


def manifest_rows(workspace: Workspace, recipe: Recipe) -> "Iterable[Pair]":
    """Return the pairs of what the first assets found: planned from photos, or really taken at two times."""
    from cd_pipeline.data.manifest import each_photo, read_two_date
    from cd_pipeline.data.two_date_pairs import two_date_rows
    from cd_pipeline.synthesis.pairs import each_planned

    if recipe.source.layout == "two_date":
        found = read_two_date(workspace.require(recipe, recipe.raw_asset, "pairs.parquet"))
        return two_date_rows(workspace.roots(recipe).source, found, recipe.input, recipe.source.bits)
    photos = each_photo(workspace.require(recipe, "split", "split.parquet"))
    return each_planned(photos, recipe.synthesis, recipe.input.size)
