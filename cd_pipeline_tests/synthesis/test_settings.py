import pytest
from pydantic import TypeAdapter, ValidationError

from cd_pipeline.synthesis.settings import PublishedSynthesis, RealisticSynthesis, SynthesisSettings


def test_the_defaults_are_the_published_rules_with_truthful_masks() -> None:
    settings = PublishedSynthesis()
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
    first, second = PublishedSynthesis(), PublishedSynthesis()
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
        PublishedSynthesis.model_validate(values)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValidationError, match=r"black, inpaint, rect, blur, pixel, move; unknown: \['melt'\]"
    ):
        PublishedSynthesis(kind_weights={"melt": 1, "move": 1})


def realistic(**values: object) -> RealisticSynthesis:
    return RealisticSynthesis.model_validate({"preset": "realistic", **values})


def test_the_defaults_of_realistic_pairs() -> None:
    settings = realistic()
    assert (settings.seed, settings.train_pairs) == (42, "fresh")
    assert (settings.epoch_pairs, settings.frozen_pairs) == (1000, 300)
    assert (settings.no_change_share, settings.no_change_strength, settings.max_changes) == (0.15, 1.3, 4)
    assert settings.kind_weights == {
        "remove": 2,
        "insert": 1.5,
        "replace": 1.5,
        "recolour": 1,
        "retexture": 1,
        "move": 1.5,
        "black": 0.7,
        "rect": 0.7,
        "blur": 2,
        "pixel": 1.5,
    }
    assert settings.held_out_kinds == []
    assert settings.shape_weights == {"rectangle": 3, "ellipse": 2, "polygon": 2, "cutout": 3}
    assert (settings.side_shares, settings.view_shares) == ((0.02, 0.55), (0.6, 1.0))
    assert (settings.box_share, settings.swap_probability, settings.min_visible) == (0.5, 0.5, 1.5)


def test_the_defaults_of_the_nuisance() -> None:
    assert realistic().nuisance.model_dump() == {
        "probability": 0.75,
        "brightness": 0.25,
        "offset": 18,
        "contrast": 0.2,
        "gamma": 0.2,
        "temperature": 0.08,
        "gradient": 0.25,
        "gradient_probability": 0.4,
        "vignette": 0.35,
        "vignette_probability": 0.2,
        "shadow": 0.45,
        "shadow_probability": 0.25,
        "noise": 5,
        "shot_noise": 0.06,
        "shot_noise_probability": 0.2,
        "blur": 0.8,
        "blur_probability": 0.3,
        "jpeg_quality": (45, 95),
        "jpeg_probability": 0.5,
        "shift": 2,
        "shift_probability": 0.5,
        "warp": 3,
        "warp_probability": 0.25,
    }


def test_two_realistic_settings_share_nothing() -> None:
    first, second = realistic(), realistic()
    first.kind_weights["move"] = first.shape_weights["ellipse"] = 9
    first.held_out_kinds.append("blur")
    first.nuisance.noise = 0
    assert second == realistic()


@pytest.mark.parametrize(
    "values",
    [
        {"preset": "published"},
        {"train_pairs": "sometimes"},
        {"epoch_pairs": 0},
        {"frozen_pairs": 0},
        {"no_change_share": 1.1},
        {"no_change_strength": 2.0},
        {"max_changes": 0},
        {"min_visible": -1},
        {"swap_probability": -0.1},
        {"box_share": 2},
        {"jitter": 0.1},
        {"kind_weights": {}},
        {"kind_weights": {"inpaint": 1}},
        {"kind_weights": {"blur": 0}},
        {"kind_weights": {"blur": float("nan")}},
        {"shape_weights": {"cutout": 1}},
        {"shape_weights": {"star": 1, "ellipse": 1}},
        {"shape_weights": {"rectangle": 0, "cutout": 1}},
        {"side_shares": (0.0, 0.5)},
        {"side_shares": (0.5, 0.4)},
        {"side_shares": (0.5, float("nan"))},
        {"view_shares": (0.5, 1.1)},
        {"view_shares": (0.5,)},
        {"held_out_kinds": ["melt"]},
        {"held_out_kinds": "blur"},
        {"nuisance": {"noise": -1}},
        {"nuisance": {"blurr": 1}},
        {"nuisance": {"jpeg_quality": (95, 45)}},
        {"nuisance": {"jpeg_quality": (0, 90)}},
        {"nuisance": {"shift": float("inf")}},
    ],
)
def test_a_wrong_realistic_setting_is_refused_by_name(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(values))):
        realistic(**values)


@pytest.mark.parametrize(
    "name", ["brightness", "contrast", "gamma", "temperature", "gradient", "vignette", "jpeg_probability"]
)
def test_a_wrong_range_of_the_nuisance_is_refused_by_name(name: str) -> None:
    for value in (-0.1, 1.5):
        with pytest.raises(ValidationError, match=name):
            realistic(nuisance={name: value})


def test_shares_may_be_a_single_value() -> None:
    assert realistic(side_shares=(0.3, 0.3), view_shares=(1.0, 1.0)).view_shares == (1.0, 1.0)


def test_held_out_kinds_are_for_test_alone() -> None:
    settings = realistic(kind_weights={"blur": 2, "move": 1, "black": 3}, held_out_kinds=["move", "blur"])
    assert settings.weights_of("train") == settings.weights_of("val") == {"black": 3}
    assert settings.weights_of("test") == {"blur": 2, "move": 1, "black": 3}


@pytest.mark.parametrize(
    ("values", "unknown"),
    [
        ({"held_out_kinds": ["melt", "blur"]}, "melt"),
        ({"kind_weights": {"blur": 1, "move": 1}, "held_out_kinds": ["black"]}, "black"),
    ],
)
def test_an_unknown_held_out_kind_is_refused_with_its_name(values: dict[str, object], unknown: str) -> None:
    with pytest.raises(ValidationError, match=rf"held_out_kinds: .*unknown: \['{unknown}'\]"):
        realistic(**values)


@pytest.mark.parametrize(
    "weights",
    [{"blur": 1.0}, {"blur": 1.0, "move": 0.0}],
    ids=["no kind is left", "a kind of weight 0 is left"],
)
def test_a_kind_must_be_left_to_train_on(weights: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=r"held_out_kinds: .*at least one left to train on"):
        realistic(kind_weights=weights, held_out_kinds=["blur"])


EITHER: TypeAdapter[SynthesisSettings] = TypeAdapter(SynthesisSettings)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, PublishedSynthesis),
        ({"preset": "published", "seed": 3}, PublishedSynthesis),
        ({"preset": "realistic"}, RealisticSynthesis),
        (PublishedSynthesis(seed=3), PublishedSynthesis),
        (realistic(seed=3), RealisticSynthesis),
    ],
)
def test_the_preset_decides_which_settings_there_are(values: object, expected: type[object]) -> None:
    found = EITHER.validate_python(values)
    assert type(found) is expected
    assert EITHER.validate_python(EITHER.dump_python(found)) == found
    assert EITHER.validate_json(EITHER.dump_json(found)) == found


@pytest.mark.parametrize("wrong", [{"preset": "realistc"}, {"preset": None}, [], "realistic", 3])
def test_an_unknown_preset_is_refused_with_those_there_are(wrong: object) -> None:
    with pytest.raises(ValidationError, match=r"'published'(,| or) 'realistic'"):
        EITHER.validate_python(wrong)


def test_a_setting_of_the_other_preset_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="jitter"):
        EITHER.validate_python({"preset": "realistic", "jitter": 0.1})
    with pytest.raises(ValidationError, match="epoch_pairs"):
        EITHER.validate_python({"epoch_pairs": 10})
