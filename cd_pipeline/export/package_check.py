"""The proof that a saved package gives what the checkpoint gives, measured on pairs of photos."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cd_pipeline.export.coreml import INPUT_NAMES, OUTPUT_NAME, evaluation_copy
from cd_pipeline.export.mil_executor import ExecutionPrecision, PackageExecutor

ImagePair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True)
class PackageAgreement:
    """How far a package is from its checkpoint over a set of pairs.

    Attributes:
        pairs: Number of pairs compared.
        non_empty_pairs: Pairs in which the checkpoint predicts at least one changed pixel.
        max_probability_difference: Largest difference of any pixel, in [0, 1]; infinite if one is NaN.
        mean_probability_difference: Mean over all pixels of all pairs.
        flipped_share: Share of pixels whose thresholded class differs, in [0, 1].
        mask_iou: Intersection over union of the two masks, pooled over the non-empty pairs, in [0, 1];
            None where there is no such pair.
        non_finite_ops: Ops and weights of the package that gave NaN or infinity.
    """

    pairs: int
    non_empty_pairs: int
    max_probability_difference: float
    mean_probability_difference: float
    flipped_share: float
    mask_iou: float | None
    non_finite_ops: tuple[str, ...]

    def violations(
        self, max_difference: float = 0.02, min_mask_iou: float = 0.99, max_flipped_share: float = 0.001
    ) -> list[str]:
        """Name the limits that the package breaks.

        Args:
            max_difference: Largest allowed difference of a probability.
            min_mask_iou: Smallest allowed IoU of the masks over non-empty pairs.
            max_flipped_share: Largest allowed share of pixels that change class.

        Returns:
            One sentence for each broken limit; empty if the package agrees.
        """
        found = []
        if not self.max_probability_difference <= max_difference:
            found.append(
                f"The largest probability difference is {self.max_probability_difference:.4f}, "
                f"allowed is {max_difference:g}."
            )
        if self.mask_iou is not None and not self.mask_iou >= min_mask_iou:
            found.append(
                f"The IoU of the masks over {self.non_empty_pairs} non-empty pairs is {self.mask_iou:.4f}, "
                f"required is {min_mask_iou:g}."
            )
        if not self.flipped_share <= max_flipped_share:
            found.append(
                f"{self.flipped_share:.3%} of the pixels change class, allowed is {max_flipped_share:.3%}."
            )
        if self.non_finite_ops:
            found.append(f"These ops gave NaN or infinity: {', '.join(self.non_finite_ops)}.")
        return found


@dataclass
class _Sums:
    """Running totals over the pairs, in pixels."""

    pairs: int = 0
    non_empty_pairs: int = 0
    pixels: int = 0
    flipped: int = 0
    intersection: int = 0
    union: int = 0
    largest: float = 0.0
    total: float = 0.0

    def add(self, expected: NDArray[np.float32], found: NDArray[np.float32], threshold: float) -> None:
        """Add the probabilities of one pair, checkpoint and package, of one shape."""
        difference = np.abs(expected.astype(np.float64) - found)
        difference[~np.isfinite(difference)] = math.inf
        expected_mask, found_mask = expected > threshold, found > threshold
        self.pairs += 1
        self.pixels += difference.size
        self.largest = max(self.largest, float(difference.max()))
        self.total += float(difference.sum())
        self.flipped += int((expected_mask != found_mask).sum())
        if expected_mask.any():
            self.non_empty_pairs += 1
            self.intersection += int((expected_mask & found_mask).sum())
            self.union += int((expected_mask | found_mask).sum())


def check_package(
    path: Path,
    model: nn.Module,
    pairs: Iterable[ImagePair],
    *,
    threshold: float,
    pixel_scale: float,
    precision: ExecutionPrecision = "package",
) -> PackageAgreement:
    """Compare a saved package with the model it was made from.

    The package is read back from disk and executed op by op; the model runs in float32 on the CPU. The
    pairs are read one at a time.

    Args:
        path: A `.mlpackage` with inputs `before` and `after` and the output `probability`.
        model: The checkpoint's model, `model(before, after) -> logits`, float Nx1xHxW.
        pairs: Pairs (before, after), uint8 HxWx3 in RGB, of the package's size.
        threshold: A pixel is changed where its probability is greater than this.
        pixel_scale: What the model's input is of the pixel values 0-255 (1/255 for [0, 1]).
        precision: "package" for the types that the package declares, "float32" for no rounding.

    Returns:
        The agreement over all pairs.

    Raises:
        FileNotFoundError: No package is at `path`.
        UnknownOpError: The package holds an op that cannot be executed.
        ValueError: There are no pairs, or one has another shape than the package.
    """
    executor = PackageExecutor(path, precision)
    reference = evaluation_copy(model)
    sums = _Sums()
    for before, after in pairs:
        found = executor.run(dict(zip(INPUT_NAMES, (before, after), strict=True)))[OUTPUT_NAME]
        sums.add(_predict(reference, before, after, pixel_scale), found, threshold)
    if sums.pairs == 0:
        raise ValueError(f"{path}: no pairs to check it on; give at least one")
    return PackageAgreement(
        pairs=sums.pairs,
        non_empty_pairs=sums.non_empty_pairs,
        max_probability_difference=sums.largest,
        mean_probability_difference=sums.total / sums.pixels,
        flipped_share=sums.flipped / sums.pixels,
        mask_iou=sums.intersection / sums.union if sums.union else None,
        non_finite_ops=executor.non_finite_ops,
    )


def _predict(
    model: nn.Module, before: NDArray[np.uint8], after: NDArray[np.uint8], pixel_scale: float
) -> NDArray[np.float32]:
    """Give the probability, float32 1x1xHxW."""
    images = [
        torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(torch.float32) * pixel_scale
        for image in (before, after)
    ]
    with torch.inference_mode():
        probability: NDArray[np.float32] = torch.sigmoid(model(*images)).numpy()
    return probability
