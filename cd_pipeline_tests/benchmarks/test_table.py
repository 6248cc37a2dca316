"""The table of ratios: its sides agree, its rows are what they say, and its JSON can be read."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cd_pipeline_tests.benchmarks.cases import CASES
from cd_pipeline_tests.benchmarks.cases.tiled_prediction import OVERLAP, TILE, weights
from cd_pipeline_tests.benchmarks.measure import OURS, REFERENCE, Case, MeasureError, figures, measure

SMALL = {"sweep": {"images": 3, "side": 48}, "image_scores": {"images": 2, "side": 48}}


@pytest.mark.parametrize("name", SMALL)
def test_both_sides_of_a_sweep_find_the_same(name: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"cd_pipeline_tests.benchmarks.cases.{name}")
    sides = [side(tmp_path, SMALL[name]) for side in (module.ours, module.reference)]
    for side in sides:
        side.run()
    assert "equal counts" in module.compare(*(side.answer() for side in sides))


def test_a_sweep_that_counts_one_pixel_otherwise_is_found_out(tmp_path: Path) -> None:
    module = importlib.import_module("cd_pipeline_tests.benchmarks.cases.sweep")
    side = module.reference(tmp_path, SMALL["sweep"])
    side.run()
    counts, threshold, f1 = side.answer()
    other = counts.copy()
    other[0, 0] += 1
    with pytest.raises(AssertionError, match="Mismatched elements: 1"):
        module.compare((other, threshold, f1), (counts, threshold, f1))


def test_figures_are_median_and_spread_of_the_rounds() -> None:
    found = figures([(3.0, 4.0), (1.0, 2.0), (2.0, 9.0)])
    assert found == {"seconds": 2.0, "low": 1.0, "high": 3.0, "cpu_seconds": 4.0}


def test_the_weights_of_two_neighbouring_tiles_are_never_0_and_fall_over_the_overlap_alone() -> None:
    side = 2 * TILE - OVERLAP
    left, right = weights(0, side), weights(TILE - OVERLAP, side)
    np.testing.assert_array_equal(left[: TILE - OVERLAP], 1)
    np.testing.assert_allclose(left[TILE - OVERLAP :] + right[:OVERLAP], 1, rtol=1e-6)


def test_every_case_has_a_name_and_a_module_of_its_own_kind() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    folder = Path(__file__).parent / "cases"
    assert all((folder / f"{case.module}.py").is_file() for case in CASES)
    assert all(case.quick.keys() == case.sizes.keys() for case in CASES)


@pytest.mark.slow
def test_a_side_that_fails_is_named_with_its_reason(tmp_path: Path) -> None:
    case = Case("no images", "sweep", "", "", "", {"images": 0, "side": 8})
    with pytest.raises(MeasureError, match=r"no images, reference(.|\n)*not enough values"):
        measure(case, tmp_path, quick=False)


@pytest.mark.slow
def test_the_quick_table_of_one_case_is_json_with_a_ratio() -> None:
    command = [sys.executable, "-m", "cd_pipeline_tests.benchmarks", "--quick", "--only", "sweep", "--json"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    (case,) = json.loads(done.stdout)["cases"]
    (row,) = case["rows"]
    assert (case["name"], row["name"]) == ("sweep", "sweep")
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"] and row["cpu_ratio"] > 0
    for side in (OURS, REFERENCE):
        assert row[side]["low"] <= row[side]["seconds"] <= row[side]["high"]
        assert case["memory"][side]["peak_mb"] >= case["memory"][side]["before_mb"] > 0
    assert "equal counts at 40 thresholds" in case["agreement"]
