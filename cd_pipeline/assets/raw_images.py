"""The raw images of a segmentation data set: observed, or drawn where none are configured."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import dagster as dg

from cd_pipeline.assets.identity import PICTURES, raw_source
from cd_pipeline.assets.source import DrawSample, Scan, observe
from cd_pipeline.assets.stage import stage
from cd_pipeline.metadata import table, warn_of_left_out
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace

if TYPE_CHECKING:
    from cd_pipeline.data.masked_images import MaskedInventory


def raw_images_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """Build the asset `raw_images` of a recipe."""

    @stage(recipe, kinds=["png"], settings=[recipe.source], packages=PICTURES, also=raw_source(recipe))
    def raw_images(
        context: dg.AssetExecutionContext, workspace: Workspace, compute: Compute
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """The images and their masks, each read once; what cannot be used is listed with the reason.

        Your own folder is only read. With none configured, images are drawn.
        """
        from cd_pipeline.data.image_manifest import write_masked_images
        from cd_pipeline.data.masked_images import label_of

        scan, draw, sample = reader(recipe)
        source = observe(context.log, workspace, recipe, compute.cores, scan=scan, draw=draw, sample=sample)
        inventory = source.inventory
        write_masked_images(
            workspace.folder(recipe, "raw_images") / "images.parquet", inventory.images, recipe.source_version
        )
        left_out = [(label_of(image), image.reason) for image in inventory.quarantined]
        warn_of_left_out(context.log, "left out", left_out, "images.parquet")
        counts = f"{len(inventory.usable)} images, {len(left_out)} left out"
        context.log.info(f"{counts}, in {source.root}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(inventory.version),
            metadata={**source.figures(), **inventory_figures(recipe, inventory)},
        )

    return raw_images


def reader(recipe: Recipe) -> "tuple[Scan[MaskedInventory], DrawSample, str]":
    """Return what reads the recipe's layout, what draws its sample, and what the sample is."""
    from functools import partial

    from cd_pipeline.data.masked_images import scan_masked_images
    from cd_pipeline.data.palette import VOC_PALETTE
    from cd_pipeline.data.voc import scan_voc
    from cd_pipeline.synthesis.sample_cracks import draw_sample_cracks
    from cd_pipeline.synthesis.sample_voc import draw_sample_voc

    if recipe.source.layout == "masked_images":
        return scan_masked_images, draw_sample_cracks, "drawn cracks, not photos"
    source = recipe.source
    palette = VOC_PALETTE if source.palette == "voc" else None
    scan = partial(scan_voc, classes=source.classes, void=source.void, palette=palette)
    return scan, draw_sample_voc, "drawn scenes, not photos"


def inventory_figures(recipe: Recipe, inventory: "MaskedInventory") -> dict[str, Any]:
    """Return counts and tables of what was found, used or not."""
    from cd_pipeline.data.masked_images import label_of

    usable = inventory.usable
    pixels: Counter[int] = Counter()
    images: Counter[int] = Counter()
    for image in usable:
        for index, count in image.class_pixels:
            pixels[index] += count
            images[index] += 1
    total = max(1, sum(pixels.values()))
    names = recipe.class_names if recipe.task.multi_class else ("unmarked", "marked")
    sizes = Counter(f"{image.width}x{image.height}" for image in usable)
    datasets = Counter(image.dataset or "all" for image in usable)
    return {
        "images": len(usable),
        "quarantined": len(inventory.quarantined),
        "positive_pixel_share": 1 - pixels[0] / total,
        "void_pixels": sum(image.void_pixels for image in usable),
        "classes": table(
            [
                {"class": names[index], "images": images[index], "pixel_share": count / total}
                for index, count in sorted(pixels.items())
            ]
        ),
        "data_sets": table([{"data_set": name, "images": n} for name, n in sorted(datasets.items())]),
        "sizes": table([{"size": size, "images": n} for size, n in sizes.most_common()]),
        "quarantined_images": table(
            [{"image": label_of(image), "reason": image.reason or ""} for image in inventory.quarantined],
            "images.parquet",
        ),
    }
