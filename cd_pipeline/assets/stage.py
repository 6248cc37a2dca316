"""What all assets of a recipe share: key, group, versions, and errors in one clear line."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence

import dagster as dg
from pydantic import BaseModel

from cd_pipeline.data.files import digest
from cd_pipeline.recipe import Recipe

GPU_POOL = "gpu"
Body = Callable[..., dg.MaterializeResult | None]  # type: ignore[type-arg]


def stage(
    recipe: Recipe,
    *,
    after: Sequence[str] = (),
    kinds: Sequence[str],
    settings: Sequence[BaseModel] = (),
    code_version: int = 1,
    pool: str | None = None,
    optional: bool = False,
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
    """
    version = digest(code_version, *(part.model_dump_json() for part in settings))[:8]

    def decorate(body: Body) -> dg.AssetsDefinition:
        return dg.asset(
            key=recipe.asset_key(body.__name__),
            deps=[dg.AssetKey(recipe.asset_key(name)) for name in after],
            group_name=recipe.name,
            kinds=set(kinds),
            code_version=f"{code_version}-{version}",
            pool=pool,
            output_required=not optional,
            description=inspect.getdoc(body),
        )(_if_made(_in_one_line(body)) if optional else _in_one_line(body))

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
