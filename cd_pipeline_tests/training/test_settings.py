import inspect
import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cd_pipeline.evaluation.sweep import linear_thresholds
from cd_pipeline.training import segmentation_losses
from cd_pipeline.training.segmentation_losses import build_segmentation_loss
from cd_pipeline.training.settings import PRESETS, LossName, TrainingSettings

PUBLISHED = {
    "seed": 42,
    "epochs": 40,
    "batch_size": 8,
    "learning_rate": 3e-4,
    "min_learning_rate": 1e-5,
    "warmup_epochs": 2,
    "weight_decay": 1e-4,
    "adam_eps": 1e-4,
    "clip_norm": 1.0,
    "schedule": "epoch",
    "sample_epochs": None,
    "ema_warmup": False,
    "ema_decay": 0.99,
    "bce_weight": 0.6,
    "tversky_weight": 0.4,
    "tversky_false_positive": 0.7,
    "tversky_false_negative": 0.3,
    "max_pos_weight": 10.0,
    "pos_weight_batches": 20,
    "patience": 12,
    "min_improvement": 0.005,
    "dice_weight": 0.0,
    "best_by": "f1",
    "optimizer": "adamw",
    "loss": "change",
    "class_weights": "none",
    "tensorboard": False,
}

SIAMESE = {
    "learning_rate": 3e-4,
    "weight_decay": 1e-4,
    "batch_size": 8,
    "epochs": 20,
    "bce_weight": 1.0,
    "dice_weight": 1.0,
    "tversky_weight": 0.0,
    "max_pos_weight": 1.0,
    "best_by": "mean_image_iou",
    "schedule": "constant",
    "warmup_epochs": 0,
    "clip_norm": None,
    "ema_decay": 0.0,
    "patience": None,
    "min_improvement": 0.0,
}
"""AdamW, BCE plus Dice, no schedule, no average: as published with the siamese U-Net."""

CRACKS = {
    "loss": "bce_dice",
    "cross_entropy_weight": 0.5,
    "dice_smooth": 1e-5,
    "max_pos_weight": 1.0,
    "optimizer": "adam",
    "learning_rate": 1e-2,
    "weight_decay": 1e-4,
    "adam_eps": 1e-8,
    "schedule": "plateau",
    "plateau_factor": 0.1,
    "plateau_patience": 10,
    "min_learning_rate": 1e-8,
    "clip_norm": None,
    "ema_decay": 0.0,
    "best_by": "iou",
    "patience": None,
    "min_improvement": 0.0,
}
"""As published for cracks; what was not there (clipping, averages, an early stop) is off."""

TOOLBOX = {
    "loss": "focal_dice",
    "dice_share": 0.5,
    "focal_alpha": 0.25,
    "focal_gamma": 2.0,
    "tversky_false_positive": 0.3,
    "tversky_false_negative": 0.7,
    "tversky_gamma": pytest.approx(1.33, abs=0.005),
    "optimizer": "adamw",
    "learning_rate": 3e-4,
    "weight_decay": 1e-4,
    "adam_eps": 1e-8,
    "batch_size": 6,
    "epochs": 30,
    "schedule": "step",
    "clip_norm": 1.0,
    "ema_decay": 0.0,
    "best_by": "f1",
    "seed": 42,
    "patience": None,
}

VOC = {
    "loss": "ce",
    "class_weights": "none",
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "adam_eps": 1e-8,
    "schedule": "steps",
    "step_epochs": 4,
    "step_gamma": 0.1,
    "min_learning_rate": 0.0,
    "batch_size": 16,
    "epochs": 40,
    "clip_norm": None,
    "ema_decay": 0.0,
    "best_by": "iou",
    "patience": None,
}
SEGMENTATION = [
    (preset, name, value)
    for preset, constants in (("cracks", CRACKS), ("toolbox", TOOLBOX), ("voc", VOC))
    for name, value in constants.items()
]
HALF_CHANGED = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])


def of(**values: object) -> TrainingSettings:
    return TrainingSettings.model_validate(values)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_constants_are_those_of_the_published_preset(name: str) -> None:
    assert getattr(TrainingSettings(preset="published"), name) == PUBLISHED[name]


@pytest.mark.parametrize("name", SIAMESE)
def test_the_constants_published_with_the_siamese_network_are_those_of_its_preset(name: str) -> None:
    assert getattr(TrainingSettings(preset="siamese"), name) == SIAMESE[name]


@pytest.mark.parametrize(("preset", "name", "value"), SEGMENTATION)
def test_the_constants_published_for_segmentation_are_those_of_the_presets(
    preset: str, name: str, value: object
) -> None:
    assert getattr(of(preset=preset), name) == value


def test_five_to_ten_percent_of_the_toolbox_epochs_warm_up() -> None:
    toolbox = of(preset="toolbox")
    assert 0.05 <= toolbox.warmup_epochs / toolbox.epochs <= 0.1


@pytest.mark.parametrize("preset", ["rooms", "two_date", "siamese", "cracks", "toolbox"])
def test_presets_other_than_the_published_sweep_every_hundredth(preset: str) -> None:
    sweep = of(preset=preset).sweep
    thresholds = linear_thresholds(sweep.low, sweep.high, sweep.steps)
    np.testing.assert_allclose(thresholds, [i / 100 for i in range(2, 99)])


def test_pairs_of_a_folder_are_trained_on_like_the_rooms_for_longer_and_more_slowly() -> None:
    rooms, two_date = (TrainingSettings.model_validate({"preset": p}) for p in ("rooms", "two_date"))
    assert (two_date.epochs, two_date.sample_epochs, two_date.learning_rate) == (60, 30, 3e-3)
    same = {"preset", "epochs", "sample_epochs", "learning_rate"}
    assert two_date.model_dump(exclude=same) == rooms.model_dump(exclude=same)


def test_forty_thresholds_from_two_to_forty_percent_are_swept() -> None:
    sweep = TrainingSettings(preset="published").sweep
    thresholds = linear_thresholds(sweep.low, sweep.high, sweep.steps)
    np.testing.assert_allclose(thresholds, [0.02 + 0.38 * i / 39 for i in range(40)])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_value_set_beside_a_preset_wins_and_the_others_stay(preset: str) -> None:
    plain = TrainingSettings.model_validate({"preset": preset}).model_dump()
    changed = TrainingSettings.model_validate({"preset": preset, "epochs": 3, "batch_size": 5}).model_dump()
    assert changed == {**plain, "epochs": 3, "batch_size": 5}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_what_it_says(preset: str) -> None:
    settings = TrainingSettings.model_validate({"preset": preset}).model_dump()
    assert {name: settings[name] for name in PRESETS[preset]} == PRESETS[preset]


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rte": 1e-3},
        {"preset": "fastest"},
        {"epochs": 0},
        {"batch_size": 0},
        {"ema_decay": 1.0},
        {"learning_rate": 0},
        {"clip_norm": -1},
        {"clip_norm": 0},
        {"patience": 0},
        {"sweep": {"step": 3}},
        {"sweep": {"low": 0.5, "high": 0.2}},
        {"sweep": {"steps": 1}},
        {"sweep": {"high": 1.0}},
        {"schedule": "batch"},
        {"sample_epochs": 0},
        {"ema_warmup": "later"},
        {"dice_weight": -1},
        {"best_by": "accuracy"},
        {"optimizer": "sgd"},
        {"plateau_factor": 1.0},
        {"plateau_patience": -1},
        {"step_epochs": 0},
        {"step_gamma": 0},
        {"step_gamma": 1.1},
        {"loss": "hinge"},
        {"focal_alpha": 1.5},
        {"focal_gamma": 0.5},
        {"dice_share": 1.1},
        {"dice_smooth": 0},
        {"tversky_gamma": 0.75},
        {"class_weights": "sqrt", "loss": "ce"},
        {"min_learning_rate": 1e-3},
    ],
)
def test_an_unknown_field_or_a_value_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TrainingSettings.model_validate(wrong)


@pytest.mark.parametrize("loss", ["change", "bce", "bce_dice", "bce_tversky"])
def test_class_weights_for_a_loss_of_one_class_are_refused_with_the_remedy(loss: str) -> None:
    with pytest.raises(ValidationError, match=f"the loss {loss} is of one class; set class_weights to none"):
        of(loss=loss, class_weights="inverse")


@pytest.mark.parametrize("loss", ["ce", "ce_dice", "dice", "focal", "focal_dice", "tversky", "focal_tversky"])
def test_losses_of_several_classes_take_class_weights(loss: str) -> None:
    assert of(loss=loss, class_weights="inverse").class_weights == "inverse"


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("loss", ["change", *get_args(LossName)])
def test_every_preset_takes_every_loss(preset: str, loss: str) -> None:
    assert of(preset=preset, loss=loss).loss == loss


def test_a_low_rate_is_no_use_only_where_a_schedule_falls_to_it() -> None:
    assert of(schedule="constant", learning_rate=1e-6).learning_rate == 1e-6


def test_the_losses_to_choose_from_are_those_that_can_be_built() -> None:
    assert set(get_args(LossName)) == set(get_args(segmentation_losses.LossName))


def test_the_options_of_a_loss_are_all_that_its_builder_takes() -> None:
    others = {"name", "classes", "class_weights", "pos_weight"}
    assert of().loss_options().keys() == inspect.signature(build_segmentation_loss).parameters.keys() - others


def test_each_option_of_a_loss_is_the_setting_of_its_meaning() -> None:
    settings = of(
        cross_entropy_weight=0.1,
        dice_smooth=0.2,
        focal_alpha=None,
        focal_gamma=3.0,
        dice_share=0.4,
        tversky_false_positive=0.5,
        tversky_false_negative=0.6,
        tversky_gamma=1.5,
    )
    assert settings.loss_options() == {
        "cross_entropy_weight": 0.1,
        "smooth": 0.2,
        "focal_alpha": None,
        "focal_gamma": 3.0,
        "dice_share": 0.4,
        "false_positive": 0.5,
        "false_negative": 0.6,
        "tversky_gamma": 1.5,
    }


@pytest.mark.parametrize(
    ("preset", "cost"),
    [
        ("cracks", 0.5 * math.log(2) + 0.5),
        ("toolbox", 0.5 * 0.5 + 0.5 * (0.25 + 0.75) / 2 * 0.5**2 * math.log(2)),
    ],
)
def test_a_preset_loss_costs_what_is_published_where_nothing_is_known(preset: str, cost: float) -> None:
    settings = of(preset=preset)
    assert settings.loss != "change"
    loss = build_segmentation_loss(settings.loss, classes=1, **settings.loss_options())
    assert loss(torch.zeros(1, 1, 2, 2), HALF_CHANGED).item() == pytest.approx(cost, rel=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_plain_values_bring_the_same_settings_back(preset: str) -> None:
    settings = of(preset=preset, epochs=7, learning_rate=2e-3, tensorboard=True)
    assert TrainingSettings(**settings.model_dump()) == settings
    assert TrainingSettings.model_validate_json(settings.model_dump_json()) == settings
