"""What a predictor says of one sample, at the size that the sample is scored at."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from cd_pipeline.data.images import Image
from cd_pipeline.data.samples import Sample, at_input_size
from cd_pipeline.evaluation.predictor import Predictor, enlarged
from cd_pipeline.evaluation.tiled import Probability

EXAMPLES_A_SHARD = 16
"""Some seconds of work, or with large tiles minutes: a killed run does no more than that again."""


class Prediction(NamedTuple):
    """A sample at the size it is scored at, its probability and mask there, and the mask at its own size.

    sample: at the size it is scored at.
    probability: HxW float32 in [0, 1].
    mask, own_size: HW uint8, 0 or 255.
    """

    sample: Sample
    probability: Probability
    mask: Image
    own_size: Image


def predict_sample(
    predictor: Predictor, sample: Sample, *, tiled: bool = False, own_size: bool = False
) -> Prediction:
    """Predict one sample of one class, given at its own size.

    Args:
        predictor: the network and its threshold.
        sample: the pictures and their truth.
        tiled: it is predicted in tiles at its own scale. Otherwise it is resized to the network's input,
            and its own mask is that of the enlarged probability.
        own_size: it is scored at its own size; a tiled one always is.
    """
    if tiled or own_size:
        probability = predictor.probability_at_own_size(*sample.pictures, tiled=tiled)
        mask = predictor.mask_of(probability)
        return Prediction(sample, probability, mask, mask)
    sized = at_input_size(sample, predictor.size)
    probability = predictor.probability(*sized.pictures)
    own_mask = predictor.mask_of(enlarged(probability, *sample.mask.shape))
    return Prediction(sized, probability, predictor.mask_of(probability), own_mask)


def settings_of(predictor: Predictor) -> list[Any]:
    """Return all that a predictor's masks depend on beside its network."""
    return [getattr(predictor, part.name) for part in fields(predictor) if part.name != "network"]


def named_rows(rows: Sequence[Image]) -> dict[str, Image]:
    """Name the rows of a gallery, as the record of a shard wants them."""
    return {f"row {number:03}": row for number, row in enumerate(rows)}


def rows_named(plain: Mapping[str, Any]) -> list[Image]:
    """Return the rows that `named_rows` named, in their order."""
    return [np.asarray(plain[name], np.uint8) for name in sorted(plain) if name.startswith("row ")]
