"""Settings of training; the defaults are the published constants."""

from importlib.util import find_spec
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

CODE_VERSION = 2
"""Raised when training makes other weights of the same data, settings and package versions."""
PACKAGES = ("cd_pipeline", "torch", "timm", "opencv-python", "numpy")
"""The packages whose versions trained weights depend on."""
TELLING = ("tensorboard", "mlflow")
"""Settings of who is told about a training; its weights do not depend on them."""
LossName = Literal[
    "bce",
    "ce",
    "dice",
    "focal",
    "focal_dice",
    "tversky",
    "focal_tversky",
    "bce_dice",
    "ce_dice",
    "bce_tversky",
]
"""The losses of cd_pipeline.training.segmentation_losses; its table has their formulas."""
OF_ONE_CLASS = ("change", "bce", "bce_dice", "bce_tversky")
"""Losses that are never of several classes."""
OF_SEVERAL_CLASSES = ("ce", "ce_dice")
"""Losses that are never of one class."""

PLAIN: dict[str, Any] = {
    "adam_eps": 1e-8,
    "ema_decay": 0.0,
    "max_pos_weight": 1.0,
    "patience": None,
    "min_improvement": 0.0,
}
"""torch's own eps, no averaged weights, no weight on positives, no early stop."""
WHOLE_SWEEP = {"low": 0.02, "high": 0.98, "steps": 97}

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
        "sweep": WHOLE_SWEEP,
    },
    "siamese": {
        **PLAIN,
        "epochs": 20,
        "warmup_epochs": 0,
        "schedule": "constant",
        "clip_norm": None,
        "bce_weight": 1.0,
        "tversky_weight": 0.0,
        "dice_weight": 1.0,
        "best_by": "mean_image_iou",
        "sweep": WHOLE_SWEEP,
    },
    "cracks": {
        **PLAIN,
        "optimizer": "adam",
        "learning_rate": 1e-2,
        "min_learning_rate": 1e-8,
        "weight_decay": 1e-4,
        "schedule": "plateau",
        "plateau_factor": 0.1,
        "plateau_patience": 10,
        "warmup_epochs": 0,
        "clip_norm": None,
        "loss": "bce_dice",
        "cross_entropy_weight": 0.5,
        "dice_smooth": 1e-5,
        "best_by": "iou",
        "sweep": WHOLE_SWEEP,
    },
    "toolbox": {
        **PLAIN,
        "epochs": 30,
        "batch_size": 6,
        "learning_rate": 3e-4,
        "weight_decay": 1e-4,
        "schedule": "step",
        "warmup_epochs": 2,
        "clip_norm": 1.0,
        "loss": "focal_dice",
        "dice_share": 0.5,
        "focal_alpha": 0.25,
        "focal_gamma": 2.0,
        "tversky_false_positive": 0.3,
        "tversky_false_negative": 0.7,
        "tversky_gamma": 4 / 3,
        "best_by": "f1",
        "sweep": WHOLE_SWEEP,
    },
    "voc": {
        **PLAIN,
        "epochs": 40,
        "batch_size": 16,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "min_learning_rate": 0.0,
        "weight_decay": 0.0,
        "schedule": "steps",
        "step_epochs": 4,
        "step_gamma": 0.1,
        "warmup_epochs": 0,
        "clip_norm": None,
        "loss": "ce",
        "best_by": "iou",
    },
}
PRESETS["two_date"] = {**PRESETS["rooms"], "epochs": 60, "sample_epochs": 30, "learning_rate": 3e-3}
"""What differs from the constants published for the rooms, which are the defaults.

- `rooms`: for fresh realistic pairs, about 1,000 an epoch, without pretrained weights; chosen on val. No weight
  on changed pixels, so that probabilities stay calibrated; no early stop, as the averaged weights improve to the
  end of the cosine.
- `two_date`: that of the rooms, for pairs of a folder.
- `siamese`: as published with the siamese U-Net.
- `cracks`: as published for thin structures in one image: half BCE plus Dice, Adam whose rate falls when the val
  loss rests. Its epochs and batch size are not published.
- `toolbox`: as published for segmentation with few positives: Focal-Dice and a cosine, of which 2 of 30 epochs
  warm up (5 to 10 % are published); for several classes add `class_weights: inverse`.
- `voc`: as published for the 22 classes of Pascal VOC: cross-entropy, Adam, a tenth of the rate every 4 epochs;
  the best epoch, by mean IoU, in place of the last one is ours."""


class SweepSettings(BaseModel):
    """The thresholds that are tried; published: 40 values in [0.02, 0.40]."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    low: float = Field(default=0.02, gt=0, lt=1)
    high: float = Field(default=0.40, gt=0, lt=1)
    steps: int = Field(default=40, ge=2, le=10_001)

    @model_validator(mode="after")
    def _ordered(self) -> "SweepSettings":
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self


class TrainingSettings(BaseModel):
    """Loss, optimiser, schedule, averaging and stopping. A preset's values give way to those set beside it.

    Settings that the chosen loss or schedule has no use for are not looked at.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    preset: Literal["published", "rooms", "siamese", "two_date", "cracks", "toolbox", "voc"] = "published"
    seed: int = Field(default=42, ge=0)
    epochs: int = Field(default=40, ge=1, le=100_000)
    sample_epochs: int | None = Field(
        default=None, ge=1, description="instead of epochs, on drawn sample data; none: the same"
    )
    batch_size: int = Field(default=8, ge=1, le=65_536)
    optimizer: Literal["adamw", "adam"] = Field(
        default="adamw",
        description="what weight decay is differs: adamw shrinks the weights, adam adds L2 to the gradient",
    )
    learning_rate: float = Field(default=3e-4, gt=0)
    min_learning_rate: float = Field(default=1e-5, ge=0, description="no schedule goes below")
    warmup_epochs: int = Field(default=2, ge=0, description="of the schedules epoch and step")
    weight_decay: float = Field(default=1e-4, ge=0)
    adam_eps: float = Field(default=1e-4, gt=0, description="of both optimisers")
    clip_norm: float | None = Field(default=1.0, gt=0, description="of all gradients together; none: free")
    schedule: Literal["epoch", "step", "constant", "plateau", "steps"] = Field(
        default="epoch",
        description="epoch, step: warm-up and cosine with each epoch (published) or with each step; "
        "constant: one learning rate; plateau: times plateau_factor when the val loss rests; "
        "steps: times step_gamma every step_epochs",
    )
    plateau_factor: float = Field(default=0.1, gt=0, lt=1)
    plateau_patience: int = Field(
        default=10, ge=0, description="epochs in a row without a lower val loss that plateau lets pass"
    )
    step_epochs: int = Field(default=4, ge=1)
    step_gamma: float = Field(default=0.1, gt=0, le=1)
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    ema_warmup: bool = Field(
        default=False, description="the average forgets faster at first: its decay grows towards ema_decay"
    )
    loss: Literal["change", LossName] = Field(
        default="change",
        description="change: bce_weight * BCE + tversky_weight * Tversky + dice_weight * Dice, one class; "
        "bce, bce_dice, bce_tversky: one class; ce, ce_dice: several; the others: either",
    )
    bce_weight: float = Field(default=0.6, ge=0, description="of change")
    tversky_weight: float = Field(default=0.4, ge=0, description="of change")
    dice_weight: float = Field(default=0.0, ge=0, description="of change")
    tversky_false_positive: float = Field(default=0.7, ge=0, description="of all Tversky losses")
    tversky_false_negative: float = Field(default=0.3, ge=0, description="of all Tversky losses")
    tversky_gamma: float = Field(
        default=4 / 3, ge=1, description="of focal_tversky; the exponent is 1 / tversky_gamma"
    )
    max_pos_weight: float = Field(
        default=10.0, ge=1, description="of positive pixels in change and the bce losses; 1: none"
    )
    pos_weight_batches: int = Field(default=20, ge=1, description="that the weight is estimated on")
    cross_entropy_weight: float = Field(
        default=0.5, ge=0, description="of bce or ce beside Dice or Tversky: bce_dice, ce_dice, bce_tversky"
    )
    dice_smooth: float = Field(
        default=1e-5, gt=0, description="in numerator and denominator of Dice; change has its own"
    )
    dice_share: float = Field(
        default=0.5, ge=0, le=1, description="of focal_dice, the rest is focal; useful: 0.3 to 0.7"
    )
    focal_alpha: float | None = Field(
        default=0.25,
        ge=0,
        le=1,
        description="weight of positives, 1 - focal_alpha of negatives; none: 1 each",
    )
    focal_gamma: float = Field(default=2.0, ge=0, description="0, or 1 and more")
    class_weights: Literal["none", "inverse"] = Field(
        default="none",
        description="inverse: of several classes, proportional to 1 / pixels of the class in train",
    )
    best_by: Literal["f1", "iou", "mean_image_iou"] = Field(
        default="f1",
        description="what the best epoch has most of on val: F1 or IoU pooled over pixels at the threshold of "
        "the best F1, or the mean IoU of the images at 0.5; of several classes f1 is the mean Dice and iou the "
        "mean IoU of the classes",
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
    nuisance_on: Literal["cpu", "device"] = Field(
        default="cpu",
        description="where realistic pairs that are drawn anew get their light, noise, blur, JPEG and shift: cpu, in "
        "the loader processes; device: a batch at a time beside the network, for a GPU that waits for pairs (a CPU is "
        "slower for it). About one value of 10,000 then differs by a grey level, and the weights differ a little",
    )
    rendering_on: Literal["cpu", "device"] = Field(
        default="cpu",
        description="where they are cut from their photos and changed: cpu, in the loader processes; device: a batch "
        "at a time, where nuisance_on is device too, for a GPU that still waits. About 3 values of 1,000 then differ, most "
        "of them by a grey level, and the weights differ a little",
    )
    sweep: SweepSettings = Field(default_factory=SweepSettings)
    tensorboard: bool = Field(
        default=False, description="scalars of each epoch for TensorBoard, beside history.parquet"
    )
    mlflow: bool = Field(
        default=False,
        description="a run of each training on the MLflow server of MLFLOW_TRACKING_URI, in an experiment of the "
        "recipe's name; needs the extra mlflow",
    )

    @field_validator("mlflow")
    @classmethod
    def _its_extra_is_installed(cls, wanted: bool) -> bool:
        if wanted and find_spec("mlflow") is None:
            raise ValueError("needs mlflow: pip install -c constraints.txt -e '.[mlflow]', or leave it out")
        return wanted

    def loss_options(self) -> dict[str, Any]:
        """Return the options of `build_segmentation_loss`.

        All but the classes and their weights, and pos_weight, which is estimated on train data up to
        `max_pos_weight`.
        """
        return {
            "cross_entropy_weight": self.cross_entropy_weight,
            "smooth": self.dice_smooth,
            "focal_alpha": self.focal_alpha,
            "focal_gamma": self.focal_gamma,
            "dice_share": self.dice_share,
            "false_positive": self.tversky_false_positive,
            "false_negative": self.tversky_false_negative,
            "tversky_gamma": self.tversky_gamma,
        }

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

    @model_validator(mode="after")
    def _sensible(self) -> "TrainingSettings":
        if self.schedule != "constant" and self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate {self.min_learning_rate} is above learning_rate {self.learning_rate}"
            )
        if 0 < self.focal_gamma < 1:
            raise ValueError(f"focal_gamma is {self.focal_gamma}: it must be 0, or 1 and more")
        if self.rendering_on == "device" and self.nuisance_on != "device":
            raise ValueError(
                f"rendering_on is device, and nuisance_on is {self.nuisance_on}: rendering on the device needs the "
                "nuisance there; set nuisance_on to device, or rendering_on to cpu"
            )
        if self.class_weights != "none" and self.loss in OF_ONE_CLASS:
            raise ValueError(
                f"class_weights: the loss {self.loss} is of one class; set class_weights to none"
            )
        return self
