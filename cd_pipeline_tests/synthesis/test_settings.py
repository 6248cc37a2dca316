import pytest
from pydantic import ValidationError

from cd_pipeline.synthesis.settings import SynthesisSettings


def test_the_defaults_are_the_published_rules_with_truthful_masks() -> None:
    settings = SynthesisSettings()
    assert settings.preset == "published"
    assert settings.seed == 42
    assert settings.change_probability == 0.85
    assert settings.kind_weights == {
        "black": 1,
        "inpaint": 1,
        "rect": 1,
        "blur": 1,
        "pixel": 1,
        "move": 2,
    }
    assert settings.jitter == 0.12
    assert settings.min_box_area == 20 * 20
    assert settings.partial_keep_probability == 0.25
    assert settings.partial_keep_drop_probability == 0.5
    assert settings.partial_keep_min_area == 400
    assert settings.truthful_masks is True
    assert settings.reencode_jpeg is False


def test_two_settings_do_not_share_their_weights() -> None:
    first, second = SynthesisSettings(), SynthesisSettings()
    first.kind_weights["move"] = 9
    assert second.kind_weights["move"] == 2


@pytest.mark.parametrize(
    "values",
    [
        {"change_probability": 1.5},
        {"jitter": 1.0},
        {"jitter": -0.1},
        {"partial_keep_probability": -1},
        {"min_box_area": -1},
        {"preset": "unknown"},
        {"train_pairs": "sometimes"},
        {"chnage_probability": 0.5},
        {"kind_weights": {}},
        {"kind_weights": {"black": 0}},
        {"kind_weights": {"black": -1, "move": 3}},
        {"kind_weights": {"melt": 1}},
        {"kind_weights": {"black": float("nan")}},
        {"kind_weights": {"black": float("inf")}},
    ],
)
def test_a_wrong_setting_is_refused_by_name(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(values))):
        SynthesisSettings.model_validate(values)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValidationError, match=r"black, inpaint, rect, blur, pixel, move; unknown: \['melt'\]"
    ):
        SynthesisSettings(kind_weights={"melt": 1, "move": 1})
