"""What all assets of a recipe share: key, group, versions, and errors in one clear line."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence

import dagster as dg
from pydantic import BaseModel

from cd_pipeline.assets.memo import Also, Body, memoised
from cd_pipeline.data.files import digest
from cd_pipeline.recipe import Recipe

GPU_POOL = "gpu"


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
        work = _in_one_line(work)
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


def _in_one_line(body: Body) -> Body:
    # Errors that name a file and a remedy become the step's failure as they are.
    @functools.wraps(body)
    def guarded(context: dg.AssetExecutionContext, **resources: object) -> dg.MaterializeResult | None:  # type: ignore[type-arg]
        try:
            return body(context, **resources)
        except (ValueError, OSError, FloatingPointError) as error:
            context.log.error(str(error))
            expected = isinstance(error, FileNotFoundError)  # a missing input needs no stack trace
            raise dg.Failure(description=str(error), allow_retries=False) from (None if expected else error)

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
