"""The rendered pairs and their masks."""

from itertools import compress
from typing import TYPE_CHECKING

import dagster as dg
from tqdm import tqdm

from cd_pipeline.assets.identity import PICTURES
from cd_pipeline.assets.inputs import MASKS_STAMP, manifest_path
from cd_pipeline.assets.shards import shard_runner
from cd_pipeline.assets.stage import on_terminal, stage
from cd_pipeline.metadata import picture, table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cd_pipeline.data.images import Image
    from cd_pipeline.data.manifest import Pair
    from cd_pipeline.data.samples import Roots

SHOWN = 12
SHOWN_SIZE = 160


def change_masks_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `change_masks` of a recipe."""

    @stage(recipe, after=["pair_manifest"], kinds=["opencv", "png"], packages=PICTURES)
    def change_masks(
        context: dg.AssetExecutionContext, workspace: Workspace, compute: Compute
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """The frozen pairs as lossless pictures: photos, mask and what counts, from photo and plan alone."""
        from cd_pipeline.data.files import file_digest, write_text
        from cd_pipeline.evaluation.figures import inline_jpeg
        from cd_pipeline.evaluation.masks import mask_shares
        from cd_pipeline.synthesis.rendered_pairs import FrozenPairs, render_pairs

        manifest, roots = manifest_path(workspace, recipe), workspace.roots(recipe)
        data_version, frozen = file_digest(manifest), FrozenPairs(manifest)
        count, folder = sum(1 for _ in frozen), workspace.folder(recipe, "change_masks")
        (folder / MASKS_STAMP).unlink(missing_ok=True)
        with (
            shard_runner(context, workspace, recipe, threads=compute.cores, packages=PICTURES) as runner,
            tqdm(desc="rendering pairs", total=count, leave=False, disable=not on_terminal()) as bar,
        ):
            version = render_pairs(frozen, roots, runner=runner, progress=bar.update)
            shares, sheet = mask_shares(frozen, roots), contact_sheet(frozen, count, roots)
        write_text(folder / MASKS_STAMP, data_version)
        context.log.info(f"{count} pairs rendered to {folder}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version),
            metadata={
                "pairs": count,
                "positive_pixel_share": shares["all"],
                "positive_pixel_shares": table([{"split": k, "share": v} for k, v in shares.items()]),
                "contact_sheet": picture(inline_jpeg(sheet), "image/jpeg"),
            },
        )

    return change_masks


def contact_sheet(frozen: "Iterable[Pair]", count: int, roots: "Roots") -> "Image":
    """Draw some of the pairs, evenly spaced, beside each other.

    Args:
        frozen: pairs whose pictures are on disk.
        count: how many they are.
        roots: where they are.
    """
    import numpy as np

    from cd_pipeline.data.samples import at_input_size, load_sample, spread
    from cd_pipeline.evaluation.figures import gallery, pair_row

    shown = compress(frozen, np.isin(range(count), spread(range(count), SHOWN)))
    sized = (at_input_size(load_sample(pair, roots), SHOWN_SIZE) for pair in shown)
    return gallery([pair_row(pair) for pair in sized], columns=3)
