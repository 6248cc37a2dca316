"""A file that was cut short, zeroed or altered is made again or refused by name, and never silently used."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from cd_pipeline.assets.memo import RECEIPT
from cd_pipeline.pipeline import build_pipeline
from cd_pipeline_tests.assets.tiny import failure
from cd_pipeline_tests.faults.conftest import SELECTED, Undisturbed
from cd_pipeline_tests.faults.driver import Runner
from cd_pipeline_tests.faults.files import contents, files_below
from cd_pipeline_tests.faults.recipes import recipes, resources

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_torch_thread")]

READERS = {
    "split": "pair_manifest",
    "pair_manifest": "change_masks",
    "change_masks": "threshold",
    "checkpoint": "threshold",
    "threshold": "test_predictions",
    "test_predictions": "report",
    "mlpackage": "report",
}
"""Of each asset one that reads it, and takes no time."""


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def zero(content: bytes) -> bytes:
    return bytes(len(content))


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


FAULTS = (cut, zero, flip)
Fault = Callable[[bytes], bytes]


def spoil(path: Path, fault: Fault) -> None:
    """Alter a file as a bad disk does: its times stay."""
    times = path.stat()
    path.write_bytes(fault(path.read_bytes()))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture
def finished(undisturbed: dict[str, Undisturbed], tmp_path: Path) -> Path:
    """A copy of a finished data root, to be spoilt."""
    return shutil.copytree(undisturbed["rooms"].data, tmp_path / "data")


@pytest.mark.parametrize("first", [0, 1])
def test_a_run_makes_every_damaged_file_again(
    first: int, finished: Path, runner: Runner, undisturbed: dict[str, Undisturbed]
) -> None:
    for number, path in enumerate(files_below(finished), start=first):
        if path.name not in (RECEIPT, "runs.jsonl"):
            spoil(path, FAULTS[number % len(FAULTS)])
    runner.complete(finished, "rooms", SELECTED["rooms"])
    assert contents(finished) == undisturbed["rooms"].files


def test_a_run_with_damaged_receipts_makes_all_again(
    finished: Path, runner: Runner, undisturbed: dict[str, Undisturbed]
) -> None:
    receipts = [path for path in files_below(finished) if path.name == RECEIPT]
    for number, path in enumerate(receipts):
        spoil(path, FAULTS[number % len(FAULTS)])
    run = runner.complete(finished, "rooms", SELECTED["rooms"])
    assert "unchanged: " not in run.told()
    assert contents(finished) == undisturbed["rooms"].files


def materialize(raw: Path, data: Path, asset: str) -> dg.ExecuteInProcessResult:
    recipe = recipes(raw)["rooms"]
    return dg.materialize(
        list(build_pipeline(recipe).assets or []),  # type: ignore[arg-type]
        selection=dg.AssetSelection.assets(recipe.asset_key(asset)),
        resources=resources(data),
        raise_on_error=False,
    )


@pytest.mark.parametrize("asset", READERS)
def test_an_asset_that_is_run_alone_names_each_damaged_file_of_what_it_reads(
    asset: str, finished: Path, raw: Path
) -> None:
    reader = READERS[asset]
    for number, path in enumerate(files_below(finished / "rooms" / asset)):
        if path.name == RECEIPT:
            continue
        whole = path.read_bytes()
        for fault in FAULTS if number < 9 else FAULTS[number % 3 :][:1]:
            spoil(path, fault)
            result = materialize(raw, finished, reader)
            assert not result.success, f"{path} {fault.__name__}: used"
            told = failure(result, reader)
            assert told.startswith(f"{path} is not the file that {asset} wrote"), told
            assert f'--select "*{asset}"' in told
        path.write_bytes(whole)
    assert materialize(raw, finished, reader).success


@pytest.mark.parametrize("asset", READERS)
def test_damaged_files_without_a_receipt_give_one_clear_line_or_a_result(
    asset: str, finished: Path, raw: Path
) -> None:
    reader, folder = READERS[asset], finished / "rooms" / asset
    (folder / RECEIPT).unlink()
    kinds = {(path.parent, path.suffix): path for path in files_below(folder)}
    for path in kinds.values():
        whole = path.read_bytes()
        for fault in FAULTS:
            spoil(path, fault)
            result = materialize(raw, finished, reader)
            if not result.success:
                told = failure(result, reader)  # a failure that nobody foresaw has no description
                assert "\n" not in told and ("materialize" in told or "put it back" in told), told
        path.write_bytes(whole)
