"""A card an example: its pictures, what was found and missed, and its scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cd_pipeline.data.example import Example
from cd_pipeline.data.images import Image, read_mask
from cd_pipeline.data.palette import Palette
from cd_pipeline.data.samples import Roots, Sample, load_sample, spread
from cd_pipeline.data.voc import read_indices
from cd_pipeline.evaluation.figures import Cell, fitted_mask
from cd_pipeline.evaluation.report_page.thumbnails import (
    UNCOUNTED,
    classes_uri,
    mask_uri,
    photo_uri,
    resized_classes,
    thumbnail_size,
)

MOST_CARDS = 400
"""Of a larger set half of the cards are the worst examples, and half are evenly spaced others."""
MANY_CARDS = 120
"""From here on pictures are smaller."""
SIDE, SMALL_SIDE = 320, 240
"""Longer side of a picture, px."""
ALL_PICTURES, ONE_PICTURE = 8_400_000, 42_000
"""Bytes, before base64 makes 4 of 3, so that a page stays below 15 MB."""
REMEDY = "materialize test_predictions again"


@dataclass(frozen=True)
class Card:
    """One example.

    Attributes:
        number: of its row in the scores.
        name: of the example.
        group: the class of its photo, or its data set; "" where there is one for all.
        classes: what it can be found by: its group, or the names of the classes in truth or prediction.
        size: height and width of the pictures, px.
        pictures: data URIs of before and after, or of the image.
        layers: data URIs by name, "" where nothing is marked. Of one class masks: `found`, `false_alarm`, `missed`.
            Of several: `truth` and `prediction` in their colours, and the mask `wrong`.
        scores: by name, None where no pixel counts.
        changed: whether something is marked in the truth; None: of several classes.
        alarm: whether an unchanged pair raised a false alarm; None: it is none.
    """

    number: int
    name: str
    group: str
    classes: tuple[str, ...]
    size: Cell
    pictures: tuple[str, ...]
    layers: dict[str, str]
    scores: dict[str, float | None]
    changed: bool | None = None
    alarm: bool | None = None


def chosen_examples(score: Sequence[float], most: int = MOST_CARDS) -> list[int]:
    """Choose the examples that get a card, by number, ascending.

    All where there are at most `most`; otherwise the worst, and as many of the others, evenly spaced.

    Args:
        score: of each example; higher is better, NaN (no pixel counts) is best.
        most: how many.
    """
    if len(score) <= most:
        return list(range(len(score)))
    order = np.argsort(np.nan_to_num(np.asarray(score, float), nan=np.inf), kind="stable").tolist()
    worst = order[: most // 2]
    return sorted([*worst, *spread(sorted(order[most // 2 :]), most - len(worst))])


def require_scores(path: Path, scores: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse scores that are not those of some examples, in their order.

    Raises:
        ValueError: naming the file of the scores, and the remedy.
    """
    if "file" not in scores.columns or scores["file"].tolist() != [f"{name}.png" for name in names]:
        raise ValueError(f"{path}: its rows are not the test examples of the manifest; {REMEDY}")


@dataclass(frozen=True)
class CardMaker:
    """Makes the cards of a test set.

    Attributes:
        roots: where the pictures of the manifest are.
        folder: where the predictions are.
        cards: how many there will be; it decides how large the pictures are.
        names: of the classes; empty: there is one.
        palette: their colours.
        many_groups: whether the examples are of several classes or data sets.
    """

    roots: Roots
    folder: Path
    cards: int
    names: tuple[str, ...] = ()
    palette: Palette | None = None
    many_groups: bool = True

    def make(self, number: int, example: Example, scores: Mapping[str, Any]) -> Card:
        """Make the card of an example.

        Args:
            number: of its row in the scores.
            example: row of the manifest.
            scores: that row, with `file`, and `f1`, `iou` or `miou`, `pixel_accuracy`; of pairs also `alarm`.

        Raises:
            FileNotFoundError, ValueError: a picture is missing, or is not what manifest or scores are about.
        """
        sample = load_sample(example, self.roots)
        predicted = self._predicted(str(scores["file"]), sample)
        height, width = sample.mask.shape
        size = thumbnail_size(height, width, self._side)
        layers = (
            self._of_classes(sample, predicted, size) if self.names else _of_masks(sample, predicted, size)
        )
        pictures = tuple(photo_uri(picture, size, self._limit(example)) for picture in sample.pictures)
        group = example.class_name if self.many_groups else ""
        pairs = len(sample.pictures) == 2
        changed = None if self.names else bool(sample.mask.any())
        return Card(
            number=number,
            name=example.name,
            group=group,
            classes=self._classes_in(sample, predicted) if self.names else (group,) if group else (),
            size=size,
            pictures=pictures,
            layers=layers,
            scores={name: _plain(float(scores[name])) for name in self._shown},
            changed=changed,
            alarm=bool(scores["alarm"]) if pairs and not changed else None,
        )

    @cached_property
    def _shown(self) -> tuple[str, ...]:
        return ("miou", "pixel_accuracy") if self.names else ("f1", "iou")

    @cached_property
    def _side(self) -> int:
        return SIDE if self.cards <= MANY_CARDS else SMALL_SIDE

    def _limit(self, example: Example) -> int:
        return min(ONE_PICTURE, ALL_PICTURES // (self.cards * len(example.pictures)))

    def _predicted(self, file: str, sample: Sample) -> Image:
        path = self.folder / file
        if not path.is_file():
            raise FileNotFoundError(f"{path}: the prediction is not there; {REMEDY}")
        found = read_indices(path, palette=None, void=None) if self.names else read_mask(path, REMEDY)
        if found.shape != sample.mask.shape:
            sizes = " ".join(f"{shape[1]}x{shape[0]}" for shape in (found.shape, sample.mask.shape))
            raise ValueError(f"{path}: prediction and truth are not of one size: {sizes}; {REMEDY}")
        if self.names and int(found.max()) >= len(self.names):
            raise ValueError(f"{path}: index {found.max()} is none of {len(self.names)} classes; {REMEDY}")
        return found

    def _classes_in(self, sample: Sample, predicted: Image) -> tuple[str, ...]:
        counted = _counted(sample)
        indices = {*np.unique(sample.mask[counted]).tolist(), *np.unique(predicted[counted]).tolist()}
        return tuple(self.names[index] for index in sorted(indices))

    def _of_classes(self, sample: Sample, predicted: Image, size: Cell) -> dict[str, str]:
        assert self.palette is not None
        counted = resized_classes(_counted(sample).astype(np.uint8), size) > 0
        truth = np.where(_counted(sample), sample.mask, np.uint8(UNCOUNTED))
        wrong = resized_classes(sample.mask, size) != resized_classes(predicted, size)
        return {
            "truth": classes_uri(truth, size, self.palette),
            "prediction": classes_uri(predicted, size, self.palette),
            "wrong": mask_uri((wrong & counted).astype(np.uint8)),
        }


def _of_masks(sample: Sample, predicted: Image, size: Cell) -> dict[str, str]:
    counted = _counted(sample).astype(np.uint8)
    truth, marked = fitted_mask(sample.mask * counted, size) > 0, fitted_mask(predicted * counted, size) > 0
    layers = {"found": truth & marked, "false_alarm": marked & ~truth, "missed": truth & ~marked}
    return {name: mask_uri(mask.astype(np.uint8)) for name, mask in layers.items()}


def _counted(sample: Sample) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
    return np.ones(sample.mask.shape, bool) if sample.valid is None else sample.valid > 0


def _plain(value: float) -> float | None:
    return value if isfinite(value) else None
