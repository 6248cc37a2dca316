"""A recipe: every setting of one data set's pipeline, validated. No dagster here."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cd_pipeline.data.files import digest
from cd_pipeline.data.settings import AugmentationSettings, InputSettings, SplitSettings
from cd_pipeline.models.settings import ModelSettings
from cd_pipeline.synthesis.settings import PublishedSynthesis, RealisticSynthesis, SynthesisSettings
from cd_pipeline.training.settings import SweepSettings, TrainingSettings

DEFAULT_RECIPE = "rooms"
"""The recipe whose asset keys carry no prefix."""
OTHER_LAYOUT = {
    "labelled_photos": ("augmentation",),
    "two_date": ("split", "synthesis", "real_pairs"),
}
"""What a layout has no use for."""


class SourceSettings(BaseModel):
    """Where the raw data lies."""

    model_config = ConfigDict(extra="forbid")

    layout: Literal["labelled_photos", "two_date"] = Field(
        default="labelled_photos",
        description="labelled_photos: images/<class>/ beside labels/<class>/ in YOLO form, once or in trainval/ "
        "and test/, from which pairs are made; two_date: {train,val,test}/{A,B,label}/, or {A,B,label}/ "
        "with list/{train,val,test}.txt",
    )
    bits: int = Field(
        default=16, ge=8, le=16, description="two_date: significant bits of 16-bit pictures, such as 11 or 12"
    )
    folder: str | None = Field(
        default=None,
        description="your own data, never written to; CD_PIPELINE_<RECIPE> in the environment goes first; "
        "none: sample data is drawn",
    )


class RealPairsSettings(BaseModel):
    """Photos really taken at two times, to look at in the end. They choose nothing."""

    model_config = ConfigDict(extra="forbid")

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
    realistic_pairs: int = Field(default=300, ge=1, description="how many are drawn")
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


class PredictionSettings(BaseModel):
    """How large pictures are predicted."""

    model_config = ConfigDict(extra="forbid")

    overlap: float = Field(
        default=0.25, ge=0, lt=1, description="of neighbouring tiles, as a share of the input size"
    )


class ExportSettings(BaseModel):
    """The Core ML package, and how closely it must agree with the checkpoint."""

    model_config = ConfigDict(extra="forbid")

    precision: Literal["float16", "mixed", "float32"] = Field(
        default="float16",
        description="the lowest; where it breaks a limit below, mixed (float32 for the ops that read tensors "
        "of the images' own size) and then float32 are tried",
    )
    max_probability_difference: float = Field(default=0.02, gt=0, le=1)
    min_mask_iou: float = Field(default=0.99, ge=0, le=1)
    max_flipped_share: float = Field(default=0.001, ge=0, le=1)

    def limits(self) -> dict[str, float]:
        """Return the limits of agreement by name."""
        return self.model_dump(exclude={"precision"})


class RecipeSettings(BaseModel):
    """What a recipe file can set; every part has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    augmentation: AugmentationSettings | None = Field(
        default=None, description="of training pairs in a two-date folder; none: they are as they are"
    )

    @model_validator(mode="after")
    def _parts_of_the_layout(self) -> Self:
        layout = self.source.layout
        for name in OTHER_LAYOUT[layout]:
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if getattr(self, name) != default:
                raise ValueError(f"{name}: no part of a recipe with source.layout {layout}; leave it out")
        if layout == "two_date" and self.threshold.pairs != "own":
            raise ValueError("threshold.pairs: realistic pairs are drawn from labelled photos; set it to own")
        if layout == "labelled_photos" and self.input.fit != "resize":
            raise ValueError("input.fit: tile is for source.layout two_date; leave it out")
        return self


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
        """Hash of the settings that pairs are planned with; published pairs have the photo's size."""
        if self.source.layout == "two_date":
            return digest(self.source.layout, self.source.bits, self.input.fit, self.input.size)
        size = self.input.size if isinstance(self.synthesis, RealisticSynthesis) else None
        return digest(self.synthesis.model_dump_json(), size)

    @property
    def raw_asset(self) -> str:
        """The first asset: it observes the raw folder."""
        return "raw_pairs" if self.source.layout == "two_date" else "raw_photos"

    @property
    def pair_assets(self) -> list[str]:
        """The assets that pairs are read from."""
        return ["pair_manifest"] if self.source.layout == "two_date" else ["pair_manifest", "change_masks"]

    def asset_key(self, asset: str) -> list[str]:
        """Return the key of one of the recipe's assets."""
        return [asset] if self.name == DEFAULT_RECIPE else [self.name, asset]

    def plain(self) -> dict[str, Any]:
        """Return all settings as plain values, for the checkpoint."""
        return self.model_dump(mode="json")
