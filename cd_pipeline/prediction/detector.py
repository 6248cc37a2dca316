"""A trained model as a few lines of Python use it."""

from os import PathLike
from pathlib import Path
from typing import ClassVar, Self, get_args

import numpy as np
import numpy.typing as npt

from cd_pipeline.data.classes import VOID_NAME
from cd_pipeline.data.images import Image
from cd_pipeline.data.preprocessing import equalised
from cd_pipeline.evaluation.predictor import Predictor, enlarged, most_probable
from cd_pipeline.evaluation.tiled import Probability, predict_strips
from cd_pipeline.prediction.boxes import marked_boxes
from cd_pipeline.prediction.opened_model import ModelError, OpenedModel, open_model
from cd_pipeline.prediction.photo import Photo, as_image
from cd_pipeline.prediction.registration import Method, Registered, register
from cd_pipeline.prediction.results import Prediction, Segmentation
from cd_pipeline.prediction.sizes import Fit, brought_to, same_shape, whole_probability

UNMARKED_CLASSES = frozenset({"background", VOID_NAME})
"""Of several classes those that have no boxes and are not counted as marked."""
OVERLAP_SHARE = 0.25
"""Of neighbouring tiles, where a model that was not made for tiles is used with them."""


class _Model:
    """What models of two photos and of one have in common."""

    pictures: ClassVar[int]
    other: ClassVar[str]

    def __init__(self, opened: OpenedModel, threshold: float | None = None) -> None:
        interface, path = opened.interface, opened.path
        if interface.task.pictures != self.pictures:
            raise ModelError(
                f"{path}: takes {' and '.join(interface.task.picture_names)}, "
                f"not {self.pictures} pictures; use {self.other}"
            )
        self.opened = opened
        self.interface = interface
        self.threshold = _threshold(opened, threshold)
        self.class_names = interface.class_names if interface.task.multi_class else ()

    @classmethod
    def load(cls, path: str | PathLike[str], *, device: str = "auto", threshold: float | None = None) -> Self:
        """Open a model.

        Args:
            path: TorchScript (.pt), a checkpoint (.pt), a Core ML package (.mlpackage), which Core ML itself
                runs on macOS, or ONNX (.onnx, with the extra `onnx`).
            device: auto, cpu, cuda, cuda:<n> or mps.
            threshold: above it a pixel is marked, in [0, 1); None: the model's own, of a checkpoint that of
                `../threshold/threshold.json`.

        Raises:
            FileNotFoundError: nothing is there.
            ValueError: not a model of this pipeline, of another task, without a threshold, or the device
                cannot be used.
        """
        return cls(open_model(Path(path), device), threshold)

    def _fit(self, fit: Fit | None) -> Fit:
        if fit is not None and fit not in get_args(Fit):
            raise ValueError(f"fit is {fit!r}; use one of: {', '.join(get_args(Fit))}")
        return fit or self.interface.fit

    def _predictor(self, fit: Fit) -> Predictor:
        known = self.interface
        overlap = known.overlap
        if fit == "tile" and known.fit != "tile":
            overlap = overlap or int(OVERLAP_SHARE * known.size)
        return self.opened.predictor(self.threshold, overlap)

    def _seen(self, picture: Image) -> Image:
        clahe = self.interface.clahe
        return picture if clahe is None else equalised(picture, clahe)

    def _probability(self, pictures: list[Image], fit: Fit) -> Probability:
        # of one class: HxW at the pictures' own size
        predictor, given = self._predictor(fit), [self._seen(picture) for picture in pictures]
        if fit == "tile":
            return predictor.probability_at_own_size(*given, tiled=True)
        return enlarged(whole_probability(predictor, *given, fit=fit), *pictures[0].shape[:2])


class ChangeDetector(_Model):
    """Marks what changed between two photos of the same view.

    >>> detector = ChangeDetector.load("change_ts.pt")  # doctest: +SKIP
    >>> detector.predict("before.jpg", "after.jpg").changed_fraction  # doctest: +SKIP
    0.034
    """

    pictures = 2
    other = "Segmenter for models of one image"

    def __init__(self, opened: OpenedModel, threshold: float | None = None) -> None:
        super().__init__(opened, threshold)
        if opened.interface.task.multi_class:
            raise ModelError(
                f"{opened.path}: tells {opened.interface.task.classes} classes of change apart; one is expected"
            )

    def predict(
        self, before: Photo, after: Photo, *, fit: Fit | None = None, register: Method | None = None
    ) -> Prediction:
        """Mark what changed, in the first photo's coordinates and at its own size.

        A second photo of another size is brought to the first one's, where both have the same shape to 2 %;
        with `fit="resize"` whatever its shape, and with `register` to where it belongs.

        Args:
            before: HWC uint8 RGB, or a path.
            after: HWC uint8 RGB, or a path.
            fit: resize, letterbox or tile, as of `cd_pipeline.prediction.sizes.Fit`; None: the model's own.
            register: ecc or features: the second photo is brought to the first one's coordinates before.
                What it does not show then is not marked.

        Raises:
            FileNotFoundError, ValueError: a photo cannot be used, the shapes differ, or no registration was
                found; the message says which.
        """
        first, second = as_image(before, "before"), as_image(after, "after")
        chosen = self._fit(fit)
        moved = self._registered(first, second, register, stretched=fit == "resize")
        probability = self._probability([first, moved.picture], chosen)
        probability[~moved.covered] = 0
        mask = self._predictor(chosen).mask_of(probability)
        mask[~moved.covered] = 0  # smoothing and opening can reach over
        covered = int(np.count_nonzero(moved.covered))
        return Prediction(
            probability=probability,
            mask=mask,
            boxes=tuple(marked_boxes(mask, probability)),
            changed_fraction=int(np.count_nonzero(mask)) / covered,
            covered=moved.covered,
            transform=moved.transform if register else None,
        )

    def _registered(
        self, first: Image, second: Image, method: Method | None, *, stretched: bool
    ) -> Registered:
        if method is not None and method not in get_args(Method):
            raise ValueError(f"register is {method!r}; use one of: {', '.join(get_args(Method))}")
        if method is not None:
            return register(first, second, method)
        if not stretched and not same_shape(first, second):
            before, after = (f"{picture.shape[1]}x{picture.shape[0]}" for picture in (first, second))
            raise ValueError(
                f"the photos have different shapes, {before} and {after} px: crop them alike, register the "
                "second (register: features), or stretch it (fit: resize)"
            )
        everywhere = np.ones(first.shape[:2], np.bool_)
        return Registered(brought_to(second, first), everywhere, np.eye(3), agreement=1.0)


class Segmenter(_Model):
    """Marks what it was trained to find in one photo, or tells several classes apart.

    >>> segmenter = Segmenter.load("segmenter_ts.pt")  # doctest: +SKIP
    >>> segmenter.predict("street.jpg").fractions["road"]  # doctest: +SKIP
    0.41
    """

    pictures = 1
    other = "ChangeDetector for models of two photos"

    def predict(self, image: Photo, *, fit: Fit | None = None) -> Segmentation:
        """Mark a photo at its own size.

        Args:
            image: HWC uint8 RGB, or a path.
            fit: resize, letterbox or tile, as of `cd_pipeline.prediction.sizes.Fit`; None: the model's own.

        Raises:
            FileNotFoundError, ValueError: the photo cannot be used; the message says why.
        """
        picture, chosen = as_image(image, "image"), self._fit(fit)
        if self.interface.task.multi_class:
            return self._of_classes(*self._most_probable(picture, chosen))
        probability = self._probability([picture], chosen)
        mask = self._predictor(chosen).mask_of(probability)
        boxes = tuple(marked_boxes(mask, probability))
        return Segmentation(probability, mask, boxes, float((mask > 0).mean()), {})

    def _most_probable(self, picture: Image, fit: Fit) -> tuple[Image, Probability]:
        # class by class or strip by strip: memory does not grow with the classes
        predictor, given = self._predictor(fit), self._seen(picture)
        if fit == "tile":
            strips = predict_strips(
                predictor.network, [given], side=predictor.size, overlap=predictor.overlap
            )
            parts = [(predictor.mask_of(strip), strip.max(axis=0)) for strip in strips]
            masks, highest = zip(*parts, strict=True)
            return np.concatenate(masks), np.concatenate(highest)
        small = whole_probability(predictor, given, fit=fit)
        size = picture.shape[:2]
        taken = np.zeros(size, np.float32)
        for plane in small:
            np.maximum(taken, enlarged(plane, *size), out=taken)
        return most_probable(small, *size), taken

    def _of_classes(self, mask: Image, probability: Probability) -> Segmentation:
        counts: npt.NDArray[np.int64] = np.bincount(mask.ravel(), minlength=len(self.class_names))
        shares = {
            name: float(count / mask.size) for name, count in zip(self.class_names, counts, strict=True)
        }
        marked = [
            (index, name)
            for index, name in enumerate(self.class_names)
            if name.lower() not in UNMARKED_CLASSES and counts[index]
        ]
        boxes = [
            box
            for index, name in marked
            for box in marked_boxes((mask == index).astype(np.uint8), probability, name)
        ]
        share = sum(int(counts[index]) for index, _ in marked) / mask.size
        return Segmentation(probability, mask, tuple(boxes), share, shares)


Model = ChangeDetector | Segmenter


def load_model(path: str | PathLike[str], *, device: str = "auto", threshold: float | None = None) -> Model:
    """Open a model of two photos or of one; arguments and errors are those of `ChangeDetector.load`."""
    opened = open_model(Path(path), device)
    kind = ChangeDetector if opened.interface.task.pictures == 2 else Segmenter
    return kind(opened, threshold)


def _threshold(opened: OpenedModel, threshold: float | None) -> float | None:
    if opened.interface.task.multi_class:
        if threshold is not None:
            raise ValueError(
                f"threshold is {threshold}, but of several classes the most probable one is taken; leave it out"
            )
        return None
    chosen = opened.interface.threshold if threshold is None else threshold
    if chosen is None:
        raise ModelError(
            f"{opened.path}: has no threshold, as {opened.no_threshold}; give one (threshold: 0.5)"
        )
    if not 0 <= chosen < 1:
        raise ValueError(f"threshold is {chosen}; expected a number from 0 to below 1")
    return chosen
