"""Which network, and how it starts."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ModelSettings(BaseModel):
    """The network of a recipe."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["tiny_change_unet", "tiny_siamese_unet"] = Field(
        default="tiny_change_unet",
        description="tiny_change_unet: the published one, photos mixed before the first layer; "
        "tiny_siamese_unet: each photo encoded alone, then compared",
    )
    start_from: str | None = Field(
        default=None,
        description="state dict to go on from: of this network; tiny_change_unet takes the published one too",
    )
    pretrained: bool = Field(
        default=True, description="ImageNet weights for the encoder where timm's hub can be reached"
    )
