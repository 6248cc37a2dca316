"""The scores of a model, example by example, and what tells a test set."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from cd_pipeline.data.example import Example
from cd_pipeline.data.files import digest, file_digest
from cd_pipeline.data.image_manifest import LabelledImage
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.samples import Roots
from cd_pipeline.evaluation.paired_bootstrap import PairedInterval, mean_score, paired_interval, pooled_f1
from cd_pipeline.release.records import Rule

Measure = Literal["f1", "miou"]
"""F1 of all pixels together, or the mean of the images' mean IoU."""
COUNTS = ("tp", "fp", "fn")
OWN_COUNTS = tuple(f"own_size_{name}" for name in COUNTS)
"""The same at the pair's own size; images are always counted there."""
KEPT = (*COUNTS, *OWN_COUNTS, "miou")


class ScoresError(ValueError):
    """Scores that are not of the examples asked for; the message names the remedy."""


def example_scores(scores: pd.DataFrame, examples: Sequence[Example], where: Path) -> pd.DataFrame:
    """Return what a comparison needs of test scores: a row an example, ordered by name.

    Args:
        scores: of a `TestReport`, in the order of the examples.
        examples: rows of the manifest.
        where: names the file of the scores in messages.

    Returns:
        `example`, `cluster`, and those of the columns `KEPT` that the scores have.

    Raises:
        ScoresError: the rows are not those of the examples.
    """
    names = [example.name for example in examples]
    if "file" not in scores or scores["file"].tolist() != [f"{name}.png" for name in names]:
        raise ScoresError(
            f"{where}: its rows are not the test examples of the manifest; materialize {where.parent.name} again"
        )
    kept = scores[[name for name in KEPT if name in scores]].reset_index(drop=True)
    told = pd.DataFrame({"example": names, "cluster": [cluster_of(example) for example in examples]})
    return pd.concat([told, kept], axis=1).sort_values("example", ignore_index=True)


def cluster_of(example: Example) -> str:
    """Return what examples that belong together share: the hash of their photo, or of their first picture."""
    if isinstance(example, Pair) and example.photo_sha256:
        return example.photo_sha256
    return example.pictures[0].sha256 or example.name


def version_of_test_set(examples: Sequence[Pair | LabelledImage], roots: Roots) -> str:
    """Return a hash of all that scores on some examples depend on, beside the model.

    Pictures that were rendered are read; of the others the manifest has the hash.

    Raises:
        FileNotFoundError: a rendered picture is missing.
    """
    rows = []
    for example in sorted(examples, key=lambda row: row.name):
        files = [*example.pictures, (example.mask, example.mask_sha256), (example.valid, None)]
        rendered = [
            file_digest(roots.resolve(reference))
            for reference, known in files
            if reference is not None and known is None
        ]
        rows.append(digest(json.dumps(asdict(example), sort_keys=True, default=str), *rendered))
    return digest(package_version("cd_pipeline"), *rows)


def compare_scores(
    champion: pd.DataFrame, challenger: pd.DataFrame, measure: Measure, rule: Rule, *, own_size: bool
) -> PairedInterval:
    """Compare two models by their `example_scores`.

    Args:
        champion: the first model's.
        challenger: the second model's, of the same examples.
        measure: what is compared.
        rule: confidence, resamples and seed of the interval.
        own_size: pixels are counted at the pairs' own size, where there are such counts: for networks of
            different input sizes.

    Raises:
        ScoresError: the examples differ.
    """
    if champion["example"].tolist() != challenger["example"].tolist():
        raise ScoresError(
            "champion and challenger were scored on different examples; materialize release again"
        )
    figures = [_figures(scores, measure, own_size=own_size) for scores in (champion, challenger)]
    counted = ~np.isnan(figures[0]).any(axis=1)
    if (counted != ~np.isnan(figures[1]).any(axis=1)).any():
        raise ScoresError("champion and challenger have different images without a counted pixel")
    return paired_interval(
        figures[0][counted],
        figures[1][counted],
        challenger["cluster"].to_numpy()[counted].tolist(),
        pooled_f1 if measure == "f1" else mean_score,
        confidence=rule.confidence,
        resamples=rule.resamples,
        seed=rule.seed,
    )


def score_of(scores: pd.DataFrame, measure: Measure) -> float:
    """Return the score of a whole set, in [0, 1]."""
    figures = _figures(scores, measure, own_size=False)
    total = figures[~np.isnan(figures).any(axis=1)].sum(axis=0)
    return float((pooled_f1 if measure == "f1" else mean_score)(total))


def _figures(scores: pd.DataFrame, measure: Measure, *, own_size: bool) -> npt.NDArray[np.float64]:
    # N examples x what adds up; NaN where no pixel of an image counts
    if measure == "miou":
        return scores.assign(images=1)[["miou", "images"]].to_numpy(np.float64)
    names = OWN_COUNTS if own_size and OWN_COUNTS[0] in scores else COUNTS
    return scores[list(names)].to_numpy(np.float64)
