"""Applying a plan to a photo; there is no randomness here."""

import cv2
import numpy as np

from cd_pipeline.data.images import Image, through_jpeg
from cd_pipeline.data.samples import Sample
from cd_pipeline.synthesis.overwritten import traceless
from cd_pipeline.synthesis.plan import ChangePlan, fill_polygons, label_mask
from cd_pipeline.synthesis.published_kinds import PUBLISHED_KINDS


def render(photo: Image, plan: ChangePlan) -> Sample:
    """Make the pair that a plan describes.

    Args:
        photo: HWC uint8 RGB.
        plan: regions in px of this photo.

    Returns:
        before, after: HWC uint8 RGB; mask: HW uint8, 255 where changed. With a truthful plan without
        JPEG, the mask is 255 wherever before and after differ.
    """
    height, width = photo.shape[:2]
    after, mask = photo.copy(), label_mask(plan, width, height)
    for change, left_out in zip(plan.changes, traceless(plan, width, height), strict=True):
        if not left_out:
            PUBLISHED_KINDS[change.kind](after, change)
        if change.erased and plan.truthful:
            cv2.copyTo(photo, fill_polygons(mask.shape, change.erased), after)
    if plan.jpeg_quality is None:
        return Sample.of_pair(photo, after, mask)
    quality = plan.jpeg_quality
    return Sample.of_pair(through_jpeg(photo, quality), through_jpeg(after, quality), mask)


def untruthful_pixels(pair: Sample) -> int:
    """Count the pixels that differ between before and after although the mask is 0 there."""
    differs = (pair.before != pair.after).any(axis=2)
    return int(np.count_nonzero(differs & (pair.mask == 0)))
