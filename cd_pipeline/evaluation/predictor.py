"""A network with all that turns its probabilities into masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.data.images import Image
from cd_pipeline.data.preprocessing import resize_photo
from cd_pipeline.evaluation.postprocess import cleaned_mask, smooth_mask
from cd_pipeline.evaluation.tiled import Probabilities, Probability, predict_strips, predict_tiled


@dataclass(frozen=True, slots=True)
class Predictor:
    """A network with all that turns its probabilities into masks.

    Masks are HW uint8: 0 or 255, or the indices of several classes.

    Attributes:
        network: its probabilities.
        size: of the network's input.
        threshold: above it a pixel is marked; None: of several classes the most probable one is taken.
        smooth: 3x3 smoothing of the masks.
        overlap: of the tiles of tiled samples, px.
        opening: side of the square that a marked area must hold, px; 0: any.
        min_area: of a marked area, px; 0: any.
    """

    network: Probabilities
    size: int
    threshold: float | None
    smooth: bool = False
    overlap: int = 0
    opening: int = 0
    min_area: int = 0

    def probability(self, *pictures: Image) -> npt.NDArray[np.float32]:
        """Predict HWC uint8 RGB at the input size: float32 in [0, 1], HxW, or CxHxW of C classes."""
        (probability,) = self.network([picture[None] for picture in pictures])
        return probability

    def probability_at_own_size(self, *pictures: Image, tiled: bool = True) -> npt.NDArray[np.float32]:
        """Predict HWC uint8 RGB of any size: float32 in [0, 1], HxW, or CxHxW of C classes.

        Args:
            pictures: of one size.
            tiled: in tiles at their own scale. Otherwise they are resized to the network's input, and the
                probability is enlarged.
        """
        if tiled:
            return predict_tiled(self.network, *pictures, side=self.size, overlap=self.overlap)
        return enlarged(self._resized(pictures), *pictures[0].shape[:2])

    def mask_at_own_size(self, *pictures: Image, tiled: bool = True) -> Image:
        """Predict HWC uint8 RGB of any size: the mask.

        Tiles are turned into rows of the mask as they are finished: memory grows with the picture's width.
        """
        if not tiled and self.threshold is None:
            return most_probable(self._resized(pictures), *pictures[0].shape[:2])
        if not tiled:
            return self.mask_of(self.probability_at_own_size(*pictures, tiled=False))
        strips = predict_strips(self.network, pictures, side=self.size, overlap=self.overlap)
        return self._finished(np.concatenate([self._decided(strip) for strip in strips]))

    def mask_of(self, probability: npt.NDArray[np.float32]) -> Image:
        """Turn a whole probability, HxW or CxHxW, into the mask."""
        return self._finished(self._decided(probability))

    def _resized(self, pictures: Sequence[Image]) -> Probability:
        return self.probability(*(resize_photo(picture, self.size) for picture in pictures))

    def _decided(self, probability: Probability) -> Image:
        if self.threshold is None:
            return np.asarray(probability.argmax(axis=0), np.uint8)
        return np.multiply(probability > self.threshold, 255, dtype=np.uint8)

    def _finished(self, mask: Image) -> Image:
        if self.threshold is None:
            return mask
        mask = smooth_mask(mask) if self.smooth else mask
        return cleaned_mask(mask, opening=self.opening, min_area=self.min_area)


def most_probable(probability: npt.NDArray[np.float32], height: int, width: int) -> Image:
    """Enlarge CxHxW float32 by bilinear interpolation, and return the class that is highest at each pixel.

    One class after the other: memory does not grow with their number. Of equal ones the first is taken.
    """
    highest = enlarged(probability[0], height, width)
    found = np.zeros((height, width), np.uint8)
    for index, plane in enumerate(probability[1:], start=1):
        larger = enlarged(plane, height, width)
        found[larger > highest] = index
        np.maximum(highest, larger, out=highest)
    return found


def enlarged(probability: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """Resize a probability, HxW or CxHxW float32, by bilinear interpolation."""
    planes = probability.reshape(-1, *probability.shape[-2:])
    resized = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in planes]
    return np.asarray(resized, np.float32).reshape(*probability.shape[:-2], height, width)
