"""Which network, and how it starts."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fusion = Literal["concat", "difference"]
Norm = Literal["batch", "group"]

NETWORK_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "tiny_change_unet": (),
    "tiny_siamese_unet": (),
    "siamese_unet": ("fusion", "width", "norm"),
    "tiny_cd": (),
}
"""The settings that each network takes beside those of every network."""


class ModelSettings(BaseModel):
    """The network of a recipe."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["tiny_change_unet", "tiny_siamese_unet", "siamese_unet", "tiny_cd"] = Field(
        default="tiny_change_unet",
        description="tiny_change_unet: the published one, photos mixed before the first layer; "
        "tiny_siamese_unet: each photo encoded alone, then compared; "
        "siamese_unet: a plain U-Net of that kind, from scratch; "
        "tiny_cd: EfficientNet-B4 features compared by attention masks",
    )
    start_from: str | None = Field(
        default=None,
        description="state dict to go on from: of this network; tiny_change_unet takes the published one too",
    )
    pretrained: bool = Field(
        default=True,
        description="ImageNet weights for an encoder that has them, where timm's hub can be reached",
    )
    fusion: Fusion = Field(
        default="concat",
        description="siamese_unet: features of both photos and their difference, or the difference alone",
    )
    width: int = Field(
        default=32, ge=8, multiple_of=8, description="siamese_unet: channels at full size, doubled each level"
    )
    norm: Norm = Field(
        default="batch",
        description="siamese_unet: batch norm, or group norm with 8 groups, for batches of a few pairs",
    )

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

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments of the network's constructor."""
        return {option: getattr(self, option) for option in NETWORK_OPTIONS[self.name]}
