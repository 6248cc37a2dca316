"""The test predictions."""

import json

import dagster as dg

from cd_pipeline.assets.inputs import chosen_threshold, predictor_of, rendered_pairs, trained
from cd_pipeline.assets.stage import GPU_POOL, stage
from cd_pipeline.metadata import picture, table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace

SHOWN_COLUMNS = ("file", "f1", "iou", "alarm")


def test_predictions_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `test_predictions` of a recipe."""
    used = [recipe.input, recipe.threshold, recipe.prediction]

    @stage(
        recipe,
        after=["checkpoint", "threshold", *recipe.pair_assets],
        kinds=["png"],
        settings=used,
        pool=GPU_POOL,
    )
    def test_predictions(
        context: dg.AssetExecutionContext, workspace: Workspace, compute: Compute
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """What the network marks on the test pairs: a PNG each at the pair's own size, and the scores."""
        import pandas as pd

        from cd_pipeline.data.files import digest, file_digest, write_text
        from cd_pipeline.data.frames import write_frame
        from cd_pipeline.data.images import write_png
        from cd_pipeline.evaluation.breakdown import recall_by
        from cd_pipeline.evaluation.figures import gallery, inline_jpeg
        from cd_pipeline.evaluation.predictions import measure, scores_by_class, summarise

        saved = trained(workspace, recipe)
        chosen = chosen_threshold(workspace, recipe, saved)
        pairs = rendered_pairs(workspace, recipe, "test")
        folder = workspace.folder(recipe, "test_predictions")
        predictor = predictor_of(recipe, compute, saved, chosen)
        found = measure(predictor, pairs, workspace.roots(recipe), folder)
        classes = scores_by_class(found.scores)
        kinds, sizes = recall_by(found.changes, "kind"), recall_by(found.changes, "size")
        metrics = {
            **summarise(found.scores),
            "differencing_oracle_f1": found.oracle.f1,
            "threshold": chosen.threshold,
            "smoothed": recipe.threshold.smooth,
            "checkpoint_version": saved.version,
            "by_class": classes.to_dict("records"),
            "recall_by_kind": kinds,
            "recall_by_size": sizes,
            "held_out_kinds": recipe.held_out_kinds,
        }
        rows, sheet = pd.DataFrame([score.to_row() for score in found.scores]), gallery(found.rows)
        write_frame(folder / "predictions.parquet", rows)
        write_png(folder / "gallery.png", sheet)
        write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        context.log.info(
            f"test F1 {metrics['f1']:.3f}, IoU {metrics['iou']:.3f} (plain differencing at its best: "
            f"F1 {metrics['differencing_oracle_f1']:.3f}); gallery: {folder / 'gallery.png'}"
        )
        files = [file_digest(folder / f"{pair.pair_id}.png") for pair in pairs]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(digest(*files, json.dumps(metrics))),
            metadata={
                **{key: value for key, value in metrics.items() if isinstance(value, (int, float, str))},
                "held_out_kinds": ", ".join(recipe.held_out_kinds) or "none",
                "gallery": picture(inline_jpeg(sheet), "image/jpeg"),
                "per_class": table(classes),
                "per_kind": table(kinds),
                "per_size": table(sizes),
                "per_pair": table(rows[list(SHOWN_COLUMNS)]),
                "path": dg.MetadataValue.path(folder.absolute()),
            },
        )

    return test_predictions
