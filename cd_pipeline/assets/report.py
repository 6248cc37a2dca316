"""The report."""

from importlib.metadata import version as package_version
from typing import TYPE_CHECKING, Any

import dagster as dg

from cd_pipeline.assets.identity import PICTURES, beside
from cd_pipeline.assets.inputs import (
    chosen_threshold,
    divided_images,
    examples_on_disk,
    manifest_path,
    measured,
    read_json,
    trained,
)
from cd_pipeline.assets.mlpackage import AGREEMENT
from cd_pipeline.assets.stage import stage
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Workspace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cd_pipeline.evaluation.report_page.facts import Beside, LeftOut, Lineage, ReportFacts, TestSet
    from cd_pipeline.evaluation.threshold import ChosenThreshold
    from cd_pipeline.training.checkpoint import Checkpoint

AGAIN = "materialize {}, then report again."
"""The remedy where something is shown only if it is there."""
LATER_SETTINGS = ("threshold", "prediction", "export", "real_pairs")
"""Parts of a recipe that its checkpoint does not depend on."""


def report_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `report` of a recipe."""
    threshold = ["threshold"] if recipe.has_threshold else []
    used = [recipe.source, recipe.input, recipe.threshold, recipe.prediction, recipe.export]
    after = [
        "checkpoint",
        *threshold,
        "test_predictions",
        "mlpackage",
        *recipe.sample_assets,
        recipe.split_asset,
    ]

    @stage(
        recipe,
        after=after,
        kinds=["html"],
        settings=used,
        packages=PICTURES,
        also=beside(recipe, "real_pairs"),
    )
    def report(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """One HTML file that opens offline: the scores beside the previous run, every test example, the lineage."""
        from cd_pipeline.data.files import bytes_digest, write_bytes
        from cd_pipeline.evaluation.report_page.page import render_page
        from cd_pipeline.evaluation.report_page.runs import with_run, write_runs

        folder = workspace.folder(recipe, "report")
        facts = report_facts(workspace, recipe)
        page = render_page(facts)
        path = folder / "index.html"
        write_bytes(path, page)
        write_runs(folder / "runs.jsonl", with_run(facts.earlier, facts.run))
        main = "miou" if recipe.task.multi_class else "f1"
        previous = facts.previous.figures.get(main) if facts.previous else None
        context.log.info(f"report: {path.absolute()}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(bytes_digest(page)),
            metadata={
                "path": dg.MetadataValue.path(path.absolute()),
                "megabytes": len(page) / 1e6,
                "headline": f"{main} {facts.run.figures[main]:.3f}",
                "previous": "none" if previous is None else f"{main} {previous:.3f}",
                "examples": facts.test.examples,
                "cards": len(facts.test.cards),
            },
        )

    return report


def report_facts(workspace: Workspace, recipe: Recipe) -> "ReportFacts":
    """Gather what the report shows.

    Raises:
        FileNotFoundError: an earlier asset is missing.
        StaleInputError, ValueError: what lies on disk does not belong together.
    """
    from cd_pipeline.evaluation.report_page.facts import ReportFacts, Training, run_of
    from cd_pipeline.evaluation.report_page.runs import read_runs, runs_before

    saved = trained(workspace, recipe)
    chosen = chosen_threshold(workspace, recipe, saved)
    metrics = measured(workspace, recipe, saved, chosen)
    run = run_of(metrics, saved.data_version)
    earlier = runs_before(read_runs(workspace.folder(recipe, "report") / "runs.jsonl"), run)
    return ReportFacts(
        recipe=recipe.name,
        sample=workspace.configured_source(recipe) is None,
        run=run,
        earlier=earlier,
        test=measured_set(workspace, recipe, metrics, chosen),
        training=Training(saved.history, saved.best_epoch),
        left_out=left_out(workspace, recipe),
        lineage=lineage(workspace, recipe, saved, chosen),
        package=agreement(workspace, recipe, saved),
        real_pairs=real_scores(workspace, recipe, saved, chosen),
    )


def measured_set(
    workspace: Workspace, recipe: Recipe, metrics: dict[str, Any], chosen: "ChosenThreshold | None"
) -> "TestSet":
    """Read predictions, scores and sweep of the test set, and make its cards."""
    from cd_pipeline.data.frames import read_frame
    from cd_pipeline.data.palette import class_palette
    from cd_pipeline.evaluation.report_page.cards import CardMaker, chosen_examples, require_scores
    from cd_pipeline.evaluation.report_page.facts import TestSet
    from cd_pipeline.evaluation.report_page.sweep_table import read_sweep

    path = workspace.require(recipe, "test_predictions", "predictions.parquet")
    scores, examples = read_frame(path), examples_on_disk(workspace, recipe, "test")
    require_scores(path, scores, [example.name for example in examples])
    several = recipe.task.multi_class
    source = recipe.source
    palette = class_palette(source.classes, void_as_class=source.void_as_class) if several else None
    shown = chosen_examples(scores["miou" if several else "f1"].tolist())
    maker = CardMaker(
        roots=workspace.roots(recipe),
        folder=path.parent,
        cards=len(shown),
        names=recipe.class_names if several else (),
        palette=palette,
        many_groups=len({example.class_name for example in examples}) > 1,
    )
    rows: Sequence[Mapping[str, Any]] = scores.iloc[shown].to_dict("records")  # type: ignore[assignment]
    sweep = None
    if chosen is not None:
        sweep_path = workspace.require(recipe, "test_predictions", "sweep.parquet")
        sweep = read_sweep(sweep_path, scores, chosen.threshold)
    return TestSet(
        metrics=metrics,
        cards=[maker.make(number, examples[number], row) for number, row in zip(shown, rows, strict=True)],
        examples=len(examples),
        names=dict(zip(recipe.class_names, map(tuple, palette.tolist()), strict=True))
        if palette is not None
        else {},
        sweep=sweep,
        cleaned=cleaned(recipe),
    )


def cleaned(recipe: Recipe) -> str:
    """Return what is done to masks after the threshold, in words; "" where nothing is."""
    steps = ["smoothed over 3x3 px"] if recipe.threshold.smooth else []
    if recipe.prediction.opening > 1:
        steps.append(f"opened with {recipe.prediction.opening}x{recipe.prediction.opening} px")
    if recipe.prediction.min_area > 1:
        steps.append(f"rid of areas below {recipe.prediction.min_area} px")
    return ", ".join(steps)


def left_out(workspace: Workspace, recipe: Recipe) -> "LeftOut":
    """Read which inputs were not used, and why."""
    from cd_pipeline.data.image_manifest import read_masked_images
    from cd_pipeline.data.manifest import each_photo, read_two_date
    from cd_pipeline.data.masked_images import label_of
    from cd_pipeline.evaluation.report_page.facts import LeftOut

    if recipe.one_image:
        images = read_masked_images(divided_images(workspace, recipe))
        left_out_images = [(label_of(image), image.reason) for image in images if image.reason]
        return LeftOut(left_out_images, whole="split.parquet")
    if recipe.source.layout == "two_date":
        pairs = read_two_date(workspace.require(recipe, "raw_pairs", "pairs.parquet"))
        left_out_pairs = [(f"{pair.split}/{pair.name}", pair.reason) for pair in pairs if pair.reason]
        return LeftOut(left_out_pairs, whole="pairs.parquet")
    files, lines = [], []
    for photo in each_photo(workspace.require(recipe, "split", "split.parquet")):
        files += [(photo.path, photo.reason)] if photo.reason else []
        lines += [(photo.label_path, line) for line in photo.dropped_labels]
    return LeftOut(files, lines, "split.parquet")


def lineage(
    workspace: Workspace, recipe: Recipe, saved: "Checkpoint", chosen: "ChosenThreshold | None"
) -> "Lineage":
    """Return versions and hashes of all that the report is made of."""
    from cd_pipeline.data.files import file_digest
    from cd_pipeline.evaluation.report_page.facts import Lineage

    asset, table = recipe.manifest
    split_file = "pairs.parquet" if recipe.split_asset == "raw_pairs" else "split.parquet"
    files = [(recipe.split_asset, split_file), (asset, table), ("test_predictions", "predictions.parquet")]
    identities = [
        ("checkpoint_version (weights)", saved.version),
        ("data_version (manifest it was trained on)", saved.data_version),
        ("pretrained", "yes" if saved.pretrained else "no"),
    ]
    if chosen is not None:
        files.append(("test_predictions", "sweep.parquet"))
        identities.append(("threshold", repr(chosen.threshold)))
        identities.append(("val F1 at the threshold", f"{chosen.f1:.6g}"))
    files.append(("test_predictions", "metrics.json"))
    identities += [
        (f"SHA-256 of {part}/{file}", file_digest(workspace.require(recipe, part, file)))
        for part, file in files
    ]
    identities.append(("cd_pipeline that wrote this page", package_version("cd_pipeline")))
    now = recipe.plain()
    return Lineage(
        identities=identities,
        packages=saved.versions,
        counts=split_counts(workspace, recipe),
        settings={**saved.recipe, **{part: now[part] for part in LATER_SETTINGS}},
    )


def split_counts(workspace: Workspace, recipe: Recipe) -> "list[Mapping[str, Any]]":
    """Return how many inputs and rows of the manifest each split has."""
    from collections import Counter

    import pandas as pd

    from cd_pipeline.data.split import SPLITS

    file = "pairs.parquet" if recipe.split_asset == "raw_pairs" else "split.parquet"
    inputs = pd.read_parquet(workspace.require(recipe, recipe.split_asset, file), columns=["split", "reason"])
    used = Counter(inputs.loc[inputs["reason"].isna(), "split"])
    rows = Counter(pd.read_parquet(manifest_path(workspace, recipe), columns=["split"])["split"])
    return [{"split": split, "inputs": used[split], "rows": rows[split]} for split in SPLITS]


def agreement(workspace: Workspace, recipe: Recipe, saved: "Checkpoint") -> "Beside":
    """Read how closely the delivered forms of the network agree, where they are of this checkpoint."""
    from cd_pipeline.evaluation.report_page.facts import Beside

    path = workspace.folder(recipe, "mlpackage") / AGREEMENT
    if not path.is_file():
        return Beside(missing=f"No package has been made yet: {AGAIN.format('mlpackage')}")
    found = read_json(path)
    if found.get("checkpoint_version") != saved.version or not isinstance(found.get("forms"), dict):
        return Beside(missing=f"The package on disk is of another checkpoint: {AGAIN.format('mlpackage')}")
    return Beside(found)


def real_scores(
    workspace: Workspace, recipe: Recipe, saved: "Checkpoint", chosen: "ChosenThreshold | None"
) -> "Beside | None":
    """Read the scores of real pairs, where there are some of this checkpoint; None: the recipe has none."""
    from cd_pipeline.evaluation.report_page.facts import Beside

    path = workspace.folder(recipe, "real_pairs") / "metrics.json"
    if not path.is_file():
        return None
    found = read_json(path)
    of_it = found.pop("checkpoint_version", None), found.pop("threshold", None)
    if of_it != (saved.version, chosen.threshold if chosen else None):
        return Beside(
            missing=f"The scores on disk are of another checkpoint or threshold: {AGAIN.format('real_pairs')}"
        )
    sets = [{"set": name, **row} for name, row in found.items() if isinstance(row, dict)]
    return Beside({"sets": sets})
