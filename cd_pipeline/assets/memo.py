"""An asset whose inputs, code, settings and files are as they were gives its old result again.

When an asset has been made, a receipt in its folder says of what it was made, which files came of it, and what
it returned. The next run compares, and reads every file: where all of it holds, nothing is done. An asset that
fails keeps the old receipt, which holds as long as the files do; files that are not those of their receipt are
made again, and until then no other asset reads them. `CD_PIPELINE_FORCE=1` in the environment, or the tag
`cd_pipeline/force: true` of a run, makes everything anew.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_shared.serdes import deserialize_value, serialize_value
from pydantic import BaseModel, ValidationError

from cd_pipeline.assets.inputs import StaleInputError
from cd_pipeline.data.file_record import RECEIPT, FileRecord
from cd_pipeline.data.files import digest, file_digest, visible_below, write_text
from cd_pipeline.data.machine import give_back_freed_memory
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Workspace

FORCE = "CD_PIPELINE_FORCE"
FORCE_TAG = "cd_pipeline/force"
OWN_PACKAGE = "cd_pipeline"
UNCHANGED = "unchanged"
"""Metadata of an asset whose old result is given again."""
Body = Callable[..., dg.MaterializeResult | None]  # type: ignore[type-arg]
Also = Callable[..., Mapping[str, object]]


class Receipt(BaseModel):
    """What an asset was made of, and what came of it.

    Attributes:
        identity: hashes by what they are of: the code with its settings, packages, and each thing read.
        files: what lies in the asset's folder, by path; hidden files are nobody's result.
        data_version: what the asset returned.
        metadata: of what it returned, as Dagster writes it to its event log.
        paths: those metadata that are paths inside the recipe's folder, which can be moved.
        warnings: told while it was made.
        seal: hash of all the rest; a receipt with another one is damaged, and none.
    """

    identity: dict[str, str]
    files: dict[str, FileRecord]
    data_version: str
    metadata: str
    paths: dict[str, str]
    warnings: list[str]
    seal: str = ""

    def sealed(self) -> "Receipt":
        """Return the receipt with its seal."""
        return self.model_copy(update={"seal": digest(self.model_dump_json(exclude={"seal"}))})

    def result(self, recipe_folder: Path) -> dg.MaterializeResult:  # type: ignore[type-arg]
        """Return what the asset returned when it was made, marked as unchanged."""
        found: dict[str, Any] = deserialize_value(self.metadata, as_type=dict)
        paths = {
            key: dg.MetadataValue.path((recipe_folder / path).absolute()) for key, path in self.paths.items()
        }
        return dg.MaterializeResult(
            data_version=dg.DataVersion(self.data_version), metadata={**found, **paths, UNCHANGED: True}
        )


def memoised(
    body: Body,
    recipe: Recipe,
    *,
    code_version: str,
    after: Sequence[str],
    packages: Sequence[str],
    also: Also | None = None,
) -> Body:
    """Make the body of an asset work only where something has changed.

    Args:
        body: a function of the asset's name, with a context and resources, `workspace` among them.
        recipe: of the asset.
        code_version: of the asset, with its settings.
        after: the assets it reads; what each is known by is its data version, or the bytes of its files where
            they are no longer those that it wrote.
        packages: those whose versions its result depends on, beside this one.
        also: given the body's resources, returns what else it depends on, by name; read anew each time.
    """
    name = body.__name__

    @functools.wraps(body)
    def guarded(context: dg.AssetExecutionContext, **resources: Any) -> dg.MaterializeResult | None:  # type: ignore[type-arg] # noqa: ANN401
        workspace: Workspace = resources["workspace"]
        identity = {
            "code": code_version,
            "packages": digest(*map(installed, (OWN_PACKAGE, *packages))),
            **{key: on_disk(workspace, recipe, key) for key in after},
            **({"manifest settings": recipe.plan_version} if recipe.manifest[0] in after else {}),
            **{key: digest(value) for key, value in (also(**resources) if also else {}).items()},
        }
        workspace.bring_own(recipe, name)
        folder = workspace.folder(recipe, name)
        others = out_of_date(context, workspace, recipe, after)
        if old := _still_good(context, folder, identity, others):
            for warning in old.warnings:
                context.log.warning(warning)
            context.log.info(f"unchanged: nothing that {name} is made of is new ({FORCE}=1 makes it anew)")
            return _with_address(old.result(workspace.recipe_folder(recipe)), workspace, recipe, name)
        with warnings_of(context.log) as warnings:
            result = body(context, **resources)
        give_back_freed_memory()  # the next asset asks for blocks of other sizes
        if result is not None:
            write_receipt(folder, workspace.recipe_folder(recipe), identity, result, warnings)
            workspace.publish(recipe, name)
            result = _with_address(result, workspace, recipe, name)
        return result

    return guarded


def _with_address(
    result: dg.MaterializeResult,  # type: ignore[type-arg]
    workspace: Workspace,
    recipe: Recipe,
    asset: str,
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    if (store := workspace.on_store(recipe)) is None:
        return result
    return dg.MaterializeResult(
        data_version=result.data_version,
        metadata={**(result.metadata or {}), "on_store": f"{store.uri}/{asset}"},
    )


def out_of_date(
    context: dg.AssetExecutionContext, workspace: Workspace, recipe: Recipe, after: Sequence[str]
) -> list[str]:
    """Return those of the assets before this one that were made by other code or settings than today's.

    An asset that is run alone is not called unchanged then: it proves itself whether its inputs will do.
    """
    graph = context.job_def.asset_layer.asset_graph
    found = []
    for name in after:
        receipt, key = read_receipt(workspace.folder(recipe, name)), dg.AssetKey(recipe.asset_key(name))
        if receipt and graph.has(key) and graph.get(key).code_version != receipt.identity["code"]:
            found.append(name)
    return found


def on_disk(workspace: Workspace, recipe: Recipe, asset: str) -> str:
    """Return what the files of an asset are known by: its data version if they are those of its receipt.

    Without a receipt, or where files are missing, it is a hash of their bytes; of a folder without files it is
    a constant.

    Raises:
        StaleInputError: a file is not the one that the asset wrote.
        StoreError: the object store of the data root fails, or what lies there is not what the asset made.
    """
    workspace.bring(recipe, asset)
    folder = workspace.folder(recipe, asset)
    receipt = read_receipt(folder)
    if receipt is not None:
        changed = changed_files(folder, receipt)
        if not changed:
            return receipt.data_version
        if spoilt := next((folder / name for name in changed if (folder / name).exists()), None):
            raise StaleInputError(
                f"{spoilt} is not the file that {asset} wrote: damaged, replaced, or of a run that was stopped; "
                f"run {workspace.remedy(recipe, asset)}, or delete {folder / RECEIPT} to use it as it is"
            )
    return digest(*((path, file_digest(folder / path)) for path in visible_below(folder)))


def installed(package: str) -> str:
    """Return a package with its version."""
    try:
        return f"{package} {package_version(package)}"
    except PackageNotFoundError:
        return f"{package}, not installed"


def forced(context: dg.AssetExecutionContext) -> bool:
    """Tell whether everything is to be made anew."""
    asked = (os.environ.get(FORCE, ""), context.run.tags.get(FORCE_TAG, ""))
    return any(word.strip().lower() not in ("", "0", "false", "no") for word in asked)


def _still_good(
    context: dg.AssetExecutionContext, folder: Path, identity: dict[str, str], others: list[str]
) -> Receipt | None:
    # the receipt, if what it says holds; otherwise the log says what is new
    receipt = read_receipt(folder)
    if receipt is None:
        return None
    keys = sorted({*identity, *receipt.identity})
    new = [key for key in keys if identity.get(key) != receipt.identity.get(key)]
    reason = ""
    if forced(context):
        reason = "as asked"
    elif others:
        reason = f"{', '.join(others)} made by other code or settings"
    elif new:
        reason = f"{', '.join(new)} changed"
    elif changed := changed_files(folder, receipt):
        reason = f"{folder / changed[0]} is not what was written"
    if reason:
        context.log.info(f"made anew: {reason}")
    return None if reason else receipt


def read_receipt(folder: Path) -> Receipt | None:
    """Return the receipt in a folder; None: there is none, or it is damaged."""
    try:
        receipt = Receipt.model_validate_json((folder / RECEIPT).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
    return receipt if receipt == receipt.sealed() else None


def write_receipt(
    folder: Path,
    recipe_folder: Path,
    identity: dict[str, str],
    result: dg.MaterializeResult,  # type: ignore[type-arg]
    warnings: list[str],
) -> None:
    """Write the receipt of an asset that has been made: the last of its files."""
    if result.data_version is None:
        return
    metadata: dict[str, Any] = dict(result.metadata or {})
    if UNCHANGED in metadata:
        raise ValueError(f"{folder.name}: its metadata hold {UNCHANGED!r}, which says that nothing was made")
    inside = {
        key: Path(value.path).relative_to(recipe_folder.absolute()).as_posix()
        for key, value in metadata.items()
        if isinstance(value, dg.PathMetadataValue)
        and value.path
        and Path(value.path).is_relative_to(recipe_folder.absolute())
    }
    receipt = Receipt(
        identity=identity,
        files={path: FileRecord.of(folder / path) for path in visible_below(folder)},
        data_version=result.data_version.value,
        metadata=serialize_value({key: value for key, value in metadata.items() if key not in inside}),
        paths=inside,
        warnings=warnings,
    )
    write_text(folder / RECEIPT, receipt.sealed().model_dump_json(indent=1) + "\n")


def changed_files(folder: Path, receipt: Receipt) -> list[str]:
    """Return which files of a receipt are not what they were, or are gone.

    Each is read, unless nothing has touched it since this process read it last.
    """
    return [name for name, record in receipt.files.items() if not record.is_of(folder / name)]


@contextmanager
def warnings_of(log: dg.DagsterLogManager) -> Iterator[list[str]]:
    """Collect the warnings that are told to a log meanwhile, as they were worded."""
    told: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.WARNING:
                told.append(record.__dict__["dagster_meta"]["orig_message"])

    collector = Collector()
    log.addHandler(collector)
    try:
        yield told
    finally:
        log.removeHandler(collector)
