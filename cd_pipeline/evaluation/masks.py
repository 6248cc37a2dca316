"""What the masks of a manifest hold."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from cd_pipeline.data.example import Example
from cd_pipeline.data.images import MADE_AGAIN, read_mask, read_photo
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.samples import Roots, Sample, load_masks


def mask_shares(examples: Iterable[Example], roots: Roots) -> dict[str, float]:
    """Return the share of marked pixels, pooled over each split and over all examples ("all")."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for example, mask in load_masks(examples, roots):
        for name in (example.split, "all"):
            counts[name][0] += int(np.count_nonzero(mask))
            counts[name][1] += mask.size
    return {name: positive / total for name, (positive, total) in sorted(counts.items())}


def mask_faults(pairs: Sequence[Pair], roots: Roots) -> list[str]:
    """Return a sentence for each mask that is not 0/255 or not of its after image's size."""
    faults = []
    for pair in pairs:
        mask = read_mask(roots.resolve(str(pair.mask)))
        after = read_photo(roots.resolve(str(pair.after)), remedy=MADE_AGAIN)
        values = np.unique(mask)
        if not np.isin(values, (0, 255)).all():
            faults.append(f"{pair.pair_id}: mask values {values[:5].tolist()}, expected 0 and 255")
        if mask.shape != after.shape[:2]:
            faults.append(f"{pair.pair_id}: mask {mask.shape}, after image {after.shape[:2]}")
    return faults


def same_pictures(one: Sample, other: Sample) -> bool:
    """Tell whether two pairs are equal, pixel by pixel."""
    return len(one.arrays) == len(other.arrays) and all(map(np.array_equal, one.arrays, other.arrays))
