"""The data sets that a recipe trains and validates on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from cd_pipeline.data.augmented_samples import AugmentedSamples
from cd_pipeline.data.datasets import ItemDataset, SampleDataset
from cd_pipeline.data.example import Example
from cd_pipeline.data.image_manifest import LabelledImage, read_labelled_images
from cd_pipeline.data.manifest import ManifestError, Pair, read_pairs
from cd_pipeline.data.samples import Roots
from cd_pipeline.data.settings import AugmentationSettings
from cd_pipeline.synthesis.fresh_pairs import FreshPairs, UndisturbedPairs, UnrenderedPairs
from cd_pipeline.synthesis.settings import RealisticSynthesis, SynthesisSettings


def training_sets(
    manifest: Path,
    roots: Roots,
    size: int,
    synthesis: SynthesisSettings,
    augmentation: AugmentationSettings | None = None,
    *,
    pictures: int = 2,
    data_set: str | None = None,
    nuisance_on: Literal["cpu", "device"] = "cpu",
    rendering_on: Literal["cpu", "device"] = "cpu",
) -> tuple[ItemDataset, ItemDataset]:
    """Return the train and val sets of a manifest.

    Training pairs without pictures are drawn anew each epoch; other examples are varied where augmentation is set.

    Args:
        manifest: of pairs or of images.
        roots: where its pictures are.
        size: of the network's input, px.
        synthesis: how pairs are drawn.
        augmentation: how examples are varied; None: they are as they are.
        pictures: of an example: 2 in a manifest of pairs, 1 in one of images.
        data_set: take the examples of this one (or of this class) alone; None: all.
        nuisance_on: where pairs that are drawn anew get their nuisance, if they have any: in the loader, or (device)
            a batch at a time where the network runs.
        rendering_on: where those of realistic synthesis are rendered; device, where their nuisance is applied there too.

    Raises:
        ManifestError: a part is empty.
        ValueError: nuisance_on is device, and pairs are too large or of another size than the input.
    """
    read: Callable[[Path, str], Sequence[Example]] = read_pairs if pictures == 2 else read_labelled_images
    train, val = (
        [example for example in read(manifest, split) if data_set in (None, example.class_name)]
        for split in ("train", "val")
    )
    if not train or not val:
        raise ManifestError(
            f"{manifest}: {f'{data_set}: ' if data_set else ''}{len(train)} train and {len(val)} val samples; both parts need some"
        )
    fresh = [example for example in train if isinstance(example, Pair) and example.after is None]
    train_set: ItemDataset
    if fresh and nuisance_on == "device" and isinstance(synthesis, RealisticSynthesis):
        undisturbed = UnrenderedPairs if rendering_on == "device" else UndisturbedPairs
        train_set = undisturbed(fresh, roots, size, synthesis)
    elif fresh:
        train_set = FreshPairs(fresh, roots, size, synthesis)
    elif augmentation is not None:
        train_set = AugmentedSamples(train, roots, size, augmentation)
    else:
        train_set = SampleDataset(train, roots, size)
    return train_set, SampleDataset(val, roots, size)


def inverse_class_weights(images: Sequence[Example]) -> list[float]:
    """Return a weight a class, proportional to 1 / its pixels, on average 1; 0 for a class without any.

    Raises:
        ValueError: the examples have no classes.
    """
    counts = [image.class_pixels for image in images if isinstance(image, LabelledImage)]
    if not counts:
        raise ValueError(
            "training.class_weights is inverse, which is for images with classes; set it to none"
        )
    totals = [sum(pixels) for pixels in zip(*counts, strict=True)]
    inverse = [1 / total if total else 0.0 for total in totals]
    return [weight * len(inverse) / sum(inverse) for weight in inverse]
