"""The threshold."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import dagster as dg

from cd_pipeline.assets.identity import NETWORKS, predicting
from cd_pipeline.assets.inputs import examples_on_disk, predictor_for, rendered_pairs, trained
from cd_pipeline.assets.stage import GPU_POOL, stage
from cd_pipeline.metadata import picture
from cd_pipeline.recipe import Recipe, ThresholdSettings
from cd_pipeline.resources import Compute, Workspace

if TYPE_CHECKING:
    from cd_pipeline.data.samples import Sample
    from cd_pipeline.evaluation.predictor import Predictor
    from cd_pipeline.evaluation.sweep import ThresholdSweep
    from cd_pipeline.evaluation.threshold import ChosenThreshold


def threshold_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `threshold` of a recipe."""
    used = [recipe.input, recipe.threshold]

    @stage(
        recipe,
        after=["checkpoint", *recipe.sample_assets],
        kinds=["json"],
        settings=used,
        pool=GPU_POOL,
        packages=NETWORKS,
        also=predicting,
    )
    def threshold(
        context: dg.AssetExecutionContext, workspace: Workspace, compute: Compute
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """The threshold chosen by F1 on val, pooled over pixels, from one pass over the predictions.

        Val is what the manifest says; of pairs made from photos it is drawn as the measuring protocol says.
        """
        import pandas as pd

        from cd_pipeline.data.files import digest, write_bytes
        from cd_pipeline.data.frames import write_frame
        from cd_pipeline.data.samples import input_samples
        from cd_pipeline.evaluation.figures import sweep_curve
        from cd_pipeline.evaluation.protocol import realistic_set
        from cd_pipeline.evaluation.realistic_pairs import photo_loaders

        saved = trained(workspace, recipe)
        examples = examples_on_disk(workspace, recipe, "val")
        predictor = predictor_for(recipe, compute, saved.model(), None)
        size, limits = recipe.input.size, recipe.threshold
        drawn: Iterable[Sample] = input_samples(examples, workspace.roots(recipe), size)
        source = limits.pairs
        if source == "realistic" and recipe.held_out_kinds:
            context.log.info("the manifest's val pairs choose: drawn ones would hold the held-out kinds")
            source = "own"
        if source == "realistic":
            pairs = rendered_pairs(workspace, recipe, "val")
            loaders = photo_loaders(pairs, workspace.roots(recipe), size)
            drawn = realistic_set(loaders, size, limits.realistic_pairs)
        sweep, chosen = choose_on(predictor, drawn, limits, saved.version)
        folder = workspace.folder(recipe, "threshold")
        curve = sweep_curve(sweep.table(), chosen.threshold)
        write_frame(folder / "sweep.parquet", pd.DataFrame(sweep.table()))
        write_bytes(folder / "sweep.png", curve)
        chosen.save(folder / "threshold.json")
        context.log.info(f"threshold {chosen.threshold:.3f}: val F1 {chosen.f1:.3f}, IoU {chosen.iou:.3f}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(digest(*map(str, asdict(chosen).values()))),
            metadata={
                "threshold": chosen.threshold,
                "pairs": source,
                "val_f1": chosen.f1,
                "best_val_f1": float(sweep.f1().max()),
                "val_iou": chosen.iou,
                "val_precision": chosen.precision,
                "val_recall": chosen.recall,
                "at_the_edge_of_the_sweep": chosen.threshold in (limits.low, limits.high),
                "swept": "without the 3x3 smoothing" if limits.smooth else "masks as they are",
                "curve": picture(curve),
            },
        )

    return threshold


def choose_on(
    predictor: "Predictor", samples: "Iterable[Sample]", limits: ThresholdSettings, version: str
) -> "tuple[ThresholdSweep, ChosenThreshold]":
    """Sweep the predictions of samples at the input size, and choose as the recipe asks.

    Args:
        predictor: the network.
        samples: of val.
        limits: what is tried, and what counts as best.
        version: of the network's weights.
    """
    from cd_pipeline.evaluation.threshold import choose, predict_samples, sweep_predictions

    predictions = predict_samples(predictor.probability, samples)
    sweep = sweep_predictions(
        predictions, low=limits.low, high=limits.high, steps=limits.steps, fixed=limits.fixed
    )
    chosen = choose(sweep, version, limits.tolerance, limits.fixed)
    return sweep, replace(chosen, chosen_by=limits.choice)
