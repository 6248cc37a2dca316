"""Settings of the change synthesis; the defaults are the published rules."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

KINDS = ("black", "inpaint", "rect", "blur", "pixel", "move")
PUBLISHED_WEIGHTS = {"black": 1.0, "inpaint": 1.0, "rect": 1.0, "blur": 1.0, "pixel": 1.0, "move": 2.0}
JPEG_QUALITY = 95
"""OpenCV's default quality, with which the published pairs were re-encoded."""


class SynthesisSettings(BaseModel):
    """How an after image and its mask are made from a photo and its boxes."""

    model_config = ConfigDict(extra="forbid")

    preset: Literal["published"] = "published"
    seed: int = Field(default=42, ge=0)
    train_pairs: Literal["frozen", "fresh"] = Field(
        default="frozen", description="frozen: one pair a photo, as published; fresh: drawn anew each epoch"
    )
    change_probability: float = Field(default=0.85, ge=0, le=1)
    kind_weights: dict[str, float] = Field(default_factory=PUBLISHED_WEIGHTS.copy)
    jitter: float = Field(default=0.12, ge=0, lt=1, description="share of the box's width and height")
    min_box_area: int = Field(default=400, ge=0, description="px; smaller boxes are skipped")
    partial_keep_probability: float = Field(default=0.25, ge=0, le=1)
    partial_keep_min_area: int = Field(default=400, ge=0, description="px of a contour")
    partial_keep_drop_probability: float = Field(default=0.5, ge=0, le=1)
    truthful_masks: bool = Field(
        default=True,
        description="false brings back two published faults, for comparison only: dropped regions stay "
        "changed in the picture, and some masks are 1 px too large",
    )
    reencode_jpeg: bool = Field(
        default=False, description="true brings back a published fault: both photos pass through JPEG"
    )

    @field_validator("kind_weights")
    @classmethod
    def _known_kinds(cls, weights: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(weights) - set(KINDS))
        if unknown or not weights or min(weights.values()) < 0 or not 0 < sum(weights.values()) < math.inf:
            raise ValueError(
                f"weights >= 0, one above 0, of the kinds {', '.join(KINDS)}; unknown: {unknown}"
            )
        return weights
