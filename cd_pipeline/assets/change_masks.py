"""The rendered pairs and their masks."""

import dagster as dg
from tqdm import tqdm

from cd_pipeline.assets.identity import PICTURES
from cd_pipeline.assets.inputs import MASKS_STAMP, manifest_path
from cd_pipeline.assets.stage import on_terminal, stage
from cd_pipeline.metadata import picture, table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace

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
        from cd_pipeline.data.manifest import read_pairs
        from cd_pipeline.data.samples import at_input_size, load_sample, spread
        from cd_pipeline.evaluation.figures import gallery, inline_jpeg, pair_row
        from cd_pipeline.evaluation.masks import mask_shares
        from cd_pipeline.synthesis.rendered_pairs import render_pairs

        manifest = manifest_path(workspace, recipe)
        data_version, pairs = file_digest(manifest), read_pairs(manifest)
        stamp = workspace.folder(recipe, "change_masks") / MASKS_STAMP
        stamp.unlink(missing_ok=True)
        frozen = [pair for pair in pairs if pair.after is not None]
        roots = workspace.roots(recipe)
        with tqdm(desc="rendering pairs", total=len(frozen), leave=False, disable=not on_terminal()) as bar:
            version = render_pairs(pairs, roots, threads=compute.cores, progress=bar.update)
        write_text(stamp, data_version)
        shares = mask_shares(frozen, roots)
        context.log.info(f"{len(frozen)} pairs rendered to {workspace.folder(recipe, 'change_masks')}")
        shown = [at_input_size(load_sample(pair, roots), SHOWN_SIZE) for pair in spread(frozen, SHOWN)]
        sheet = gallery([pair_row(pair) for pair in shown], columns=3)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version),
            metadata={
                "pairs": len(frozen),
                "positive_pixel_share": shares["all"],
                "positive_pixel_shares": table([{"split": k, "share": v} for k, v in shares.items()]),
                "contact_sheet": picture(inline_jpeg(sheet), "image/jpeg"),
            },
        )

    return change_masks
