"""The release: a new package replaces the shipped one only if it is not worse."""

from typing import TYPE_CHECKING

import dagster as dg

from cd_pipeline.assets.inputs import (
    StaleInputError,
    chosen_threshold,
    examples_on_disk,
    measured,
    read_json,
    trained,
)
from cd_pipeline.assets.mlpackage import AGREEMENT, CARD
from cd_pipeline.assets.stage import GPU_POOL, stage
from cd_pipeline.assets.test_predictions import test_report
from cd_pipeline.metadata import table
from cd_pipeline.recipe import Recipe
from cd_pipeline.remote.step import current_step
from cd_pipeline.resources import Compute, Workspace

if TYPE_CHECKING:
    import pandas as pd

    from cd_pipeline.evaluation.threshold import ChosenThreshold
    from cd_pipeline.release.challenge import Outcome, Scored
    from cd_pipeline.release.records import Candidate, Decision, Record
    from cd_pipeline.release.store import ReleaseStore
    from cd_pipeline.training.checkpoint import Checkpoint

NUMBERS = ("challenger", "champion", "difference", "difference_low", "difference_high")
"""Of a decision, as they are shown."""


def release_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `release` of a recipe."""
    threshold = ["threshold"] if recipe.has_threshold else []
    after = ["checkpoint", *threshold, "test_predictions", "mlpackage", *recipe.sample_assets]

    # made in every run: what is shipped can have been changed by a person meanwhile
    @stage(recipe, after=after, kinds=["coreml"], settings=[recipe.release, recipe.export], pool=GPU_POOL)
    def release(
        context: dg.AssetExecutionContext, workspace: Workspace, compute: Compute
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """The package that is shipped: the new one, unless it is worse on the test set than the one before.

        Both are kept; `cd-pipeline release rollback` goes back.
        """
        from cd_pipeline.release.challenge import release_candidate
        from cd_pipeline.release.on_store import push_releases
        from cd_pipeline.release.records import Rule

        saved = trained(workspace, recipe)
        chosen = chosen_threshold(workspace, recipe, saved)
        measured(workspace, recipe, saved, chosen)
        store = release_store(workspace, recipe)

        def champion_scores(champion: "Record") -> "pd.DataFrame":
            context.log.info(f"scoring {champion.version}, which is shipped, on the test set of today")
            return scores_of_champion(workspace, recipe, compute, store, champion)

        outcome = release_candidate(
            store,
            candidate_of(workspace, recipe, saved, chosen),
            workspace.folder(recipe, "mlpackage"),
            scored_candidate(workspace, recipe),
            champion_scores,
            rule=Rule(**recipe.release.rule),
            keep=recipe.release.keep,
        )
        remote, lease = workspace.on_store(recipe), current_step().lease
        if remote is not None and lease is not None:
            push_releases(remote / "release", store, lease)
        tell = context.log.info if outcome.record.decision.released else context.log.warning
        tell(outcome.sentence)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(outcome.shipped or "none"), metadata=release_metadata(store, outcome)
        )

    return release


def release_store(workspace: Workspace, recipe: Recipe) -> "ReleaseStore":
    """Return what is kept and shipped; with a data root on an object store as it is there."""
    from cd_pipeline.release.on_store import fetch_releases
    from cd_pipeline.release.store import ReleaseStore

    folder = workspace.folder(recipe, "release")
    if (remote := workspace.on_store(recipe)) is not None:
        fetch_releases(remote / "release", folder)
    return ReleaseStore(folder)


def candidate_of(
    workspace: Workspace, recipe: Recipe, saved: "Checkpoint", chosen: "ChosenThreshold | None"
) -> "Candidate":
    """Return the delivery of `mlpackage`, proven to be of the checkpoint and its threshold.

    Raises:
        FileNotFoundError: a part of it is missing.
        StaleInputError: a part of it is of another checkpoint, threshold or recipe.
        ReleaseError: a form of it does not agree with the checkpoint.
    """
    from cd_pipeline.data.files import digest, file_digest
    from cd_pipeline.export.coreml import package_digest
    from cd_pipeline.export.interface import interface_of
    from cd_pipeline.prediction.opened_model import open_model
    from cd_pipeline.release.records import Candidate

    folder = workspace.folder(recipe, "mlpackage")
    forms = [name for name in (recipe.torchscript, recipe.onnx) if name is not None]
    parts = [workspace.require(recipe, "mlpackage", name) for name in (recipe.package, *forms, CARD)]
    package = package_digest(parts[0])
    told = open_model(parts[1], "cpu").interface.to_metadata()
    if told != interface_of(recipe, saved, chosen.threshold if chosen else None).to_metadata():
        raise _stale_package(workspace, recipe)
    require_agreement(workspace, recipe, saved.version, package)
    files = [path for part in parts for path in ([part] if part.is_file() else sorted(part.rglob("*")))]
    files = [*(path for path in files if path.is_file()), folder / AGREEMENT]
    hashes = {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
    threshold = chosen.threshold if chosen else None
    identity = digest(saved.version, threshold, package, *(hashes[name] for name in forms))
    return Candidate(
        version=identity[:12],
        checkpoint_version=saved.version,
        data_version=saved.data_version,
        threshold=threshold,
        package_digest=package,
        input_size=recipe.input.size,
        torchscript=recipe.torchscript,
        files=hashes,
    )


def require_agreement(workspace: Workspace, recipe: Recipe, checkpoint: str, package: str) -> None:
    """Refuse a delivery that does not agree with its checkpoint.

    Raises:
        StaleInputError: `agreement.json` is of another checkpoint or package, or lacks a form.
        ReleaseError: a limit of the recipe is broken.
    """
    from cd_pipeline.export.agreeing import broken_limits
    from cd_pipeline.export.agreement import Agreement, AgreementLimits
    from cd_pipeline.release.errors import ReleaseError

    path = workspace.require(recipe, "mlpackage", AGREEMENT)
    content = read_json(path)
    known = (content.get("checkpoint_version"), content.get("package_digest"))
    forms = {name: Agreement.of_plain(values) for name, values in content.get("forms", {}).items()}
    expected = {"package", "torchscript", *(["onnx"] if recipe.onnx else [])}
    if known != (checkpoint, package) or not expected <= set(forms):
        raise _stale_package(workspace, recipe)
    broken = broken_limits(AgreementLimits(**recipe.export.limits()), forms)
    if broken:
        raise ReleaseError(
            f"{path}: not released, as it does not agree with the checkpoint: {' '.join(broken)} "
            "Set export.precision to float32, or train anew"
        )


def scored_candidate(workspace: Workspace, recipe: Recipe) -> "Scored":
    """Read the candidate's test scores, example by example.

    Raises:
        FileNotFoundError, StaleInputError, ValueError: as of the assets before.
    """
    from cd_pipeline.data.frames import read_frame
    from cd_pipeline.release.challenge import Scored
    from cd_pipeline.release.scores import example_scores, version_of_test_set

    path = workspace.require(recipe, "test_predictions", "predictions.parquet")
    examples = examples_on_disk(workspace, recipe, "test")
    return Scored(
        scores=example_scores(read_frame(path), examples, path),
        measure="miou" if recipe.task.multi_class else "f1",
        test_set=version_of_test_set(examples, workspace.roots(recipe)),
    )


def scores_of_champion(
    workspace: Workspace, recipe: Recipe, compute: Compute, store: "ReleaseStore", champion: "Record"
) -> "pd.DataFrame":
    """Predict the test set with the shipped model, and return its scores, example by example.

    Raises:
        ReleaseError: it answers another question than the recipe asks.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from cd_pipeline.prediction.opened_model import open_model
    from cd_pipeline.release.challenge import require_same_task
    from cd_pipeline.release.scores import example_scores

    runtime = compute.runtime().exact()
    runtime.prepare()
    path = store.path(champion.version) / champion.torchscript
    opened = open_model(path, runtime.device)
    names = recipe.class_names if recipe.task.multi_class else ()
    known = opened.interface
    require_same_task(
        (known.task.pictures, known.task.classes, known.class_names),
        (recipe.task.pictures, recipe.task.classes, names),
        path,
    )
    with TemporaryDirectory(prefix="cd_pipeline-champion-") as pictures:
        predictor = opened.predictor(known.threshold)
        report = test_report(workspace, recipe, predictor, Path(pictures), known)
    return example_scores(report.scores, examples_on_disk(workspace, recipe, "test"), path)


def release_metadata(store: "ReleaseStore", outcome: "Outcome") -> dict[str, dg.MetadataValue | str | float]:
    """Return what the UI shows."""
    from cd_pipeline.release.store import states_of

    record, decision = outcome.record, outcome.record.decision
    records, problems = store.records()
    states = states_of(store, records)
    return {
        "released": decision.released,
        "state": states[record.version],
        "why": outcome.sentence,
        "measure": decision.measure,
        **decision_numbers(decision),
        "version": record.version,
        "shipped": outcome.shipped or "none",
        "against": decision.against or "none",
        "path": dg.MetadataValue.path((store.folder / "current").absolute()),
        "versions": table(
            [
                {
                    "version": kept.version,
                    "state": states[kept.version],
                    "against": kept.decision.against or "none",
                    **dict.fromkeys(NUMBERS, "-"),
                    **decision_numbers(kept.decision),
                    "decided_at": kept.decided_at,
                }
                for kept in records
            ]
        ),
        **({"left_out": "; ".join(problems)} if problems else {}),
    }


def decision_numbers(decision: "Decision") -> dict[str, float]:
    """Return the scores and their difference by name; those that a first version does not have are left out."""
    names = dict(zip(NUMBERS, ("challenger", "champion", "difference", "low", "high"), strict=True))
    found = {shown: getattr(decision, name) for shown, name in names.items()}
    return {shown: value for shown, value in found.items() if value is not None}


def _stale_package(workspace: Workspace, recipe: Recipe) -> StaleInputError:
    folder = workspace.folder(recipe, "mlpackage")
    return StaleInputError(
        f"{folder} was made for another checkpoint, threshold or recipe: run {workspace.remedy(recipe, 'mlpackage')}"
    )
