"""Settings of split and network input; light, so that loading the definitions stays fast."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Channels = tuple[float, float, float]
IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


class SplitSettings(BaseModel):
    """How photos are divided. The published split is `floor(0.8 n)` of each class to train, seed 42."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    seed: int = Field(default=42, ge=0)
    train_share: float = Field(default=0.8, gt=0, lt=1, description="of the photos that are not in test")
    test_share: float = Field(
        default=0.18, gt=0, lt=1, description="for a single tree, without a test folder"
    )
    near_identical: int = Field(
        default=8,
        ge=0,
        le=32,
        description="labelled_photos: photos whose perceptual hashes differ in at most so many of 64 bits stay in "
        "one part, such as the shots of a burst; different rooms differ in 14 or more",
    )
    exact: bool = Field(
        default=False,
        description="masked_images, voc: the images first by hash are test, so that the share is kept to the "
        "image; false: those whose hash falls under the share, which stay in test as the set grows",
    )


class InputSettings(BaseModel):
    """The network's input."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    size: int = Field(
        default=256, ge=32, le=16_384, multiple_of=32, description="side in px of the square input"
    )
    fit: Literal["resize", "tile"] = Field(
        default="resize",
        description="resize: pictures are resized to it; tile (two_date, masked_images, voc): they keep their "
        "scale, are cut for training, padded where they are smaller, and predicted in overlapping tiles",
    )
    scaling: Literal["unit", "min_max", "mean_std"] = Field(
        default="unit",
        description="unit: values of 0 to 1; min_max: the own range of what the network sees (of each tile, with fit: tile) becomes 0 to 1; mean_std: "
        "the mean is taken out and the rest divided by std. It is part of the network, and of its package",
    )
    mean: Channels = Field(
        default=IMAGENET_MEAN, description="of red, green and blue in 0 to 1, for mean_std"
    )
    std: Channels = Field(default=IMAGENET_STD, description="of red, green and blue in 0 to 1, for mean_std")
    clahe: float | None = Field(
        default=None,
        gt=0,
        description="masked_images, voc: clip limit of the contrast equalisation (CLAHE, 8x8 parts, lightness "
        "alone) of whole pictures; an app must do the same before it calls the package; none: as they are",
    )

    @field_validator("std")
    @classmethod
    def _some_spread(cls, std: Channels) -> Channels:
        if min(std) <= 0:
            raise ValueError(f"every std must be above 0, found {std}")
        return std


PUBLISHED_AUGMENTATION: dict[str, Any] = {
    "epoch_pairs": 1,
    "crop": "manifest",
    "vertical_flip": 0.0,
    "quarter_turns": False,
    "swap": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
    "blur": 0.0,
}


class AugmentationSettings(BaseModel):
    """How training samples are varied, anew in every epoch: geometry together, light and colour a picture."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    preset: Literal["varied", "published"] = Field(
        default="varied", description="published: a horizontal flip alone; what is set beside it goes first"
    )
    epoch_pairs: int = Field(
        default=100,
        ge=1,
        description="fewer training samples are repeated, each time varied anew, to about as many an epoch",
    )
    crop: Literal["manifest", "random"] = Field(
        default="random",
        description="of a tiled sample; random: anywhere in its pictures; manifest: the row's own",
    )
    scale: tuple[float, float] = Field(
        default=(0.8, 1.25),
        description="of a tiled sample: smallest and largest enlargement of a random crop, drawn log-uniformly",
    )
    max_dominant_share: float = Field(
        default=0.75,
        gt=0,
        le=1,
        description="a random crop is drawn again, up to 10 times, while marked or unmarked pixels are "
        "more than this share of it; 1: never",
    )
    positive_crops: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="probability that a random crop is drawn around a marked pixel, where there is one",
    )
    horizontal_flip: float = Field(default=0.5, ge=0, le=1, description="probability")
    vertical_flip: float = Field(default=0.5, ge=0, le=1, description="probability")
    quarter_turns: bool = Field(default=True, description="rotation by 0, 90, 180 or 270 degrees")
    swap: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="probability that before and after are exchanged; not of single images",
    )
    brightness: float = Field(
        default=0.15, ge=0, le=1, description="factor 1 +- this, drawn for each picture"
    )
    contrast: float = Field(default=0.2, ge=0, le=1, description="factor 1 +- this, drawn for each picture")
    saturation: float = Field(default=0.2, ge=0, le=1, description="factor 1 +- this, drawn for each picture")
    hue: float = Field(
        default=0.03, ge=0, le=0.5, description="turn of the colour circle, +- this, a picture"
    )
    blur: float = Field(
        default=0.1, ge=0, le=1, description="probability of a 3x3 Gaussian blur, for each picture"
    )

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:  # noqa: ANN401 - raw input of any form
        if isinstance(values, dict) and values.get("preset") == "published":
            return {**PUBLISHED_AUGMENTATION, **values}
        return values

    @field_validator("scale")
    @classmethod
    def _ordered_scale(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"(smallest, largest) with 0 < smallest <= largest, found {scale}")
        return scale
