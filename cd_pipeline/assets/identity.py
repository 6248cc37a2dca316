"""What results depend on beside code, settings and earlier assets: folders of the user's, and the machine.

Nothing here loads torch: an asset that nothing has changed for is to take no time.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from cd_pipeline.assets.memo import Also, on_disk
from cd_pipeline.data.ahead import mapped
from cd_pipeline.data.files import digest, file_digest
from cd_pipeline.data.places import is_remote
from cd_pipeline.engine.ray_cluster import ADDRESS_VARIABLE, LOCAL, cluster_address
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace

PICTURES = ("opencv-python", "numpy", "pillow")
"""The packages that decode, draw and write pictures."""
NETWORKS = ("torch", "timm", *PICTURES)
"""The packages that predict."""
GPUS = Path("/proc/driver/nvidia/gpus")


def raw_source(recipe: Recipe) -> Also:
    """Return what tells the raw folder of a recipe, of which every file is read each time, by content."""

    def also(workspace: Workspace, compute: Compute) -> Mapping[str, object]:
        from cd_pipeline.data.layouts import reader_folders

        root = workspace.configured_source(recipe)
        if root is None:
            return {"source": "sample"}
        folders = [root / folder for folder in reader_folders(recipe.source.layout, root)]
        return {
            "source": (
                place_of(workspace.source_place(recipe), root),
                folders_digest(root, folders, compute.cores),
            )
        }

    return also


def place_of(place: str | None, root: Path) -> str:
    """Return what a raw folder is known by: its address on an object store, or its absolute path."""
    return place if place is not None and is_remote(place) else str(root.absolute())


def beside(recipe: Recipe, *assets: str) -> Also:
    """Return what tells assets that are looked at if they are there, without being waited for."""

    def also(workspace: Workspace) -> Mapping[str, object]:
        return {asset: on_disk(workspace, recipe, asset) for asset in assets}

    return also


def real_pairs_and_machine(recipe: Recipe) -> Also:
    """Return what tells the folder of real pairs, if there is one, and the machine that predicts."""

    def also(workspace: Workspace, compute: Compute) -> Mapping[str, object]:
        from cd_pipeline.data.two_date import PARTS

        root = workspace.configured_pairs(recipe)
        if root is None:
            return {"real pairs": "none"}
        found = folders_digest(root, [root / part for part in PARTS], compute.cores)
        place = place_of(workspace.pairs_place(recipe), root)
        return {"real pairs": (place, found), **predicting(workspace, compute)}

    return also


def predicting(workspace: Workspace, compute: Compute) -> Mapping[str, object]:
    """Return what predictions of this machine in float32 depend on; threads change only their last digits."""
    return _machine(compute, accelerators())


def predicting_in_shards(recipe: Recipe) -> Also:
    """Return what predictions depend on that are made where the recipe's engine is."""

    def also(workspace: Workspace, compute: Compute) -> Mapping[str, object]:
        return _machine(compute, cluster(recipe) or accelerators())

    return also


def _machine(compute: Compute, where: tuple[str, ...]) -> Mapping[str, object]:
    return {"machine": (compute.device, compute.channels_last, where)}


def training(recipe: Recipe) -> Also:
    """Return what trained weights depend on: where training is, with its threads, and how long sample data is learnt.

    On a cluster, threads are those that are asked of it, not the cores of this machine.
    """

    def also(workspace: Workspace, compute: Compute) -> Mapping[str, object]:
        start = recipe.model.start_from and Path(recipe.model.start_from).expanduser()
        machines = cluster(recipe)
        return {
            "machine": (
                compute.model_dump_json(exclude={"workers", "threads"}),
                machines or accelerators(),
            ),
            "processes": recipe.compute.workers,
            "threads": compute.threads if machines else compute.cores,
            "sample data": workspace.source_place(recipe) is None,
            "start weights": file_digest(start) if start and start.is_file() else "",
        }

    return also


def cluster(recipe: Recipe) -> tuple[str, ...]:
    """Return what a recipe's Ray cluster is known by, whichever machine asks; empty: the work is done on this one.

    It is known by the address in the recipe. One that RAY_ADDRESS names can have another address in every run.
    """
    if recipe.compute.engine == "local" or cluster_address(recipe.compute) == LOCAL:
        return ()
    return "Ray cluster", recipe.compute.address or ADDRESS_VARIABLE


def accelerators() -> tuple[str, ...]:
    """Return the kind of machine and its GPUs, without asking torch."""
    models = [
        line.partition(":")[2].strip()
        for file in sorted(GPUS.glob("*/information"))
        for line in file.read_text().splitlines()
        if line.startswith("Model:")
    ]
    return (
        platform.system(),
        platform.machine(),
        os.environ.get("CUDA_VISIBLE_DEVICES", "all"),
        *models,
    )


def folders_digest(root: Path, folders: Sequence[Path], threads: int) -> str:
    """Return a hash of the names and bytes of all files in some folders; one that is missing is told too.

    Args:
        root: names are relative to it.
        folders: below the root.
        threads: files read at a time; the hash does not depend on it.
    """
    from cd_pipeline.data.listing import visible_files

    paths = sorted(path for folder in folders for path in visible_files(folder))
    contents = list(mapped(_content, paths, threads))
    there = [(folder.relative_to(root).as_posix(), folder.is_dir()) for folder in folders]
    names = (os.fsencode(path.relative_to(root)) for path in paths)
    return digest(there, *(part for pair in zip(names, contents, strict=True) for part in pair))


def _content(path: Path) -> str:
    if not path.is_file():  # a link that leads nowhere, or a pipe, which would wait for ever
        return "no file"
    try:
        return file_digest(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
