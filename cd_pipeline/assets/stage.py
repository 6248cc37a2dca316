"""What all assets of a recipe share: key, group, versions, a lock, and errors in one clear line.

While an asset is made or checked, no other process touches the files of its recipe: one that wants to waits. So
what is read is never half of one run and half of another. Different recipes do not wait for each other. Where the
data root is on an object store, other machines wait as well (`cd_pipeline.remote.lease`).
"""

import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from pydantic import BaseModel

from cd_pipeline.assets.memo import Also, Body, memoised
from cd_pipeline.data.file_lock import locked
from cd_pipeline.data.files import delete_leftovers, digest, disk_fault
from cd_pipeline.data.machine import this_process
from cd_pipeline.data.places import with_addresses
from cd_pipeline.recipe import Recipe
from cd_pipeline.remote.errors import StoreError
from cd_pipeline.resources import Workspace

GPU_POOL = "gpu"
LOCK = ".lock"
"""In the recipe's folder: held by the process that makes or checks an asset."""
PROCESS_TAG = "cd_pipeline/process"
"""Tag of a run: the process it runs in, so that a run that was killed can be told from one at work."""


def stage(
    recipe: Recipe,
    *,
    after: Sequence[str] = (),
    kinds: Sequence[str],
    settings: Sequence[BaseModel] = (),
    code_version: int = 1,
    pool: str | None = None,
    optional: bool = False,
    packages: Sequence[str] | None = None,
    also: Also | None = None,
) -> Callable[[Body], dg.AssetsDefinition]:
    """Make an asset of a recipe from a function of the asset's name.

    Args:
        recipe: gives key and group.
        after: the assets it reads, by their names within the recipe.
        kinds: tags shown in the UI.
        settings: the parts of the recipe it depends on; with `code_version` they make its code version.
        code_version: raised when the code makes something else of the same inputs.
        pool: limits how many such assets run at a time.
        optional: the asset may return None: nothing was made.
        packages: those whose versions the result depends on, beside this one; with them, an asset that nothing
            has changed for is not made again. None: it is made in every run.
        also: given the body's resources, what else the result depends on, by name.
    """
    version = f"{code_version}-{digest(code_version, *(part.model_dump_json() for part in settings))[:8]}"

    def decorate(body: Body) -> dg.AssetsDefinition:
        work = body
        if packages is not None:
            work = memoised(body, recipe, code_version=version, after=after, packages=packages, also=also)
        work = _in_one_line(_alone(work, recipe, leftovers=packages is not None))
        return dg.asset(
            key=recipe.asset_key(body.__name__),
            deps=[dg.AssetKey(recipe.asset_key(name)) for name in after],
            group_name=recipe.name,
            kinds=set(kinds),
            code_version=version,
            pool=pool,
            output_required=not optional,
            description=inspect.getdoc(body),
        )(_if_made(work) if optional else work)

    return decorate


def _alone(body: Body, recipe: Recipe, *, leftovers: bool) -> Body:
    # `leftovers`: nobody but this asset writes to its folder, so that those of killed runs can be deleted
    @functools.wraps(body)
    def guarded(context: dg.AssetExecutionContext, **resources: Any) -> dg.MaterializeResult | None:  # type: ignore[type-arg] # noqa: ANN401
        _name_process(context)
        workspace: Workspace = resources["workspace"]
        name = body.__name__
        with alone(workspace, recipe, f"making {name} of {recipe.name}", context.log) as locks:
            if locks and leftovers:
                delete_leftovers(workspace.folder(recipe, name))
            return body(context, **resources)

    return guarded


@contextmanager
def alone(workspace: Workspace, recipe: Recipe, purpose: str, logger: logging.Logger) -> Iterator[bool]:
    """Keep other processes from the files of a recipe for the time of a block, and other machines from sending.

    Args:
        workspace: says where they are.
        recipe: whose files are read or written.
        purpose: what is done meanwhile, for those who wait.
        logger: is told whom this process waits for.

    Yields:
        Whether the file system knows locks.
    """
    lock = workspace.recipe_folder(recipe) / LOCK
    with locked(lock, purpose, logger) as held, workspace.at_work(recipe, purpose):
        yield held


def _name_process(context: dg.AssetExecutionContext) -> None:
    if (
        context.job_def.executor_def.name == dg.in_process_executor.name
    ):  # others have a process for each step
        context.instance.add_run_tags(context.run_id, {PROCESS_TAG: this_process()})


def _in_one_line(body: Body) -> Body:
    # Errors that name a file and a remedy become the step's failure as they are.
    @functools.wraps(body)
    def guarded(context: dg.AssetExecutionContext, **resources: object) -> dg.MaterializeResult | None:  # type: ignore[type-arg]
        try:
            return body(context, **resources)
        except (ValueError, OSError, FloatingPointError) as error:
            fault = disk_fault(error) if isinstance(error, OSError) else None
            told = fault or with_addresses(str(error))
            context.log.error(told)
            expected = fault or isinstance(error, (FileNotFoundError, StoreError))  # needs no stack trace
            raise dg.Failure(description=told, allow_retries=False) from (None if expected else error)

    return guarded


def _if_made(body: Body) -> Callable[..., Iterator[dg.MaterializeResult]]:  # type: ignore[type-arg]
    # A step that yields nothing is not recorded as a materialization; one that returns None is.
    @functools.wraps(body)
    def yielding(context: dg.AssetExecutionContext, **resources: object) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
        made = body(context, **resources)
        if made is not None:
            yield made

    return yielding


def on_terminal() -> bool:
    """Tell whether a person is watching: progress bars are for terminals, not for the UI's log."""
    return sys.stderr.isatty()
