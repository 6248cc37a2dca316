"""Settings of training; the defaults are the published constants."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "rooms": {
        "epochs": 40,
        "sample_epochs": 8,
        "learning_rate": 6e-3,
        "warmup_epochs": 1,
        "schedule": "step",
        "weight_decay": 1e-2,
        "adam_eps": 1e-8,
        "ema_decay": 0.998,
        "ema_warmup": True,
        "max_pos_weight": 1.0,
        "tversky_false_positive": 0.5,
        "tversky_false_negative": 0.5,
        "patience": None,
        "min_improvement": 0.0,
        "sweep": {"low": 0.02, "high": 0.98, "steps": 97},
    },
    "siamese": {
        "epochs": 20,
        "warmup_epochs": 0,
        "schedule": "constant",
        "adam_eps": 1e-8,
        "clip_norm": None,
        "ema_decay": 0.0,
        "bce_weight": 1.0,
        "tversky_weight": 0.0,
        "dice_weight": 1.0,
        "max_pos_weight": 1.0,
        "best_by": "mean_image_iou",
        "patience": None,
        "min_improvement": 0.0,
        "sweep": {"low": 0.02, "high": 0.98, "steps": 97},
    },
}
PRESETS["two_date"] = {**PRESETS["rooms"], "epochs": 60, "sample_epochs": 30, "learning_rate": 3e-3}
"""What differs from the constants published for the rooms, which are the defaults.

`rooms`: for fresh realistic pairs, about 1,000 an epoch, without pretrained weights; chosen on val. No class
weights, so that probabilities stay calibrated; no early stop, as the averaged weights improve to the end of the
cosine. `siamese`: as published with the siamese U-Net. `two_date`: that of the rooms, for pairs of a folder."""


class SweepSettings(BaseModel):
    """The thresholds that are tried; published: 40 values in [0.02, 0.40]."""

    model_config = ConfigDict(extra="forbid")

    low: float = Field(default=0.02, gt=0, lt=1)
    high: float = Field(default=0.40, gt=0, lt=1)
    steps: int = Field(default=40, ge=2)

    @model_validator(mode="after")
    def _ordered(self) -> "SweepSettings":
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self


class TrainingSettings(BaseModel):
    """Loss, optimiser, schedule, averaging and stopping. A preset's values give way to those set beside it."""

    model_config = ConfigDict(extra="forbid")

    preset: Literal["published", "rooms", "siamese", "two_date"] = "published"
    seed: int = Field(default=42, ge=0)
    epochs: int = Field(default=40, ge=1)
    sample_epochs: int | None = Field(
        default=None, ge=1, description="instead of epochs on the drawn sample rooms; none: the same"
    )
    batch_size: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=3e-4, gt=0)
    min_learning_rate: float = Field(default=1e-5, ge=0)
    warmup_epochs: int = Field(default=2, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    adam_eps: float = Field(default=1e-4, gt=0)
    clip_norm: float | None = Field(default=1.0, gt=0, description="of all gradients together; none: free")
    schedule: Literal["epoch", "step", "constant"] = Field(
        default="epoch",
        description="warm-up and cosine with each epoch (published) or with each step, or one learning rate",
    )
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    ema_warmup: bool = Field(
        default=False, description="the average forgets faster at first: its decay grows towards ema_decay"
    )
    bce_weight: float = Field(default=0.6, ge=0)
    tversky_weight: float = Field(default=0.4, ge=0)
    dice_weight: float = Field(default=0.0, ge=0)
    tversky_false_positive: float = Field(default=0.7, ge=0)
    tversky_false_negative: float = Field(default=0.3, ge=0)
    max_pos_weight: float = Field(default=10.0, ge=1)
    pos_weight_batches: int = Field(default=20, ge=1)
    best_by: Literal["f1", "mean_image_iou"] = Field(
        default="f1",
        description="what the best epoch has most of on val: F1 pooled over pixels at its own best threshold, "
        "or the mean IoU of the images at 0.5",
    )
    patience: int | None = Field(
        default=12, ge=1, description="epochs without an improvement before stopping; none: never"
    )
    min_improvement: float = Field(
        default=0.005, ge=0, description="of val F1 (or what best_by names), to count as one"
    )
    wait_for_floor: bool = Field(
        default=True,
        description="patience counts from the first epoch that beats marking everything as changed; "
        "false: from the first epoch",
    )
    sweep: SweepSettings = Field(default_factory=SweepSettings)

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:  # noqa: ANN401 - raw input of any form
        if not isinstance(values, dict):
            return values
        preset = PRESETS.get(str(values.get("preset", "published")), {})
        nested = {
            name: {**value, **values[name]}
            for name, value in preset.items()
            if isinstance(value, dict) and isinstance(values.get(name), dict)
        }
        return {**preset, **values, **nested}
