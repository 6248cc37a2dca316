"""What a recipe accepts: parts of one layout have no place in the other."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from cd_pipeline.data.classes import VOC_CLASSES
from cd_pipeline.data.task import MaskForm, Task
from cd_pipeline.recipe import Recipe, RecipeSettings

TWO_DATE: dict[str, Any] = {"source": {"layout": "two_date"}, "threshold": {"pairs": "own"}}
IMAGES: dict[str, Any] = {
    "source": {"layout": "masked_images"},
    "threshold": {"pairs": "own"},
    "model": {"name": "unet"},
}
VOC: dict[str, Any] = {"source": {"layout": "voc"}, "model": {"name": "unet"}, "training": {"preset": "voc"}}
DEFS = Path(__file__).parents[1] / "cd_pipeline" / "defs"


def refusal(settings: dict[str, Any]) -> str:
    """The message of the one error of wrong settings."""
    with pytest.raises(ValidationError) as caught:
        RecipeSettings.model_validate(settings)
    (error,) = caught.value.errors()
    return str(error["msg"])


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ({"synthesis": {"preset": "realistic"}}, "synthesis"),
        ({"synthesis": {"preset": "published", "change_probability": 0.9}}, "synthesis"),
        ({"split": {"seed": 1}}, "split"),
        ({"real_pairs": {"folder": "/pairs"}}, "real_pairs"),
    ],
)
def test_a_part_that_pairs_of_a_folder_have_no_use_for_is_refused_by_name(
    part: dict[str, Any], name: str
) -> None:
    message = refusal({**TWO_DATE, **part})
    assert f"{name}: no part of a recipe with source.layout two_date; leave it out" in message


@pytest.mark.parametrize("augmentation", [{}, {"preset": "published"}])
def test_augmentation_is_for_pairs_of_a_folder(augmentation: dict[str, Any]) -> None:
    message = refusal({"augmentation": augmentation})
    assert "augmentation: no part of a recipe with source.layout labelled_photos; leave it out" in message
    settings = RecipeSettings.model_validate({**TWO_DATE, "augmentation": augmentation})
    assert settings.augmentation is not None


@pytest.mark.parametrize("threshold", [{}, {"pairs": "realistic"}, {"tolerance": 0}])
def test_realistic_pairs_cannot_choose_the_threshold_of_pairs_of_a_folder(threshold: dict[str, Any]) -> None:
    message = refusal({**TWO_DATE, "threshold": threshold})
    assert "threshold.pairs: realistic pairs are drawn from labelled photos; set it to own" in message


def test_tiles_are_for_all_but_labelled_photos() -> None:
    assert "input.fit: tile is not for source.layout labelled_photos; leave it out" in refusal(
        {"input": {"fit": "tile"}}
    )
    for base in (TWO_DATE, IMAGES, VOC):
        assert RecipeSettings.model_validate({**base, "input": {"fit": "tile"}}).input.fit == "tile"


@pytest.mark.parametrize(
    "part", [{"split": {}}, {"synthesis": {"preset": "published"}}, {"real_pairs": {"folder": None}}]
)
def test_a_part_at_its_default_does_no_harm(part: dict[str, Any]) -> None:
    assert RecipeSettings.model_validate({**TWO_DATE, **part}) == RecipeSettings.model_validate(TWO_DATE)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"source": {"layout": "folders"}}, ("source", "layout")),
        ({"input": {"fit": "crop"}}, ("input", "fit")),
        ({"input": {"overlap": 1.0}}, ("input", "overlap")),
        ({"threshold": {"fixed": 0.0}}, ("threshold", "fixed")),
        ({**TWO_DATE, "augmentation": {"scale": [2, 1]}}, ("augmentation", "scale")),
        ({**TWO_DATE, "augmentation": {"flip": 1}}, ("augmentation", "flip")),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(
    settings: dict[str, Any], place: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as caught:
        RecipeSettings.model_validate(settings)
    assert [error["loc"] for error in caught.value.errors()] == [place]


def test_the_layout_decides_the_first_assets() -> None:
    photos, pairs = Recipe(name="rooms"), Recipe.model_validate({"name": "levir", **TWO_DATE})
    assert (photos.raw_asset, photos.sample_assets) == ("raw_photos", ["pair_manifest", "change_masks"])
    assert (pairs.raw_asset, pairs.sample_assets) == ("raw_pairs", ["pair_manifest"])
    assert (photos.split_asset, pairs.split_asset) == ("split", "raw_pairs")
    for base in (IMAGES, VOC):
        images = Recipe.model_validate({"name": "cracks", **base})
        assert (images.raw_asset, images.sample_assets) == ("raw_images", ["image_manifest"])
        assert (images.split_asset, images.manifest) == ("split", ("image_manifest", "images.parquet"))
        assert images.package == "segmenter.mlpackage"
    assert photos.manifest == pairs.manifest == ("pair_manifest", "pairs.parquet")
    assert photos.package == pairs.package == "change_detector.mlpackage"


def test_the_rows_of_pairs_of_a_folder_depend_on_size_and_fit_alone() -> None:
    def version(**changes: object) -> str:
        return Recipe.model_validate({"name": "levir", **TWO_DATE, **changes}).plan_version

    plain = version()
    assert version(training={"epochs": 3}) == version(augmentation={}) == plain
    assert version(prediction={"overlap": 0.5}) == plain
    assert len({plain, version(input={"size": 512}), version(input={"fit": "tile"})}) == 3


LAYOUTS = {"rooms": "labelled_photos", "levir": "two_date", "cracks": "masked_images", "voc": "voc"}


def test_every_recipe_file_is_known() -> None:
    assert {path.parent.name for path in DEFS.glob("*/defs.yaml")} == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_recipe_files_are_valid_and_survive_as_plain_values(name: str) -> None:
    content = yaml.safe_load((DEFS / name / "defs.yaml").read_text(encoding="utf-8"))
    recipe = Recipe.model_validate({"name": name, **content["attributes"]})
    assert recipe.source.layout == LAYOUTS[name]
    assert Recipe.model_validate(recipe.plain()) == recipe


@pytest.mark.parametrize("base", [IMAGES, VOC])
@pytest.mark.parametrize(
    ("part", "name"),
    [({"synthesis": {"preset": "realistic"}}, "synthesis"), ({"real_pairs": {"folder": "/p"}}, "real_pairs")],
)
def test_a_part_that_images_have_no_use_for_is_refused_by_name(
    base: dict[str, Any], part: dict[str, Any], name: str
) -> None:
    layout = base["source"]["layout"]
    message = f"{name}: no part of a recipe with source.layout {layout}; leave it out"
    assert message in refusal({**base, **part})


def test_several_classes_have_no_threshold() -> None:
    message = "threshold: no part of a recipe with source.layout voc; leave it out"
    assert message in refusal({**VOC, "threshold": {"pairs": "own"}})
    assert not Recipe.model_validate({"name": "voc", **VOC}).has_threshold
    for base in (TWO_DATE, IMAGES, dict[str, Any]()):
        assert Recipe.model_validate({"name": "a", **base}).has_threshold


def test_realistic_pairs_cannot_choose_the_threshold_of_images() -> None:
    message = "threshold.pairs: realistic pairs are drawn from labelled photos; set it to own"
    assert message in refusal({**IMAGES, "threshold": {}})


@pytest.mark.parametrize("base", [dict[str, Any](), TWO_DATE], ids=["labelled_photos", "two_date"])
def test_clahe_and_an_exact_split_are_for_images(base: dict[str, Any]) -> None:
    layout = base.get("source", {}).get("layout", "labelled_photos")
    assert f"input.clahe is not for source.layout {layout}" in refusal({**base, "input": {"clahe": 2.0}})
    # in two_date the whole part is refused
    assert f"source.layout {layout}; leave it out" in refusal({**base, "split": {"exact": True}})
    for images in (IMAGES, VOC):
        recipe = RecipeSettings.model_validate({**images, "input": {"clahe": 2.0}, "split": {"exact": True}})
        assert (recipe.input.clahe, recipe.split.exact) == (2.0, True)


@pytest.mark.parametrize(
    ("base", "name", "message"),
    [
        (
            {},
            "unet",
            "unet takes 1 pictures, source.layout labelled_photos gives 2; use one of: tiny_change_unet",
        ),
        (TWO_DATE, "resunet", "resunet takes 1 pictures, source.layout two_date gives 2; use one of: tiny_"),
        (
            IMAGES,
            "tiny_cd",
            "tiny_cd takes 2 pictures, source.layout masked_images gives 1; use one of: unet",
        ),
        (VOC, "siamese_unet", "siamese_unet takes 2 pictures, source.layout voc gives 1; use one of: unet,"),
    ],
)
def test_a_network_of_another_number_of_pictures_is_refused_with_those_that_fit(
    base: dict[str, Any], name: str, message: str
) -> None:
    assert f"model.name {message}" in refusal({**base, "model": {"name": name}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**VOC, "training": {}}, "training.loss change is of one class, there are 21; use ce or ce_dice"),
        ({**VOC, "training": {"loss": "bce_dice"}}, "training.loss bce_dice is of one class, there are 21"),
        ({**IMAGES, "training": {"loss": "ce"}}, "training.loss ce is of several classes, there is one"),
        ({"training": {"loss": "ce_dice"}}, "training.loss ce_dice is of several classes, there is one"),
        (
            {**IMAGES, "training": {"loss": "dice", "class_weights": "inverse"}},
            "training.class_weights: there is one class; leave it out",
        ),
        ({**VOC, "prediction": {"opening": 3}}, "opening and min_area are for masks of one class"),
        ({**VOC, "prediction": {"min_area": 50}}, "opening and min_area are for masks of one class"),
    ],
)
def test_a_loss_or_a_cleaning_of_another_task_is_refused(settings: dict[str, Any], message: str) -> None:
    assert message in refusal(settings)


@pytest.mark.parametrize("loss", ["ce", "ce_dice", "dice", "focal", "focal_dice", "tversky", "focal_tversky"])
@pytest.mark.parametrize("weights", ["none", "inverse"])
def test_losses_of_several_classes_take_class_weights(loss: str, weights: str) -> None:
    training = {"loss": loss, "class_weights": weights}
    assert RecipeSettings.model_validate({**VOC, "training": training}).training.class_weights == weights


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"classes": 1}, "classes"),
        ({"classes": 3, "class_names": ["a", "b"]}, "3 classes need as many names, found 2: a, b"),
        ({"classes": 2, "class_names": ["a", "a"]}, "every class needs a name of its own, found twice: a"),
        ({"classes": 2, "class_names": ["a", "void"], "void_as_class": True}, "found twice: void"),
        ({"void": None, "void_as_class": True}, "void_as_class: there is no void index; set void"),
    ],
)
def test_classes_that_do_not_fit_their_names_or_void_are_refused(
    source: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        RecipeSettings.model_validate({**VOC, "source": {"layout": "voc", **source}})


@pytest.mark.parametrize(
    ("source", "task", "names"),
    [
        ({}, Task(pictures=1, classes=21), VOC_CLASSES),
        ({"void_as_class": True}, Task(pictures=1, classes=22), (*VOC_CLASSES, "void")),
        ({"classes": 2, "void": None}, Task(pictures=1, classes=2), ("class_0", "class_1")),
        (
            {"classes": 2, "class_names": ["none", "crack"], "void": 9, "void_as_class": True},
            Task(pictures=1, classes=3),
            ("none", "crack", "void"),
        ),
    ],
)
def test_the_source_decides_the_task_and_the_names_of_its_classes(
    source: dict[str, Any], task: Task, names: tuple[str, ...]
) -> None:
    recipe = RecipeSettings.model_validate({**VOC, "source": {"layout": "voc", **source}})
    assert (recipe.task, recipe.class_names) == (task, names)
    assert recipe.mask_form.outputs == task.classes


def test_the_task_of_pairs_and_of_marked_images() -> None:
    assert RecipeSettings().task == RecipeSettings.model_validate(TWO_DATE).task == Task()
    assert RecipeSettings.model_validate(IMAGES).task == Task(pictures=1)
    assert RecipeSettings.model_validate(IMAGES).mask_form == MaskForm()


def test_the_rows_of_images_depend_on_source_split_size_fit_and_clahe_alone() -> None:
    def version(base: dict[str, Any], **changes: object) -> str:
        return Recipe.model_validate({"name": "a", **base, **changes}).plan_version

    plain = version(IMAGES)
    same = [{"training": {"epochs": 3}}, {"augmentation": {}}, {"input": {"scaling": "min_max"}}]
    assert {version(IMAGES, **change) for change in same} == {plain}
    versions = [plain, version(VOC), version(IMAGES, split={"exact": True})]
    versions += [version(IMAGES, input=change) for change in ({"size": 64}, {"fit": "tile"}, {"clahe": 2.0})]
    for source in ({"void_as_class": True}, {"classes": 5}, {"void": None}, {"palette": "any"}):
        versions.append(version(VOC, source={"layout": "voc", **source}))
    assert len(set(versions)) == len(versions)


@pytest.mark.parametrize("wrong", [{"scaling": "max"}, {"std": [0.1, 0, 0.1]}, {"mean": [0.5]}, {"clahe": 0}])
def test_a_wrong_scaling_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        RecipeSettings.model_validate({**IMAGES, "input": wrong})


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (
            IMAGES,
            {"source": {"layout": "masked_images", "classes": 5}},
            "source.classes is for source.layout voc",
        ),
        (
            IMAGES,
            {"source": {"layout": "masked_images", "bits": 12}},
            "source.bits is for source.layout two_date",
        ),
        (
            TWO_DATE,
            {"source": {"layout": "two_date", "palette": "any"}},
            "source.palette is for source.layout voc",
        ),
        (VOC, {"source": {"layout": "voc", "classes": 3, "void": 2}}, "void is 2, one of 3 classes"),
        (IMAGES, {"augmentation": {"positive_crops": 0.5}}, "set input.fit to tile"),
        (
            IMAGES,
            {"input": {"fit": "tile"}, "augmentation": {"crop": "manifest", "positive_crops": 0.5}},
            "augmentation.crop to random",
        ),
        (IMAGES, {"input": {"mean": [0.4, 0.4, 0.4]}}, "for input.scaling mean_std, found unit"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(
    base: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        RecipeSettings.model_validate({**base, **changes})
