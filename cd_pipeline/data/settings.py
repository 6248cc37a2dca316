"""Settings of split and network input; light, so that loading the definitions stays fast."""

from pydantic import BaseModel, ConfigDict, Field


class SplitSettings(BaseModel):
    """How photos are divided. The published split is `floor(0.8 n)` of each class to train, seed 42."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(default=42, ge=0)
    train_share: float = Field(default=0.8, gt=0, lt=1, description="of the photos that are not in test")
    test_share: float = Field(
        default=0.18, gt=0, lt=1, description="for a single tree, without a test folder"
    )


class InputSettings(BaseModel):
    """The network's input."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(default=256, ge=32, multiple_of=32, description="side in px of the square input")
