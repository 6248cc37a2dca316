"""Resources: the workspace, on disk or on an object store, and the place to compute."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from cd_pipeline.data.machine import usable_cores
from cd_pipeline.data.places import MATERIALIZE, data_place, is_remote, local_folder
from cd_pipeline.recipe import Recipe

if TYPE_CHECKING:
    from cd_pipeline.data.samples import Roots
    from cd_pipeline.models.runtime import Runtime
    from cd_pipeline.remote.object_folder import ObjectFolder


class Workspace(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The data root. Every asset owns the folder `<root>/<recipe>/<asset>`.

    The root, and the user's own folders, can be addresses on an object store. All paths here are then of the local
    mirror: what earlier assets made is fetched when it is asked for, and what an asset has made is sent by `publish`.
    """

    root: str = Field(
        default="",
        description="data root, a path or s3://bucket/prefix; empty: CD_PIPELINE_DATA, or else data",
    )

    @property
    def place(self) -> str:
        """The data root as it was configured: a path, or an address."""
        return self.root or data_place()

    def recipe_folder(self, recipe: Recipe) -> Path:
        """Return the folder of a recipe."""
        return local_folder(self.place) / recipe.name

    def folder(self, recipe: Recipe, asset: str) -> Path:
        """Return the folder that an asset owns."""
        return self.recipe_folder(recipe) / asset

    def on_store(self, recipe: Recipe) -> "ObjectFolder | None":
        """Return the folder of a recipe on the object store; None: the data root is a local folder."""
        if not is_remote(self.place):
            return None
        from cd_pipeline.remote.object_folder import ObjectFolder

        return ObjectFolder(self.place) / recipe.name

    def source_place(self, recipe: Recipe) -> str | None:
        """Return the user's own folder as it was configured, a path or an address; None: sample data stands in."""
        return os.environ.get(recipe.environment_variable) or recipe.source.folder or None

    def pairs_place(self, recipe: Recipe) -> str | None:
        """Return the user's folder of real pairs as it was configured, a path or an address, or None."""
        return os.environ.get(recipe.pairs_variable) or recipe.real_pairs.folder or None

    def configured_source(self, recipe: Recipe) -> Path | None:
        """Return the user's own folder, or None where sample data stands in; one on an object store is mirrored."""
        layout, place = recipe.source.layout, self.source_place(recipe)
        if place is None or not is_remote(place):
            return None if place is None else Path(place).expanduser()
        from cd_pipeline.data.layouts import inner_folders, layout_depth, reader_folders

        return mirrored(
            place,
            partial(reader_folders, layout),
            leaves=inner_folders(layout),
            depth=layout_depth(layout),
        )

    def configured_pairs(self, recipe: Recipe) -> Path | None:
        """Return the user's folder of real before/after pairs, or None; one on an object store is mirrored."""
        place = self.pairs_place(recipe)
        if place is None or not is_remote(place):
            return None if place is None else Path(place).expanduser()
        from cd_pipeline.data.two_date import PARTS

        return mirrored(place, lambda root: PARTS, leaves=PARTS, depth=1)

    def roots(self, recipe: Recipe) -> "Roots":
        """Return where the references of the recipe's manifest lead."""
        from cd_pipeline.data.samples import Roots

        source = self.configured_source(recipe)
        if source is None:
            self.bring(recipe, recipe.raw_asset)
            source = self.folder(recipe, recipe.raw_asset)
        return Roots(source, self.recipe_folder(recipe))

    def require(self, recipe: Recipe, asset: str, file: str) -> Path:
        """Return the path of a file that an earlier asset wrote.

        Raises:
            FileNotFoundError: it is not there; the message says how to make it.
            StoreError: as of `bring`.
        """
        self.bring(recipe, asset)
        path = self.folder(recipe, asset) / file
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there: run {self.remedy(recipe, asset)}")
        return path

    def bring(self, recipe: Recipe, asset: str) -> None:
        """Fetch what an asset made from the object store, once in a step; of a local data root nothing.

        Raises:
            SpoiltResultError: what lies there is not what it made; the message says how to make it.
            StoreError: the store fails.
        """
        if (store := self.on_store(recipe)) is None:
            return
        from cd_pipeline.remote.errors import SpoiltResultError
        from cd_pipeline.remote.results import StoredResult
        from cd_pipeline.remote.step import current_step

        remote, step = store / asset, current_step()
        if remote.uri in step.fetched:
            return
        try:
            StoredResult(remote, self.folder(recipe, asset)).fetch(step.lease)
        except SpoiltResultError as error:
            raise SpoiltResultError(f"{error}: run {self.remedy(recipe, asset)}") from None
        step.fetched.add(remote.uri)

    def bring_own(self, recipe: Recipe, asset: str) -> None:
        """Fetch what an asset made, for itself: what is spoilt on the store counts as never made."""
        from cd_pipeline.remote.errors import SpoiltResultError
        from cd_pipeline.remote.results import StoredResult
        from cd_pipeline.remote.step import current_step

        try:
            self.bring(recipe, asset)
        except SpoiltResultError as error:
            dg.get_dagster_logger().warning(f"made anew: {error}")
            if (store := self.on_store(recipe)) and (lease := current_step().lease):
                StoredResult(store / asset, self.folder(recipe, asset)).disown(lease)

    def publish(self, recipe: Recipe, asset: str) -> None:
        """Send what an asset has made to the object store, its receipt last; of a local data root nothing.

        Raises:
            StoreError: the store fails; what was made stays here, and a later run sends it.
        """
        from cd_pipeline.remote.step import current_step

        lease = current_step().lease
        if lease is not None and (store := self.on_store(recipe)) is not None:
            from cd_pipeline.remote.results import StoredResult

            StoredResult(store / asset, self.folder(recipe, asset)).send(lease)
            dg.get_dagster_logger().info(f"sent to {store.uri}/{asset}")

    @contextmanager
    def at_work(self, recipe: Recipe, purpose: str) -> Iterator[None]:
        """Be, for the time of a block, the only machine that writes to a recipe on an object store."""
        from cd_pipeline.remote.lease import leased
        from cd_pipeline.remote.step import at_work

        store = self.on_store(recipe)
        if store is None:
            with at_work(None):
                yield
            return
        with leased(store, purpose, dg.get_dagster_logger()) as lease, at_work(lease):
            yield

    def remedy(self, recipe: Recipe, asset: str) -> str:
        """Return the command that makes an asset and all before it."""
        return MATERIALIZE.format(key="/".join(recipe.asset_key(asset)))


def mirrored(
    place: str, parts: Callable[[Path], Sequence[str]], *, leaves: Sequence[str], depth: int
) -> Path:
    """Return the mirror of a raw folder on an object store, which is brought up to date once in a step.

    Args:
        place: its address.
        parts: tells which of its folders are read.
        leaves: names of folders that hold files alone.
        depth: of the folders that are read.
    """
    from cd_pipeline.remote.mirror import mirror_parts
    from cd_pipeline.remote.object_folder import ObjectFolder
    from cd_pipeline.remote.step import current_step

    step, local = current_step(), local_folder(place)
    if place in step.fetched:
        return local
    log, remote = dg.get_dagster_logger(), ObjectFolder(place)
    done = mirror_parts(remote, local, parts, leaves=leaves, depth=depth, logger=log)
    for name, reason in done.refused.items():
        log.warning(f"left out {remote.uri}/{name}: {reason}")
    if done.fetched or done.deleted:
        log.info(f"{remote.uri}: {done.fetched} objects fetched, {done.deleted} are gone")
    step.fetched.add(place)
    step.refused[place] = done.refused
    return local


class Compute(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Device, precision, threads and workers; what is left open is taken from the machine."""

    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:<n> or mps")
    precision: str = Field(default="auto", description="auto, float32, float16 or bfloat16")
    threads: int | None = Field(default=None, description="none: the cores this process may use")
    workers: int | None = Field(default=None, description="loader processes; none: by what is loaded")
    channels_last: bool = Field(default=True, description="memory format of networks and batches")
    deterministic: bool = Field(default=True, description="the same weights on every run")
    compile: bool = Field(
        default=False, description="torch.compile of networks that train: for long trainings on GPUs"
    )
    processes: int | None = Field(
        default=None, ge=1, description="that train together (torchrun); none: one a GPU, or one"
    )

    def runtime(self) -> "Runtime":
        """Resolve the settings on this machine."""
        from cd_pipeline.models.runtime import resolve_runtime

        return resolve_runtime(
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            workers=self.workers,
            channels_last=self.channels_last,
            deterministic=self.deterministic,
            compile=self.compile,
            processes=self.processes,
        )

    @property
    def cores(self) -> int:
        """Threads for work on files."""
        if self.threads:
            return self.threads
        return usable_cores()
