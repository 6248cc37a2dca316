"""What all assets of a recipe share: key, group, versions, and errors in one clear line."""

import functools
import inspect
import sys
from collections.abc import Callable, Sequence

import dagster as dg
from pydantic import BaseModel

from cd_pipeline.data.files import digest
from cd_pipeline.recipe import Recipe

GPU_POOL = "gpu"
Body = Callable[..., dg.MaterializeResult]  # type: ignore[type-arg]


def stage(
    recipe: Recipe,
    *,
    after: Sequence[str] = (),
    kinds: Sequence[str],
    settings: Sequence[BaseModel] = (),
    code_version: int = 1,
    pool: str | None = None,
) -> Callable[[Body], dg.AssetsDefinition]:
    """Make an asset of a recipe from a function of the asset's name.

    Args:
        recipe: gives key and group.
        after: the assets it reads, by their names within the recipe.
        kinds: tags shown in the UI.
        settings: the parts of the recipe it depends on; with `code_version` they make its code version.
        code_version: raised when the code makes something else of the same inputs.
        pool: limits how many such assets run at a time.
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
            description=inspect.getdoc(body),
        )(_in_one_line(body))

    return decorate


def _in_one_line(body: Body) -> Body:
    # Errors that name a file and a remedy become the step's failure as they are.
    @functools.wraps(body)
    def guarded(context: dg.AssetExecutionContext, **resources: object) -> dg.MaterializeResult:  # type: ignore[type-arg]
        try:
            return body(context, **resources)
        except (ValueError, OSError, FloatingPointError) as error:
            context.log.error(str(error))
            expected = isinstance(error, FileNotFoundError)  # a missing input needs no stack trace
            raise dg.Failure(description=str(error), allow_retries=False) from (None if expected else error)

    return guarded


def on_terminal() -> bool:
    """Tell whether a person is watching: progress bars are for terminals, not for the UI's log."""
    return sys.stderr.isatty()
