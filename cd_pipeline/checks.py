"""Asset checks of a recipe. A failed one that makes later assets worthless blocks them."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from cd_pipeline.assets.inputs import (
    examples_on_disk,
    labelled_images,
    read_json,
    rendered_pairs,
    trained,
)
from cd_pipeline.assets.mlpackage import AGREEMENT
from cd_pipeline.assets.stage import alone
from cd_pipeline.metadata import table
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Workspace

if TYPE_CHECKING:
    from cd_pipeline.data.image_manifest import LabelledImage

SAMPLED_PAIRS = 32
POSITIVE_SHARE = (0.005, 0.60)


def build_checks(recipe: Recipe) -> Sequence[dg.AssetChecksDefinition]:
    """Build all checks of a recipe."""
    rendered = [mask_values_check(recipe), truth_check(recipe)]
    of_classes = [known_classes_check(recipe), baseline_check(recipe)]
    of_masks = [positive_share_check(recipe), floor_check(recipe)]
    return [
        split_check(recipe),
        *(rendered if recipe.source.layout == "labelled_photos" else []),
        *(of_classes if recipe.task.multi_class else of_masks),
        finite_loss_check(recipe),
        agreement_check(recipe),
        not_worse_check(recipe),
    ]


def locked_check(
    recipe: Recipe, asset: str, *, blocking: bool = True
) -> Callable[[Callable[[Workspace], dg.AssetCheckResult]], dg.AssetChecksDefinition]:
    """Make a check of an asset from a function; no other run touches the recipe's files meanwhile.

    Args:
        recipe: of the asset.
        asset: its name within the recipe.
        blocking: a failure keeps later assets from being made.
    """

    def decorate(body: Callable[[Workspace], dg.AssetCheckResult]) -> dg.AssetChecksDefinition:
        @functools.wraps(body)
        def guarded(workspace: Workspace) -> dg.AssetCheckResult:
            with alone(workspace, recipe, f"checking {asset} of {recipe.name}", dg.get_dagster_logger()):
                return body(workspace)

        return dg.asset_check(asset=dg.AssetKey(recipe.asset_key(asset)), blocking=blocking)(guarded)

    return decorate


def split_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    """No picture may be in two splits."""
    asset = recipe.split_asset

    @locked_check(recipe, asset)
    def no_picture_in_two_splits(workspace: Workspace) -> dg.AssetCheckResult:
        """The same picture, under whatever name, is in one split only."""
        from cd_pipeline.data.image_manifest import read_masked_images
        from cd_pipeline.data.manifest import read_photos, read_two_date
        from cd_pipeline.data.masked_images import leaking_images
        from cd_pipeline.data.split import leaks
        from cd_pipeline.data.two_date import leaking_pictures

        if recipe.one_image:
            found = leaking_images(read_masked_images(workspace.require(recipe, asset, "split.parquet")))
        elif recipe.source.layout == "two_date":
            found = leaking_pictures(read_two_date(workspace.require(recipe, asset, "pairs.parquet")))
        else:
            found = leaks(read_photos(workspace.require(recipe, asset, "split.parquet")))
        return dg.AssetCheckResult(
            passed=not found,
            description=f"{len(found)} pictures are in two splits"
            if found
            else "no picture is in two splits",
            metadata={"leaks": table([{"pictures": ", ".join(paths)} for paths in found])},
        )

    return no_picture_in_two_splits


def mask_values_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    """Masks hold only 0 and 255 and have the size of their after image."""

    @locked_check(recipe, "change_masks")
    def masks_are_binary_and_sized(workspace: Workspace) -> dg.AssetCheckResult:
        """Every mask holds only 0 and 255 and has the size of its after image."""
        from cd_pipeline.evaluation.masks import mask_faults

        frozen = rendered_pairs(workspace, recipe)
        faults = mask_faults(frozen, workspace.roots(recipe))
        return dg.AssetCheckResult(
            passed=not faults,
            description=faults[0] if faults else f"{len(frozen)} masks are 0/255 and of the right size",
            metadata={"masks": len(frozen), "faults": len(faults)},
        )

    return masks_are_binary_and_sized


def truth_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    """Where before and after differ, the mask is 255."""

    @locked_check(recipe, "change_masks")
    def masks_tell_the_truth(workspace: Workspace) -> dg.AssetCheckResult:
        """Where before and after differ, before any nuisance, the mask is 255.

        A sample of the plans is rendered anew, and compared with the pictures on disk.
        """
        from cd_pipeline.data.samples import load_sample
        from cd_pipeline.evaluation.masks import same_pictures
        from cd_pipeline.synthesis.photo_store import PhotoStore
        from cd_pipeline.synthesis.render import untruthful_pixels
        from cd_pipeline.synthesis.rendered_pairs import render_pair
        from cd_pipeline.synthesis.settings import PublishedSynthesis

        frozen, roots = rendered_pairs(workspace, recipe), workspace.roots(recipe)
        photos = PhotoStore(roots)
        sample = frozen[:: max(1, len(frozen) // SAMPLED_PAIRS)]
        lying, altered = {}, []
        for pair in sample:
            if not same_pictures(load_sample(pair, roots), render_pair(pair, photos)):
                altered.append(pair.pair_id)
            if pixels := untruthful_pixels(render_pair(pair, photos, nuisance=False)):
                lying[pair.pair_id] = pixels
        asked_for = isinstance(recipe.synthesis, PublishedSynthesis) and (
            not recipe.synthesis.truthful_masks or recipe.synthesis.reencode_jpeg
        )
        return dg.AssetCheckResult(
            passed=not lying and not altered,
            severity=dg.AssetCheckSeverity.WARN if asked_for and not altered else dg.AssetCheckSeverity.ERROR,
            description=f"{len(lying)} of {len(sample)} sampled pairs differ outside their mask"
            + (", as the recipe asks" if lying and asked_for else "")
            + f"; {len(altered)} are not what their plan gives",
            metadata={
                "sampled": len(sample),
                "untruthful_pairs": len(lying),
                "pixels": sum(lying.values()),
                "altered_pairs": len(altered),
            },
        )

    return masks_tell_the_truth


def positive_share_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    """The share of changed or marked pixels is plausible."""

    @locked_check(recipe, recipe.sample_assets[-1])
    def positive_share_is_plausible(workspace: Workspace) -> dg.AssetCheckResult:
        """Between 0.5 % and 60 % of each split's pixels are changed, or marked.

        A split without any change, or changed all over, blocks what comes after.
        """
        from cd_pipeline.evaluation.masks import mask_shares

        shares = mask_shares(examples_on_disk(workspace, recipe), workspace.roots(recipe))
        low, high = POSITIVE_SHARE
        useless = any(share in (0.0, 1.0) for share in shares.values())
        found = ", ".join(f"{split} {share:.2%}" for split, share in shares.items())
        return dg.AssetCheckResult(
            passed=all(low <= share <= high for share in shares.values()),
            severity=dg.AssetCheckSeverity.ERROR if useless else dg.AssetCheckSeverity.WARN,
            description=f"positive pixels: {found}; expected {low:.1%} to {high:.0%}",
            metadata={f"positive_pixel_share_{split}": share for split, share in shares.items()},
        )

    return positive_share_is_plausible


def finite_loss_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    """All losses are finite."""

    @locked_check(recipe, "checkpoint")
    def losses_are_finite(workspace: Workspace) -> dg.AssetCheckResult:
        """Train and val loss are finite in every epoch."""
        import numpy as np

        from cd_pipeline.data.frames import read_frame

        history = read_frame(workspace.require(recipe, "checkpoint", "history.parquet"))
        finite = np.isfinite(history["train_loss"] + history["val_loss"])
        bad = history.loc[~finite, "epoch"].tolist()
        return dg.AssetCheckResult(
            passed=not bad,
            description=f"loss not finite in epochs {bad}; lower training.learning_rate"
            if bad
            else f"finite in all {len(history)} epochs",
            metadata={"epochs": len(history)},
        )

    return losses_are_finite


def floor_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    """The network beats marking everything."""

    @locked_check(recipe, "checkpoint")
    def beats_marking_everything(workspace: Workspace) -> dg.AssetCheckResult:
        """Val F1 is above that of marking every pixel; of pairs, plain differencing at its best stands beside it."""
        from cd_pipeline.data.samples import input_samples
        from cd_pipeline.evaluation.differencing import DifferencingOracle
        from cd_pipeline.evaluation.metrics import Confusion, everything_changed_f1

        val_f1 = best_epoch(workspace, recipe)["val_f1"]
        oracle, positive, pixels = DifferencingOracle(), 0, 0
        examples = examples_on_disk(workspace, recipe, "val")
        for sample in input_samples(examples, workspace.roots(recipe), recipe.input.size):
            if not recipe.one_image:
                oracle.update(sample.before, sample.after, sample.mask, sample.valid)
            counted = Confusion.of(sample.mask, sample.mask, sample.valid)
            positive += counted.tp
            pixels += counted.pixels
        floor = everything_changed_f1(positive, pixels)
        figures = {"val_f1": val_f1, "everything_marked_f1": floor}
        told = f"val F1 {val_f1:.3f}; everything marked {floor:.3f}"
        if not recipe.one_image:
            figures["differencing_oracle_f1"] = oracle.best().f1
            told += f"; plain differencing at its best {oracle.best().f1:.3f}"
        return dg.AssetCheckResult(passed=val_f1 > floor, description=told, metadata=figures)

    return beats_marking_everything


def known_classes_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    """What val and test hold can be learnt from train."""

    @locked_check(recipe, "image_manifest")
    def classes_are_in_train(workspace: Workspace) -> dg.AssetCheckResult:
        """Every class of val and test is in train too.

        A train split of a single class blocks what comes after.
        """
        pixels = {
            split: class_totals(labelled_images(workspace, recipe, split))
            for split in ("train", "val", "test")
        }
        names = recipe.class_names
        unknown = [
            names[index]
            for index in range(len(names))
            if not pixels["train"][index] and (pixels["val"][index] or pixels["test"][index])
        ]
        useless = sum(count > 0 for count in pixels["train"]) < 2
        told = "every class is in train"
        if unknown:
            told = f"not in train: {', '.join(unknown)}; add images that hold them, or change the split"
        if useless:
            told = (
                "train holds one class alone: there is nothing to tell apart; add images or change the split"
            )
        return dg.AssetCheckResult(
            passed=not unknown and not useless,
            severity=dg.AssetCheckSeverity.ERROR if useless else dg.AssetCheckSeverity.WARN,
            description=told,
            metadata={
                "pixels": table(
                    [
                        {"class": name, **{split: counts[index] for split, counts in pixels.items()}}
                        for index, name in enumerate(names)
                    ]
                )
            },
        )

    return classes_are_in_train


def baseline_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    """The network beats the most frequent class everywhere."""

    @locked_check(recipe, "checkpoint")
    def beats_the_most_frequent_class(workspace: Workspace) -> dg.AssetCheckResult:
        """Val mIoU is above that of the most frequent class everywhere."""
        import numpy as np

        from cd_pipeline.evaluation.class_confusion import ClassConfusion

        val_iou = best_epoch(workspace, recipe)["val_iou"]
        totals = class_totals(labelled_images(workspace, recipe, "val"))
        baseline = ClassConfusion(np.diag(np.array(totals, np.int64))).everywhere().mean_iou()
        return dg.AssetCheckResult(
            passed=val_iou > baseline,
            description=f"val mIoU {val_iou:.3f}; the most frequent class everywhere {baseline:.3f}",
            metadata={"val_iou": val_iou, "baseline_iou": baseline},
        )

    return beats_the_most_frequent_class


def best_epoch(workspace: Workspace, recipe: Recipe) -> dict[str, Any]:
    """Return the epoch that the weights are of."""
    saved = trained(workspace, recipe)
    return next(row for row in saved.history if row["epoch"] == saved.best_epoch)


def class_totals(images: "Sequence[LabelledImage]") -> list[int]:
    """Return the pixels of each class, over all images."""
    return [sum(pixels) for pixels in zip(*(image.class_pixels for image in images), strict=True)]


def agreement_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    """The package agrees with the checkpoint."""

    @locked_check(recipe, "mlpackage")
    def package_agrees_with_checkpoint(workspace: Workspace) -> dg.AssetCheckResult:
        """The package, read back and executed op by op on the test set, gives what the checkpoint gives.

        So do the other forms of the network beside it.
        """
        from cd_pipeline.export.agreeing import broken_limits
        from cd_pipeline.export.agreement import Agreement, AgreementLimits
        from cd_pipeline.export.coreml import package_digest

        content = read_json(workspace.require(recipe, "mlpackage", AGREEMENT))
        digest = package_digest(workspace.require(recipe, "mlpackage", recipe.package))
        fresh = content["package_digest"] == digest
        forms = {name: Agreement.of_plain(values) for name, values in content["forms"].items()}
        broken = broken_limits(AgreementLimits(**recipe.export.limits()), forms)
        agreement = forms["package"]
        return dg.AssetCheckResult(
            passed=fresh and not broken,
            description=" ".join(broken if fresh else [f"{AGREEMENT} is of another package."])
            or f"agrees on {agreement.samples} test samples",
            metadata={
                "samples": agreement.samples,
                "max_probability_difference": agreement.max_probability_difference,
                "mean_probability_difference": agreement.mean_probability_difference,
                "flipped_share": agreement.flipped_share,
            },
        )

    return package_agrees_with_checkpoint


def not_worse_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    """The newest package is not worse than the one that was shipped."""

    @locked_check(recipe, "release", blocking=False)
    def challenger_is_not_worse(workspace: Workspace) -> dg.AssetCheckResult:
        """The package of this checkpoint was released; otherwise an earlier one stays shipped."""
        from cd_pipeline.assets.inputs import chosen_threshold
        from cd_pipeline.assets.release import candidate_of, release_store

        store = release_store(workspace, recipe)
        saved = trained(workspace, recipe)
        candidate = candidate_of(workspace, recipe, saved, chosen_threshold(workspace, recipe, saved))
        decision, shipped = store.record(candidate.version).decision, store.shipped
        figures = decision.model_dump(
            include={"champion", "challenger", "difference", "low", "high"}, exclude_none=True
        )
        return dg.AssetCheckResult(
            passed=decision.released or shipped == candidate.version,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{decision.why}; {shipped} is shipped",
            metadata={**figures, "margin": decision.rule.margin, "shipped": shipped or "none"},
        )

    return challenger_is_not_worse
