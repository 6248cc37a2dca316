"""Settings of training; the defaults are the published constants."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "rooms": {"learning_rate": 1e-3, "sweep": {"low": 0.02, "high": 0.98, "steps": 97}},
}
"""What differs from the published constants. `rooms`: on room photos without pretrained weights, val F1 after
40 epochs was 0.90 against 0.83, and the best threshold lay above the published range."""


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

    preset: Literal["published", "rooms"] = "published"
    seed: int = Field(default=42, ge=0)
    epochs: int = Field(default=40, ge=1)
    batch_size: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=3e-4, gt=0)
    min_learning_rate: float = Field(default=1e-5, ge=0)
    warmup_epochs: int = Field(default=2, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    adam_eps: float = Field(default=1e-4, gt=0)
    clip_norm: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    bce_weight: float = Field(default=0.6, ge=0)
    tversky_weight: float = Field(default=0.4, ge=0)
    tversky_false_positive: float = Field(default=0.7, ge=0)
    tversky_false_negative: float = Field(default=0.3, ge=0)
    max_pos_weight: float = Field(default=10.0, ge=1)
    pos_weight_batches: int = Field(default=20, ge=1)
    patience: int = Field(default=12, ge=1, description="epochs without an improvement before stopping")
    min_improvement: float = Field(default=0.005, ge=0, description="of val F1, to count as one")
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
            name: {**value, **values.get(name, {})}
            for name, value in preset.items()
            if isinstance(value, dict)
        }
        return {**preset, **values, **nested}
