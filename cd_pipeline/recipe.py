"""A recipe: every setting of one data set's pipeline, validated. No dagster here."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cd_pipeline.data.classes import VOC_CLASSES, VOID, class_names
from cd_pipeline.data.files import digest
from cd_pipeline.data.settings import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    AugmentationSettings,
    InputSettings,
    SplitSettings,
)
from cd_pipeline.data.task import MaskForm, Task
from cd_pipeline.engine.settings import EngineSettings
from cd_pipeline.models.settings import NETWORK_OPTIONS, ONE_IMAGE_NETWORKS, ModelSettings
from cd_pipeline.synthesis.settings import PublishedSynthesis, RealisticSynthesis, SynthesisSettings
from cd_pipeline.training.settings import OF_ONE_CLASS, OF_SEVERAL_CLASSES, SweepSettings, TrainingSettings

DEFAULT_RECIPE = "rooms"
"""The recipe whose asset keys carry no prefix."""
Layout = Literal["labelled_photos", "two_date", "masked_images", "voc"]
IMAGE_LAYOUTS = ("masked_images", "voc")
"""One image and its mask; the others are pairs of pictures."""
OTHER_LAYOUT: Mapping[str, tuple[str, ...]] = {
    "labelled_photos": ("augmentation",),
    "two_date": ("split", "synthesis", "real_pairs"),
    "masked_images": ("synthesis", "real_pairs"),
    "voc": ("synthesis", "real_pairs", "threshold"),
}
"""What a layout has no use for."""
ONLY_OF_LAYOUT: Mapping[str, Layout] = {
    "bits": "two_date",
    **dict.fromkeys(("classes", "class_names", "void", "void_as_class", "palette"), "voc"),
}
"""The layout that a part of `source` is for."""


class SourceSettings(BaseModel):
    """Where the raw data lies."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    layout: Layout = Field(
        default="labelled_photos",
        description="labelled_photos: images/<class>/ beside labels/<class>/ in YOLO form, once or in trainval/ "
        "and test/, from which pairs are made; two_date: {train,val,test}/{A,B,label}/, or {A,B,label}/ "
        "with list/{train,val,test}.txt; masked_images: images/ and masks/, files matched by stem, directly or in "
        "each of several data sets; voc: JPEGImages/ and SegmentationClass/, a palette PNG each, with "
        "ImageSets/Segmentation/{train,val,test}.txt or without",
    )
    bits: int = Field(
        default=16, ge=8, le=16, description="two_date: significant bits of 16-bit pictures, such as 11 or 12"
    )
    classes: int = Field(
        default=len(VOC_CLASSES), ge=2, le=255, description="voc: how many, background included, void not"
    )
    class_names: tuple[str, ...] | None = Field(
        default=None, description="voc: in the order of their indices; none: VOC's for 21, otherwise numbers"
    )
    void: int | None = Field(
        default=VOID,
        ge=0,
        le=255,
        description="voc: the index of borders, that is no class; none: there is none",
    )
    void_as_class: bool = Field(
        default=False,
        description="voc: void is learnt as one more class, the last (published); false: its pixels count neither "
        "in the loss nor in any metric",
    )
    palette: Literal["voc", "any"] = Field(
        default="voc", description="voc: masks of other colours are refused; any: the indices alone count"
    )
    folder: str | None = Field(
        default=None,
        description="your own data, never written to; CD_PIPELINE_<RECIPE> in the environment goes first; "
        "none: sample data is drawn",
    )

    @model_validator(mode="after")
    def _classes_are_named(self) -> Self:
        class_names(self.classes, self.class_names, void_as_class=self.void_as_class)
        if self.void_as_class and self.void is None:
            raise ValueError("void_as_class: there is no void index; set void, or leave void_as_class out")
        if self.void is not None and self.void < self.classes:
            raise ValueError(
                f"void is {self.void}, one of {self.classes} classes, 0 to {self.classes - 1}; "
                "set classes to those that come before it, or void to null"
            )
        return self


class RealPairsSettings(BaseModel):
    """Photos really taken at two times, to look at in the end. They choose nothing."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    folder: str | None = Field(
        default=None,
        description="A/ before, B/ after, label/ what changed, files paired by name; "
        "CD_PIPELINE_<RECIPE>_PAIRS in the environment goes first; none: the asset real_pairs is skipped",
    )


class ThresholdSettings(SweepSettings):
    """How the threshold is chosen on val, by F1 pooled over pixels."""

    pairs: Literal["realistic", "own"] = Field(
        default="realistic",
        description="realistic: the measuring protocol's pairs, drawn from the val photos, whatever training "
        "used; own: the val pairs of the manifest, as published, and where kinds are held out",
    )
    realistic_pairs: int = Field(default=300, ge=1, le=100_000, description="how many are drawn")
    tolerance: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="the highest threshold whose F1 is at most this far from the best is taken: it raises the "
        "fewest false alarms. About one standard error of F1 on 300 pairs of 33 photos, as in the rule of "
        "Breiman et al. 1984; published: 0",
    )
    fixed: float | None = Field(
        default=None, gt=0, lt=1, description="this threshold, whatever is best on val; none: it is chosen"
    )
    smooth: bool = Field(
        default=False,
        description="3x3 average pool > 0.5 on predicted masks; the sweep is made without it",
    )

    @property
    def choice(self) -> dict[str, Any]:
        """What the chosen threshold depends on."""
        return self.model_dump(exclude={"smooth"})


class PredictionSettings(BaseModel):
    """How large pictures are predicted, and what is cleaned away."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    overlap: float = Field(
        default=0.25, ge=0, lt=1, description="of neighbouring tiles, as a share of the input size"
    )
    opening: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="masks: side in px of the square that a marked area must hold (published: 3); 0: any",
    )
    min_area: int = Field(
        default=0, ge=0, description="masks: px of the smallest marked area (published: 50); 0: any"
    )


class ExportSettings(BaseModel):
    """The Core ML package, and how closely it must agree with the checkpoint."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    precision: Literal["float16", "mixed", "float32"] = Field(
        default="float16",
        description="the lowest; where it breaks a limit below, mixed (float32 for the ops that read tensors "
        "of the images' own size) and then float32 are tried",
    )
    mask: bool = Field(
        default=False,
        description="one class: the package also gives the mask, as a grayscale image of 0 and 255",
    )
    onnx: bool = Field(default=False, description="an ONNX file too; needs the extra onnx")
    author: str = Field(default="", description="shown by Xcode and in the model card; empty: not stated")
    license: str = Field(default="", description="of the trained model, as its data allow; empty: not stated")
    version: str | None = Field(
        default=None, description="shown by Xcode; none: the first 12 digits of the checkpoint's version"
    )
    max_probability_difference: float = Field(default=0.02, gt=0, le=1)
    min_mask_iou: float = Field(default=0.99, ge=0, le=1)
    max_flipped_share: float = Field(default=0.001, ge=0, le=1)

    @field_validator("onnx")
    @classmethod
    def _its_extra_is_installed(cls, wanted: bool) -> bool:
        missing = [
            name for name in ("onnx", "onnxruntime", "onnxscript") if wanted and find_spec(name) is None
        ]
        if missing:
            raise ValueError(
                f"needs {', '.join(missing)}: pip install -c constraints.txt -e '.[onnx]', or leave it out"
            )
        return wanted

    def limits(self) -> dict[str, float]:
        """Return the limits of agreement by name."""
        names = ("max_probability_difference", "min_mask_iou", "max_flipped_share")
        return self.model_dump(include=set(names))


class ReleaseSettings(BaseModel):
    """When a new package replaces the shipped one, and how many are kept."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    margin: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="of test F1, or of several classes of the images' mean IoU: what a new package may lose at most",
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="with which it must be shown that it loses no more"
    )
    resamples: int = Field(default=2000, ge=100, description="of the test photos, by the bootstrap")
    keep: int = Field(
        default=5,
        ge=0,
        description="versions kept besides the shipped one and the newest rejected; those shipped before go first",
    )
    seed: int = Field(default=42, ge=0)

    @property
    def rule(self) -> dict[str, Any]:
        """What a decision depends on."""
        return self.model_dump(exclude={"keep"})


class AutomationSettings(BaseModel):
    """When a recipe runs by itself, once its schedule or sensor is switched on."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    cron: str = Field(default="0 3 * * 1", description="of retraining: minute hour day month weekday, in UTC")
    quiet_seconds: float = Field(
        default=60, ge=0, description="that the raw folder must be at rest before the sensor starts a run"
    )


class RecipeSettings(BaseModel):
    """What a recipe file can set; every part has a default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    source: SourceSettings = Field(default_factory=SourceSettings)
    split: SplitSettings = Field(default_factory=SplitSettings)
    synthesis: SynthesisSettings = Field(default_factory=PublishedSynthesis)
    input: InputSettings = Field(default_factory=InputSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    threshold: ThresholdSettings = Field(default_factory=ThresholdSettings)
    prediction: PredictionSettings = Field(default_factory=PredictionSettings)
    export: ExportSettings = Field(default_factory=ExportSettings)
    real_pairs: RealPairsSettings = Field(default_factory=RealPairsSettings)
    release: ReleaseSettings = Field(default_factory=ReleaseSettings)
    automation: AutomationSettings = Field(default_factory=AutomationSettings)
    compute: EngineSettings = Field(default_factory=EngineSettings)
    augmentation: AugmentationSettings | None = Field(
        default=None, description="of training samples that lie in a folder; none: they are as they are"
    )

    @model_validator(mode="after")
    def _parts_of_the_layout(self) -> Self:
        layout = self.source.layout
        for name in OTHER_LAYOUT[layout]:
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if getattr(self, name) != default:
                raise ValueError(f"{name}: no part of a recipe with source.layout {layout}; leave it out")
        if layout in ("two_date", "masked_images") and self.threshold.pairs != "own":
            raise ValueError("threshold.pairs: realistic pairs are drawn from labelled photos; set it to own")
        default_source = SourceSettings()
        for name in ONLY_OF_LAYOUT:
            if layout != ONLY_OF_LAYOUT[name] and getattr(self.source, name) != getattr(default_source, name):
                raise ValueError(f"source.{name} is for source.layout {ONLY_OF_LAYOUT[name]}; leave it out")
        if layout == "labelled_photos" and self.input.fit != "resize":
            raise ValueError(f"input.fit: tile is not for source.layout {layout}; leave it out")
        if layout not in IMAGE_LAYOUTS and self.input.clahe is not None:
            raise ValueError(f"input.clahe is not for source.layout {layout}; leave it out")
        if layout not in IMAGE_LAYOUTS and self.split.exact:
            raise ValueError(f"split.exact is not for source.layout {layout}; leave it out")
        return self

    @model_validator(mode="after")
    def _nothing_is_without_effect(self) -> Self:
        drawn = (
            self.input.fit == "tile" and self.augmentation is not None and self.augmentation.crop == "random"
        )
        if self.augmentation is not None and self.augmentation.positive_crops and not drawn:
            raise ValueError(
                "augmentation.positive_crops is of random crops: set input.fit to tile and augmentation.crop to "
                "random, or leave it out"
            )
        scaled = (self.input.mean, self.input.std) != (IMAGENET_MEAN, IMAGENET_STD)
        if scaled and self.input.scaling != "mean_std":
            raise ValueError(f"input.mean and std are for input.scaling mean_std, found {self.input.scaling}")
        return self

    @model_validator(mode="after")
    def _network_and_loss_are_for_the_task(self) -> Self:
        task = self.task
        if self.model.pictures != task.pictures:
            takers = [
                name for name in NETWORK_OPTIONS if (name in ONE_IMAGE_NETWORKS) == (task.pictures == 1)
            ]
            raise ValueError(
                f"model.name {self.model.name} takes {self.model.pictures} pictures, source.layout "
                f"{self.source.layout} gives {task.pictures}; use one of: {', '.join(takers)}"
            )
        loss = self.training.loss
        if task.multi_class and loss in OF_ONE_CLASS:
            raise ValueError(
                f"training.loss {loss} is of one class, there are {task.classes}; use ce or ce_dice"
            )
        if not task.multi_class and loss in OF_SEVERAL_CLASSES:
            raise ValueError(f"training.loss {loss} is of several classes, there is one; use bce or bce_dice")
        if not task.multi_class and self.training.class_weights != "none":
            raise ValueError("training.class_weights: there is one class; leave it out")
        if task.multi_class and (self.prediction.opening or self.prediction.min_area):
            raise ValueError("prediction: opening and min_area are for masks of one class; leave them out")
        if task.multi_class and self.export.mask:
            raise ValueError(
                "export.mask is of one class; a package of several gives class_map. Leave it out"
            )
        return self

    @property
    def one_image(self) -> bool:
        """Whether samples are single images; otherwise they are pairs."""
        return self.source.layout in IMAGE_LAYOUTS

    @property
    def mask_form(self) -> MaskForm:
        """How the masks of the source hold their classes."""
        source = self.source
        if source.layout != "voc":
            return MaskForm()
        return MaskForm(source.classes, source.void, source.void_as_class)

    @property
    def task(self) -> Task:
        """What the network is given and answers."""
        return Task(pictures=1 if self.one_image else 2, classes=self.mask_form.outputs)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that the network tells apart, in the order of their indices."""
        source = self.source
        return class_names(source.classes, source.class_names, void_as_class=source.void_as_class)


class Recipe(RecipeSettings):
    """All settings of one pipeline, and its name."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")

    @property
    def environment_variable(self) -> str:
        """The variable that points the recipe at a folder."""
        return f"CD_PIPELINE_{self.name.upper()}"

    @property
    def pairs_variable(self) -> str:
        """The variable that points the recipe at a folder of real pairs."""
        return f"{self.environment_variable}_PAIRS"

    @property
    def held_out_kinds(self) -> list[str]:
        """The kinds of change that only test holds."""
        return self.synthesis.held_out_kinds if isinstance(self.synthesis, RealisticSynthesis) else []

    @property
    def plan_version(self) -> str:
        """Hash of the settings that the manifest depends on; published pairs have the photo's size."""
        source = self.source
        if source.layout == "two_date":
            return digest(source.layout, source.bits, self.input.fit, self.input.size)
        if self.one_image:
            return digest(self.split_version, self.input.fit, self.input.size, self.input.clahe)
        size = self.input.size if isinstance(self.synthesis, RealisticSynthesis) else None
        return digest(self.synthesis.model_dump_json(), size)

    @property
    def source_version(self) -> str:
        """Hash of the settings that decide what is found in the raw folder, wherever it lies."""
        return digest(self.source.model_dump_json(exclude={"folder", "class_names"}))

    @property
    def split_version(self) -> str:
        """Hash of the settings that the split depends on."""
        return digest(self.source_version, self.split.model_dump_json())

    @property
    def raw_asset(self) -> str:
        """The first asset: it observes the raw folder."""
        if self.one_image:
            return "raw_images"
        return "raw_pairs" if self.source.layout == "two_date" else "raw_photos"

    @property
    def split_asset(self) -> str:
        """The asset that knows each picture's split."""
        return "raw_pairs" if self.source.layout == "two_date" else "split"

    @property
    def manifest(self) -> tuple[str, str]:
        """The asset that makes the manifest, and its file."""
        return ("image_manifest", "images.parquet") if self.one_image else ("pair_manifest", "pairs.parquet")

    @property
    def sample_assets(self) -> list[str]:
        """The assets that samples are read from."""
        rendered = self.source.layout == "labelled_photos"
        return [self.manifest[0], "change_masks"] if rendered else [self.manifest[0]]

    @property
    def mask_rule(self) -> dict[str, Any]:
        """How test masks are made of probabilities, and what their classes are called."""
        names = list(self.class_names) if self.task.multi_class else []
        return {"smooth": self.threshold.smooth, **self.prediction.model_dump(), "class_names": names}

    @property
    def has_threshold(self) -> bool:
        """Whether probabilities meet a threshold; of several classes the most probable one is taken."""
        return not self.task.multi_class

    @property
    def package(self) -> str:
        """The name of the Core ML package."""
        return "segmenter.mlpackage" if self.one_image else "change_detector.mlpackage"

    @property
    def torchscript(self) -> str:
        """The name of the TorchScript file."""
        return "segmenter_ts.pt" if self.one_image else "change_ts.pt"

    @property
    def onnx(self) -> str | None:
        """The name of the ONNX file, where one is asked for."""
        return Path(self.package).with_suffix(".onnx").name if self.export.onnx else None

    def asset_key(self, asset: str) -> list[str]:
        """Return the key of one of the recipe's assets."""
        return [asset] if self.name == DEFAULT_RECIPE else [self.name, asset]

    def plain(self) -> dict[str, Any]:
        """Return all settings as plain values, for the checkpoint; where they are computed is none of them."""
        return self.model_dump(mode="json", exclude={"compute"})
