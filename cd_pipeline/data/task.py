"""What a network is given and what it answers."""

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field


class Task(BaseModel):
    """How many pictures a sample has, and how many classes its mask.

    `pictures`: 2 are before and after, 1 is an image. `classes`: 1 is a binary mask, one logit a pixel and a
    threshold; more are class indices, a logit each, and the largest one is the class.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pictures: int = Field(default=2, ge=1, le=2)
    classes: int = Field(default=1, ge=1, le=256)

    @property
    def multi_class(self) -> bool:
        """Whether masks hold class indices."""
        return self.classes > 1

    @property
    def picture_names(self) -> tuple[str, ...]:
        """What the pictures are called."""
        return ("before", "after") if self.pictures == 2 else ("image",)

    def plain(self) -> dict[str, int]:
        """Return plain values, for files."""
        return self.model_dump()


class MaskForm(NamedTuple):
    """How the masks on disk hold their classes.

    `classes`: 1 is a binary mask, more are class indices, void not counted. `void` is the index that is no
    class; with `void_as_class` it is learnt as one more class, the last, otherwise its pixels do not count.
    """

    classes: int = 1
    void: int | None = None
    void_as_class: bool = False

    @property
    def outputs(self) -> int:
        """Classes that a network tells apart; 1: binary."""
        return self.classes + (1 if self.void_as_class else 0)
