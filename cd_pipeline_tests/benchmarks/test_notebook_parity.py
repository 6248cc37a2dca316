"""The benchmark runs from folder to report."""

import json
from pathlib import Path

import pytest

from cd_pipeline_tests.benchmarks import notebook_parity

PAIR_SETS = ("published test", "realistic test", "office", "office + nuisance")


@pytest.mark.slow
def test_the_report_has_every_row_of_the_protocol(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(real_data / "rooms"), "--real-pairs", str(real_data / "real_pairs" / "office")]
    options = [
        "--epochs",
        "1",
        "--seeds",
        "1",
        "--epoch-rounds",
        "1",
        "--json",
        str(tmp_path / "report.json"),
    ]
    monkeypatch.setattr("sys.argv", ["notebook_parity", *arguments, *options])
    notebook_parity.main()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["counts"] | {"manifest": ""} == {"train": 118, "val": 33, "test": 35, "manifest": ""}
    rows = report["seeds"]["1"]
    for name in PAIR_SETS:
        assert {"precision", "recall", "f1", "iou", "best_f1", "mean_image_f1", "oracle_f1"} <= set(
            rows[name]
        )
    assert rows["realistic test"]["pairs"] >= 300
    assert rows["no change + nuisance"]["pairs"] >= 300
    assert report["epoch"]["ratio"] > 0
    printed = capsys.readouterr().out
    assert printed.count(report["counts"]["manifest"]) >= 2
    assert all(name in printed for name in PAIR_SETS)
