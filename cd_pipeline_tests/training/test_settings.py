from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cd_pipeline.evaluation.sweep import linear_thresholds
from cd_pipeline.training.settings import PRESETS, TrainingSettings

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


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_constants_are_those_of_the_published_preset(name: str) -> None:
    assert getattr(TrainingSettings(preset="published"), name) == PUBLISHED[name]


@pytest.mark.parametrize("name", SIAMESE)
def test_the_constants_published_with_the_siamese_network_are_those_of_its_preset(name: str) -> None:
    assert getattr(TrainingSettings(preset="siamese"), name) == SIAMESE[name]


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
        {"best_by": "iou"},
    ],
)
def test_an_unknown_field_or_a_value_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TrainingSettings.model_validate(wrong)


def test_plain_values_bring_the_same_settings_back() -> None:
    settings = TrainingSettings(epochs=7, learning_rate=1e-3)
    assert TrainingSettings.model_validate(settings.model_dump()) == settings
