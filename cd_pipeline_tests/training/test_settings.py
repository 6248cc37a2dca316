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
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_constants_are_those_of_the_published_preset(name: str) -> None:
    assert getattr(TrainingSettings(preset="published"), name) == PUBLISHED[name]


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
        {"patience": 0},
        {"sweep": {"step": 3}},
        {"sweep": {"low": 0.5, "high": 0.2}},
        {"sweep": {"steps": 1}},
        {"sweep": {"high": 1.0}},
        {"schedule": "batch"},
        {"sample_epochs": 0},
        {"ema_warmup": "later"},
    ],
)
def test_an_unknown_field_or_a_value_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TrainingSettings.model_validate(wrong)


def test_plain_values_bring_the_same_settings_back() -> None:
    settings = TrainingSettings(epochs=7, learning_rate=1e-3)
    assert TrainingSettings.model_validate(settings.model_dump()) == settings
