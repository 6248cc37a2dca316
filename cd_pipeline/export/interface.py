"""What one must know to use an exported network: the same facts in every form of it, as text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from cd_pipeline.data.task import Task

if TYPE_CHECKING:
    from cd_pipeline.recipe import Recipe
    from cd_pipeline.training.checkpoint import Checkpoint

Fit = Literal["resize", "tile"]


@dataclass(frozen=True, slots=True)
class ModelInterface:
    """How pictures become what a network is given, and its probabilities masks.

    Attributes:
        task: how many pictures it takes, and how many classes it tells apart.
        size: side of its input, px.
        fit: resize: whole pictures are resized to the input size, by area; tile: they are predicted at their
            own scale in overlapping tiles of the input size.
        overlap: of the tiles, px.
        threshold: above it a pixel is marked; None: of several classes the most probable one is taken.
        class_names: in the order of their indices; of one class none.
        smooth: masks are smoothed 3x3.
        opening: side of the square that a marked area must hold, px; 0: any.
        min_area: of a marked area, px; 0: any.
        clahe: clip limit of the contrast equalisation of whole pictures; None: they are as they are.
        recipe: its name.
        checkpoint_version: hash of the weights.
        data_version: hash of the manifest that they were trained on.
    """

    task: Task
    size: int
    fit: Fit = "resize"
    overlap: int = 0
    threshold: float | None = None
    class_names: tuple[str, ...] = ()
    smooth: bool = False
    opening: int = 0
    min_area: int = 0
    clahe: float | None = None
    recipe: str = ""
    checkpoint_version: str = ""
    data_version: str = ""

    def to_metadata(self) -> dict[str, str]:
        """Return it as text to text; what a network does not have is left out."""
        found = {
            "pictures": str(self.task.pictures),
            "classes": str(self.task.classes),
            "input_size": str(self.size),
            "input_fit": self.fit,
            "overlap": str(self.overlap),
            "threshold": "" if self.threshold is None else repr(self.threshold),
            "class_names": ", ".join(self.class_names),
            "smooth": "true" if self.smooth else "false",
            "opening": str(self.opening),
            "min_area": str(self.min_area),
            "clahe": "" if self.clahe is None else repr(self.clahe),
            "recipe": self.recipe,
            "checkpoint_version": self.checkpoint_version,
            "data_version": self.data_version,
        }
        return {key: value for key, value in found.items() if value}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], where: str) -> "ModelInterface":
        """Read what `to_metadata` wrote; other entries are left alone.

        Args:
            metadata: text to text.
            where: names the file in messages.

        Raises:
            ValueError: an entry is missing or cannot be read.
        """

        def number(key: str, kind: type[int] | type[float]) -> int | float | None:
            text = metadata.get(key)
            try:
                return None if text is None else kind(text)
            except ValueError:
                raise ValueError(
                    f"{where}: metadata entry {key}: found {text!r}, expected a number; export the model again"
                ) from None

        missing = [key for key in ("pictures", "classes", "input_size", "input_fit") if key not in metadata]
        if missing:
            raise ValueError(
                f"{where}: the metadata lack {', '.join(missing)}: not a model of this pipeline, or of an "
                "earlier version; export it again"
            )
        fit = metadata["input_fit"]
        if fit not in get_args(Fit):
            raise ValueError(
                f"{where}: metadata entry input_fit: found {fit!r}, expected resize or tile; export it again"
            )
        size, names = int(number("input_size", int) or 0), metadata.get("class_names", "")
        found = cls(
            task=_task(int(number("pictures", int) or 0), int(number("classes", int) or 0), where),
            size=size,
            fit="tile" if fit == "tile" else "resize",
            overlap=int(number("overlap", int) or 0),
            threshold=number("threshold", float),
            class_names=tuple(names.split(", ")) if names else (),
            smooth=metadata.get("smooth") == "true",
            opening=int(number("opening", int) or 0),
            min_area=int(number("min_area", int) or 0),
            clahe=number("clahe", float),
            recipe=metadata.get("recipe", ""),
            checkpoint_version=metadata.get("checkpoint_version", ""),
            data_version=metadata.get("data_version", ""),
        )
        found._refuse_contradictions(where)
        return found

    def _refuse_contradictions(self, where: str) -> None:
        wrong = None
        if self.size < 1:
            wrong = f"input_size: found {self.size}, expected at least 1"
        elif self.task.multi_class and len(self.class_names) != self.task.classes:
            wrong = f"class_names: found {len(self.class_names)} names, expected {self.task.classes}"
        elif not self.task.multi_class and self.threshold is None:
            wrong = "threshold: found none, expected a number for one class"
        if wrong is not None:
            raise ValueError(f"{where}: metadata entry {wrong}; export it again")


def _task(pictures: int, classes: int, where: str) -> Task:
    try:
        return Task(pictures=pictures, classes=classes)
    except ValueError:
        raise ValueError(
            f"{where}: metadata entries pictures and classes: found {pictures} and {classes}, expected 1 or 2 "
            "pictures and 1 to 256 classes; export it again"
        ) from None


def interface_of(recipe: "Recipe", saved: "Checkpoint", threshold: float | None) -> ModelInterface:
    """Return how the network of a checkpoint is used.

    Args:
        recipe: that it was trained with.
        saved: the checkpoint.
        threshold: that was chosen for it; None: none, or of several classes.
    """
    return ModelInterface(
        task=recipe.task,
        size=recipe.input.size,
        fit=recipe.input.fit,
        overlap=int(recipe.prediction.overlap * recipe.input.size),
        threshold=threshold,
        class_names=recipe.class_names if recipe.task.multi_class else (),
        smooth=recipe.threshold.smooth,
        opening=recipe.prediction.opening,
        min_area=recipe.prediction.min_area,
        clahe=recipe.input.clahe,
        recipe=recipe.name,
        checkpoint_version=saved.version,
        data_version=saved.data_version,
    )
