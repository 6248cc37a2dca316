"""The shards of an asset: where they are worked on, and what a killed run of it has done."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from cd_pipeline.assets.memo import OWN_PACKAGE, forced, installed
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Workspace

if TYPE_CHECKING:
    from cd_pipeline.engine.runner import ShardRunner


@contextmanager
def shard_runner(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    recipe: Recipe,
    *,
    threads: int,
    packages: Sequence[str],
    made_of: Sequence[object] = (),
    gpu: bool = False,
) -> Iterator["ShardRunner"]:
    """Have a runner for the asset that is being made; at the end of the block its records are deleted.

    A block that ends with an error, or with the process, leaves them for the next run.

    Args:
        context: of the asset; its log is told what is resumed.
        workspace: says where the asset's folder is.
        recipe: says which engine.
        threads: of the local engine, shards at a time.
        packages: those whose versions the results depend on, beside this one.
        made_of: what else they depend on, beside the asset's code and settings and the rows of a shard.
        gpu: the work uses a GPU where there is one.
    """
    from cd_pipeline.data.files import digest
    from cd_pipeline.engine.build import build_engine
    from cd_pipeline.engine.records import ShardRecords
    from cd_pipeline.engine.runner import ShardRunner

    code_version = context.job_def.asset_layer.asset_graph.get(context.asset_key).code_version
    identity = digest(code_version, *map(installed, (OWN_PACKAGE, *packages)), *made_of)
    records = ShardRecords(workspace.folder(recipe, context.asset_key.path[-1]).absolute(), identity)
    if forced(context):
        records.discard()
    with build_engine(recipe.compute, threads=threads, logger=context.log, gpu=gpu) as engine:
        yield ShardRunner(engine, records, context.log)
    records.discard()
