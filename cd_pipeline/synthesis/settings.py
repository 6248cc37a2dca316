"""Settings of the change synthesis: the published rules, or changes and photos that look real."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

KINDS = ("black", "inpaint", "rect", "blur", "pixel", "move")
PUBLISHED_WEIGHTS = {"black": 1.0, "inpaint": 1.0, "rect": 1.0, "blur": 1.0, "pixel": 1.0, "move": 2.0}
JPEG_QUALITY = 95
"""OpenCV's default quality, with which the published pairs were re-encoded."""

REALISTIC_WEIGHTS = {
    "remove": 2.0,
    "insert": 1.5,
    "replace": 1.5,
    "recolour": 1.0,
    "retexture": 1.0,
    "move": 1.5,
    "black": 0.7,
    "rect": 0.7,
    "blur": 2.0,
    "pixel": 1.5,
}
SHAPE_WEIGHTS = {"rectangle": 3.0, "ellipse": 2.0, "polygon": 2.0, "cutout": 3.0}


class PublishedSynthesis(BaseModel):
    """One pair a photo: rectangles on labelled boxes, in an otherwise identical photo."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

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
        return _known_weights(weights, KINDS)


class NuisanceSettings(BaseModel):
    """What differs between two photos of an unchanged room; drawn for each photo alone, never labelled.

    A range of r is a factor from 1 - r to 1 + r. Pixels are those of the network's input.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    probability: float = Field(default=0.75, ge=0, le=1, description="of any nuisance on a photo")
    brightness: float = Field(default=0.25, ge=0, lt=0.6, description="range of the factor")
    offset: float = Field(default=18.0, ge=0, description="added, up to +- this, on the 0-255 scale")
    contrast: float = Field(default=0.2, ge=0, lt=0.6, description="range of the factor about the mean")
    gamma: float = Field(default=0.2, ge=0, lt=0.6, description="range of the exponent")
    temperature: float = Field(default=0.08, ge=0, lt=0.6, description="range of each channel's factor")
    gradient: float = Field(default=0.25, ge=0, lt=0.6, description="range at the ends of a light gradient")
    gradient_probability: float = Field(default=0.4, ge=0, le=1)
    vignette: float = Field(default=0.35, ge=0, lt=1, description="darkest loss at the corners")
    vignette_probability: float = Field(default=0.2, ge=0, le=1)
    shadow: float = Field(default=0.45, ge=0, lt=1, description="darkest loss inside a soft shadow")
    shadow_probability: float = Field(default=0.25, ge=0, le=1)
    noise: float = Field(default=5.0, ge=0, description="largest sigma of Gaussian noise, 0-255 scale")
    shot_noise: float = Field(
        default=0.06, ge=0, description="largest variance of Poisson noise for a unit of brightness"
    )
    shot_noise_probability: float = Field(default=0.2, ge=0, le=1)
    blur: float = Field(default=0.8, ge=0, description="largest sigma, px")
    blur_probability: float = Field(default=0.3, ge=0, le=1)
    jpeg_quality: tuple[int, int] = Field(default=(45, 95), description="lowest and highest")
    jpeg_probability: float = Field(default=0.5, ge=0, le=1)
    shift: float = Field(default=2.0, ge=0, description="px, each photo, each direction")
    shift_probability: float = Field(
        default=0.5, ge=0, le=1, description="a fixed camera does not shift: masks can then be exact"
    )
    warp: float = Field(default=3.0, ge=0, description="px that corners of the before photo move")
    warp_probability: float = Field(default=0.25, ge=0, le=1)

    @field_validator("jpeg_quality")
    @classmethod
    def _jpeg_range(cls, limits: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= limits[0] <= limits[1] <= 100:
            raise ValueError(f"(lowest, highest) with 1 <= lowest <= highest <= 100, found {limits}")
        return limits


class RealisticSynthesis(BaseModel):
    """Several pairs a photo: crops with changes of any shape anywhere, under different nuisance."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    preset: Literal["realistic"]
    seed: int = Field(default=42, ge=0)
    train_pairs: Literal["fresh", "frozen"] = Field(
        default="fresh", description="fresh: drawn anew each epoch; frozen: drawn once"
    )
    epoch_pairs: int = Field(
        default=1000, ge=1, description="fewest of train in an epoch; as many a photo as it takes"
    )
    frozen_pairs: int = Field(default=300, ge=1, description="the same for val and for test")
    no_change_share: float = Field(default=0.15, ge=0, le=1)
    no_change_strength: float = Field(
        default=1.3, ge=0, le=1.6, description="factor on light, blur and noise of pairs without a change"
    )
    max_changes: int = Field(default=4, ge=1)
    kind_weights: dict[str, float] = Field(default_factory=REALISTIC_WEIGHTS.copy)
    held_out_kinds: list[str] = Field(
        default_factory=list, description="kinds only test has: what is found beyond those trained on"
    )
    shape_weights: dict[str, float] = Field(
        default_factory=SHAPE_WEIGHTS.copy, description="cutout: GrabCut of a labelled box"
    )
    side_shares: tuple[float, float] = Field(
        default=(0.02, 0.55),
        description="smallest and largest side of a change, drawn log-uniformly; "
        "one on a labelled box is about as large as the box",
    )
    box_share: float = Field(default=0.5, ge=0, le=1, description="changes placed on a labelled box")
    view_shares: tuple[float, float] = Field(
        default=(0.6, 1.0), description="width and height of the part of a photo that a pair shows"
    )
    swap_probability: float = Field(default=0.5, ge=0, le=1, description="before and after exchanged")
    min_visible: float = Field(
        default=1.5, ge=0, description="a change of a smaller mean difference (0-255) is undone, not labelled"
    )
    nuisance: NuisanceSettings = Field(default_factory=NuisanceSettings)

    @field_validator("kind_weights")
    @classmethod
    def _known_kinds(cls, weights: dict[str, float]) -> dict[str, float]:
        return _known_weights(weights, tuple(REALISTIC_WEIGHTS))

    @field_validator("shape_weights")
    @classmethod
    def _known_shapes(cls, weights: dict[str, float]) -> dict[str, float]:
        known = _known_weights(weights, tuple(SHAPE_WEIGHTS))
        if not any(weight for shape, weight in known.items() if shape != "cutout"):
            raise ValueError("a shape beside cutout needs a weight: not every photo has a labelled box")
        return known

    @field_validator("side_shares", "view_shares")
    @classmethod
    def _ordered_shares(cls, shares: tuple[float, float]) -> tuple[float, float]:
        if not 0 < shares[0] <= shares[1] <= 1:
            raise ValueError(f"(smallest, largest) with 0 < smallest <= largest <= 1, found {shares}")
        return shares

    @model_validator(mode="after")
    def _something_to_train_on(self) -> "RealisticSynthesis":
        unknown = sorted(set(self.held_out_kinds) - set(self.kind_weights))
        if unknown or not any(self.weights_of("train").values()):
            raise ValueError(
                f"held_out_kinds: kinds of kind_weights, at least one left to train on; unknown: {unknown}"
            )
        return self

    def weights_of(self, split: str) -> Mapping[str, float]:
        """Return the weights of the kinds that a split may hold."""
        held_out: Sequence[str] = () if split == "test" else self.held_out_kinds
        return {kind: weight for kind, weight in self.kind_weights.items() if kind not in held_out}


def _preset(values: Any) -> str:  # noqa: ANN401 - raw input of any form
    found = values.get("preset", "published") if isinstance(values, dict) else getattr(values, "preset", "")
    return str(found)


SynthesisSettings: TypeAlias = Annotated[
    Annotated[PublishedSynthesis, Tag("published")] | Annotated[RealisticSynthesis, Tag("realistic")],
    Discriminator(_preset),
]
"""Settings of either preset; without one they are the published rules."""


def _known_weights(weights: dict[str, float], known: Sequence[str]) -> dict[str, float]:
    unknown = sorted(set(weights) - set(known))
    if unknown or not weights or min(weights.values()) < 0 or not 0 < sum(weights.values()) < math.inf:
        raise ValueError(f"weights >= 0, one above 0, of {', '.join(known)}; unknown: {unknown}")
    return weights
