"""The test predictions."""

import json

import dagster as dg

from cd_pipeline.assets.stage import GPU_POOL, stage
from cd_pipeline.metadata import picture, table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace

SHOWN = 12
SHOWN_COLUMNS = ("file", "f1", "iou", "alarm")


def test_predictions_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `test_predictions` of a recipe."""
    used = [recipe.input, recipe.threshold]

    @stage(
        recipe,
        after=["checkpoint", "threshold", "change_masks", "pair_manifest"],
        kinds=["png"],
        settings=used,
        pool=GPU_POOL,
    )
    def test_predictions(
        context: dg.AssetExecutionContext, workspace: Workspace, compute: Compute
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """What the network marks on the test pairs: a PNG each at the photo's own size, and the scores."""
        import pandas as pd

        from cd_pipeline.data.files import digest, file_digest, write_text
        from cd_pipeline.data.frames import write_frame
        from cd_pipeline.data.images import write_png
        from cd_pipeline.data.manifest import read_pairs
        from cd_pipeline.evaluation.figures import gallery, inline_jpeg, pair_row
        from cd_pipeline.evaluation.predictions import (
            differencing_oracle,
            scores_by_class,
            summarise,
            write_predictions,
        )
        from cd_pipeline.evaluation.threshold import ChosenThreshold
        from cd_pipeline.training.checkpoint import load_checkpoint

        saved = load_checkpoint(workspace.require(recipe, "checkpoint", "model.pt"))
        chosen = ChosenThreshold.load(workspace.require(recipe, "threshold", "threshold.json"))
        pairs = read_pairs(workspace.require(recipe, "pair_manifest", "pairs.parquet"), "test")
        runtime = compute.runtime()
        runtime.prepare()
        folder = workspace.folder(recipe, "test_predictions")
        seen = []
        scores = write_predictions(
            runtime.place(saved.model()),
            pairs,
            workspace.roots(recipe),
            folder,
            size=recipe.input.size,
            threshold=chosen.threshold,
            runtime=runtime,
            smooth=recipe.threshold.smooth,
            on_pair=lambda pair, prediction: seen.append((pair, prediction)),
        )
        oracle = differencing_oracle(pair for pair, _ in seen)
        metrics = {**summarise(scores), "threshold": chosen.threshold, "differencing_oracle_f1": oracle.f1}
        rows = pd.DataFrame([score.to_row() for score in scores])
        write_frame(folder / "predictions.parquet", rows)
        write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        sheet = gallery([pair_row(pair, prediction) for pair, prediction in seen[:SHOWN]])
        write_png(folder / "gallery.png", sheet)
        context.log.info(
            f"test F1 {metrics['f1']:.3f}, IoU {metrics['iou']:.3f} "
            f"(plain differencing at its best: F1 {oracle.f1:.3f}); gallery: {folder / 'gallery.png'}"
        )
        files = [file_digest(folder / f"{pair.pair_id}.png") for pair in pairs]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(digest(*files, json.dumps(metrics))),
            metadata={
                **metrics,
                "gallery": picture(inline_jpeg(sheet), "image/jpeg"),
                "per_class": table(scores_by_class(scores)),
                "per_pair": table(rows[list(SHOWN_COLUMNS)]),
                "path": dg.MetadataValue.path(folder.absolute()),
            },
        )

    return test_predictions
