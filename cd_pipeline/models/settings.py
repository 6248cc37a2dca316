"""Which network, and how it starts."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Fusion = Literal["concat", "difference"]
Norm = Literal["batch", "group", "none"]
EncoderName = Literal["mobilenetv3_small_100", "tf_mobilenetv3_small_minimal_100"]
Upsampling = Literal["bilinear", "bilinear_conv", "deconv"]

WIDTHS = (32, 64, 128, 256, 512)
"""Channels of a U-Net at strides 1, 2, 4, 8 and 16, where it is not told otherwise (published)."""
GROUPS = 8
"""Of group norm: every width must be a multiple of it."""

ENCODER: EncoderName = "mobilenetv3_small_100"
"""Of the small change networks, where they are not told otherwise (published)."""
U_NET = ("widths", "norm", "upsampling", "align_corners")
NETWORK_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "tiny_change_unet": ("encoder",),
    "tiny_siamese_unet": ("encoder",),
    "siamese_unet": ("fusion", "width", "norm"),
    "tiny_cd": (),
    "unet": (*U_NET, "bias"),
    "unet_plus_plus": (*U_NET, "deep_supervision"),
    "attention_unet": U_NET,
    "resunet": U_NET,
    "resnet50_unet": (),
}
"""The settings that each network takes beside those of every network."""
ONE_IMAGE_NETWORKS = ("unet", "unet_plus_plus", "attention_unet", "resunet", "resnet50_unet")
"""They take one image, and mark it or tell classes apart; the others take a pair and mark what changed."""


class ModelSettings(BaseModel):
    """The network of a recipe."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: Literal[
        "tiny_change_unet",
        "tiny_siamese_unet",
        "siamese_unet",
        "tiny_cd",
        "unet",
        "unet_plus_plus",
        "attention_unet",
        "resunet",
        "resnet50_unet",
    ] = Field(
        default="tiny_change_unet",
        description="of two photos: tiny_change_unet: the published one, photos mixed before the first layer; "
        "tiny_siamese_unet: each photo encoded alone, then compared; "
        "siamese_unet: a plain U-Net of that kind, from scratch; "
        "tiny_cd: EfficientNet-B4 features compared by attention masks. "
        "Of one image: unet; unet_plus_plus: nested, with a head a depth; attention_unet: weighs its skips; "
        "resunet: residual blocks; resnet50_unet: a light decoder on ResNet-50, for which ImageNet's mean and "
        "std are to be set in input.scaling",
    )
    start_from: str | None = Field(
        default=None,
        description="state dict to go on from: of this network; tiny_change_unet takes the published one too",
    )
    pretrained: bool = Field(
        default=True,
        description="ImageNet weights for an encoder that has them, where timm's hub can be reached",
    )
    encoder: EncoderName = Field(
        default=ENCODER,
        description="tiny_change_unet, tiny_siamese_unet: MobileNetV3-small (published), or its minimal variant "
        "without hard-swish and squeeze-excite, which some devices compute less exactly in float16",
    )
    fusion: Fusion = Field(
        default="concat",
        description="siamese_unet: features of both photos and their difference, or the difference alone",
    )
    width: int = Field(
        default=32, ge=8, multiple_of=8, description="siamese_unet: channels at full size, doubled each level"
    )
    widths: tuple[int, ...] = Field(
        default=WIDTHS, min_length=2, description="networks of one image: channels a level, finest first"
    )
    norm: Norm = Field(
        default="batch",
        description="siamese_unet, networks of one image: batch norm; group norm with 8 groups, for batches of a "
        "few samples; none",
    )
    upsampling: Upsampling = Field(
        default="bilinear",
        description="networks of one image: bilinear (published), bilinear and a 1x1 convolution, or a "
        "transposed convolution",
    )
    align_corners: bool = Field(
        default=True,
        description="networks of one image, of bilinear upsampling; true (published) makes the result at a "
        "place depend on the size of the image, so that tiles and whole images differ; false does not",
    )
    bias: bool = Field(
        default=True, description="unet: of the 3x3 convolutions (published; batch norm makes it useless)"
    )
    deep_supervision: bool = Field(
        default=True, description="unet_plus_plus: a head a depth in training, the loss their mean"
    )

    @field_validator("widths")
    @classmethod
    def _groups_fit(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if any(width < GROUPS or width % GROUPS for width in widths):
            raise ValueError(f"every width must be a multiple of {GROUPS}, found {widths}")
        return widths

    @model_validator(mode="after")
    def _options_belong_to_the_network(self) -> "ModelSettings":
        taken = NETWORK_OPTIONS[self.name]
        for option in sorted({name for names in NETWORK_OPTIONS.values() for name in names} - set(taken)):
            # a dump holds every field: only a value that would be ignored is refused
            if getattr(self, option) != type(self).model_fields[option].default:
                takers = ", ".join(name for name, names in NETWORK_OPTIONS.items() if option in names)
                raise ValueError(
                    f"{option} is {getattr(self, option)!r}, which {self.name} does not take; "
                    f"leave it out, or use one of: {takers}"
                )
        return self

    @property
    def pictures(self) -> int:
        """How many pictures the network takes."""
        return 1 if self.name in ONE_IMAGE_NETWORKS else 2

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments of the network's constructor."""
        return {option: getattr(self, option) for option in NETWORK_OPTIONS[self.name]}
