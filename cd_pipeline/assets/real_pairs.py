"""Real before/after pairs, scored apart from everything that chooses."""

import json
from dataclasses import asdict

import dagster as dg

from cd_pipeline.assets.identity import NETWORKS, real_pairs_and_machine
from cd_pipeline.assets.inputs import chosen_threshold, predictor_of, trained
from cd_pipeline.assets.stage import GPU_POOL, stage
from cd_pipeline.metadata import picture, table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace


def real_pairs_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `real_pairs` of a recipe."""
    used = [recipe.input, recipe.threshold, recipe.prediction, recipe.real_pairs]

    @stage(
        recipe,
        after=["checkpoint", "threshold"],
        kinds=["png"],
        settings=used,
        pool=GPU_POOL,
        optional=True,
        packages=NETWORKS,
        also=real_pairs_and_machine(recipe),
    )
    def real_pairs(
        context: dg.AssetExecutionContext, workspace: Workspace, compute: Compute
    ) -> dg.MaterializeResult | None:  # type: ignore[type-arg]
        """What the network marks on photos really taken at two times. Nothing is chosen by them.

        Scored as they are, and with the measuring protocol's nuisance on the second photo. Without a folder
        of such pairs nothing is made.
        """
        from cd_pipeline.data.files import digest, write_text
        from cd_pipeline.data.images import write_png
        from cd_pipeline.evaluation.figures import gallery, inline_jpeg
        from cd_pipeline.evaluation.real_pairs import measure_real_pairs

        folder = workspace.configured_pairs(recipe)
        if folder is None:
            context.log.info(
                f"no real pairs: point {recipe.pairs_variable} at a folder with A/, B/ and label/"
            )
            return None
        saved = trained(workspace, recipe)
        chosen = chosen_threshold(workspace, recipe, saved)
        own = workspace.folder(recipe, "real_pairs")
        found = measure_real_pairs(predictor_of(recipe, compute, saved, chosen), folder, own)
        for problem in found.problems:
            context.log.warning(f"left out: {problem}")
        plain = {name: asdict(scores) for name, scores in found.scores.items()}
        metrics = {
            **plain,
            "threshold": chosen.threshold if chosen else None,
            "checkpoint_version": saved.version,
        }
        sheet, first = gallery(found.rows), next(iter(found.scores.values()))
        write_png(own / "gallery.png", sheet)
        write_text(own / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        context.log.info(
            f"{first.pairs} real pairs: F1 {first.f1:.3f} (plain differencing at its best: "
            f"F1 {first.oracle_f1:.3f}); gallery: {own / 'gallery.png'}"
        )
        return dg.MaterializeResult(
            data_version=dg.DataVersion(digest(found.version, json.dumps(metrics))),
            metadata={
                "pairs": first.pairs,
                "f1": first.f1,
                "differencing_oracle_f1": first.oracle_f1,
                "scores": table([{"set": name, **row} for name, row in plain.items()]),
                "left_out": table([{"reason": problem} for problem in found.problems]),
                "gallery": picture(inline_jpeg(sheet), "image/jpeg"),
                "path": dg.MetadataValue.path(own.absolute()),
            },
        )

    return real_pairs
