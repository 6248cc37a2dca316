"""What every row of a manifest says, whether it is a pair of pictures or one image."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from cd_pipeline.data.task import MaskForm


class PictureFile(NamedTuple):
    """A reference, and the hash that the file must have (None: it was rendered)."""

    reference: str
    sha256: str | None = None


class Example(Protocol):
    """One row of a manifest: pictures on disk and the mask of what is marked on them."""

    @property
    def name(self) -> str:
        """Unique in its manifest and safe in file names."""

    @property
    def split(self) -> str:
        """train, val or test."""

    @property
    def class_name(self) -> str:
        """The group that it is reported with: the class of its photo, or its data set."""

    @property
    def pictures(self) -> Sequence[PictureFile]:
        """Before and after, or one image."""

    @property
    def mask(self) -> str | None:
        """Reference of the mask; None: drawn anew each epoch."""

    @property
    def mask_sha256(self) -> str | None:
        """The hash that the mask must have; None: it was rendered."""

    @property
    def mask_form(self) -> MaskForm:
        """How the mask holds its classes."""

    @property
    def valid(self) -> str | None:
        """Reference of the pixels that count; None: all do, but void."""

    @property
    def crop(self) -> Mapping[str, int] | None:
        """The part of the pictures that the row is, in px; None: all of them."""

    @property
    def tiled(self) -> bool:
        """Whether a network sees it in tiles at its own scale, or resized."""

    @property
    def own_size(self) -> bool:
        """Whether it is scored at its own size."""

    @property
    def width(self) -> int:
        """Of the whole pictures, px."""

    @property
    def height(self) -> int:
        """Of the whole pictures, px."""

    @property
    def bits(self) -> int:
        """Significant bits of 16-bit pictures."""

    @property
    def clahe(self) -> float | None:
        """Clip limit of the contrast equalisation of the whole pictures; None: they are as they are."""

    @property
    def seed(self) -> int:
        """Of everything that is drawn for it."""
