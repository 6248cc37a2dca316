"""The data sets that a recipe trains and validates on."""

from pathlib import Path
from typing import TypeAlias

from cd_pipeline.data.augmented_pairs import AugmentedPairs
from cd_pipeline.data.datasets import PairDataset
from cd_pipeline.data.manifest import ManifestError, read_pairs
from cd_pipeline.data.pairs import Roots
from cd_pipeline.data.settings import AugmentationSettings
from cd_pipeline.synthesis.fresh_pairs import FreshPairs
from cd_pipeline.synthesis.settings import SynthesisSettings

TrainingPairs: TypeAlias = PairDataset | FreshPairs | AugmentedPairs


def training_sets(
    manifest: Path,
    roots: Roots,
    size: int,
    synthesis: SynthesisSettings,
    augmentation: AugmentationSettings | None = None,
) -> tuple[TrainingPairs, PairDataset]:
    """Return the train and val sets of a manifest.

    Training pairs without pictures are drawn anew each epoch; others are varied where augmentation is set.

    Raises:
        ManifestError: a part is empty.
    """
    train, val = read_pairs(manifest, "train"), read_pairs(manifest, "val")
    if not train or not val:
        raise ManifestError(f"{manifest}: {len(train)} train and {len(val)} val pairs; both parts need some")
    fresh = any(pair.after is None for pair in train)
    train_set: TrainingPairs
    if fresh:
        train_set = FreshPairs(train, roots, size, synthesis)
    elif augmentation is not None:
        train_set = AugmentedPairs(train, roots, size, augmentation)
    else:
        train_set = PairDataset(train, roots, size)
    return train_set, PairDataset(val, roots, size)
