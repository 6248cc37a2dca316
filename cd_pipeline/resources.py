"""Resources: the workspace on disk and the place to compute."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from cd_pipeline.data.machine import usable_cores
from cd_pipeline.data.places import MATERIALIZE, data_root
from cd_pipeline.recipe import Recipe

if TYPE_CHECKING:
    from cd_pipeline.data.samples import Roots
    from cd_pipeline.models.runtime import Runtime


class Workspace(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The data root. Every asset owns the folder `<root>/<recipe>/<asset>`."""

    root: str = Field(default="", description="data root; empty: CD_PIPELINE_DATA, or else data")

    def recipe_folder(self, recipe: Recipe) -> Path:
        """Return the folder of a recipe."""
        return (Path(self.root) if self.root else data_root()) / recipe.name

    def folder(self, recipe: Recipe, asset: str) -> Path:
        """Return the folder that an asset owns."""
        return self.recipe_folder(recipe) / asset

    def configured_source(self, recipe: Recipe) -> Path | None:
        """Return the user's own folder, or None where sample data stands in."""
        configured = os.environ.get(recipe.environment_variable) or recipe.source.folder
        return Path(configured).expanduser() if configured else None

    def configured_pairs(self, recipe: Recipe) -> Path | None:
        """Return the user's folder of real before/after pairs, or None."""
        configured = os.environ.get(recipe.pairs_variable) or recipe.real_pairs.folder
        return Path(configured).expanduser() if configured else None

    def roots(self, recipe: Recipe) -> "Roots":
        """Return where the references of the recipe's manifest lead."""
        from cd_pipeline.data.samples import Roots

        source = self.configured_source(recipe) or self.folder(recipe, recipe.raw_asset)
        return Roots(source, self.recipe_folder(recipe))

    def require(self, recipe: Recipe, asset: str, file: str) -> Path:
        """Return the path of a file that an earlier asset wrote.

        Raises:
            FileNotFoundError: it is not there; the message says how to make it.
        """
        path = self.folder(recipe, asset) / file
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there: run {self.remedy(recipe, asset)}")
        return path

    def remedy(self, recipe: Recipe, asset: str) -> str:
        """Return the command that makes an asset and all before it."""
        return MATERIALIZE.format(key="/".join(recipe.asset_key(asset)))


class Compute(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Device, precision, threads and workers; what is left open is taken from the machine."""

    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:<n> or mps")
    precision: str = Field(default="auto", description="auto, float32, float16 or bfloat16")
    threads: int | None = Field(default=None, description="none: the cores this process may use")
    workers: int | None = Field(default=None, description="loader processes; none: by what is loaded")
    channels_last: bool = Field(default=True, description="memory format of networks and batches")
    deterministic: bool = Field(default=True, description="the same weights on every run")

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
            processes=self.processes,
        )

    @property
    def cores(self) -> int:
        """Threads for work on files."""
        if self.threads:
            return self.threads
        return usable_cores()
