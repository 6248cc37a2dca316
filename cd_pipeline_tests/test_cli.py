"""The command `cd-pipeline` as a user calls it."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Picture
from pyarrow import parquet

from cd_pipeline.cli import main
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.palette import VOC_PALETTE
from cd_pipeline_tests.prediction.known_models import write_torchscript

pytestmark = pytest.mark.usefixtures("one_torch_thread")

ROOT = Path(__file__).parents[1]
HEAVY = ("dagster", "timm", "coremltools", "pandas", "pyarrow", "matplotlib", "torchvision", "onnx")


def two_photos(folder: Path, name: str = "kitchen", seed: int = 0) -> tuple[Path, Path]:
    """Write a photo, and half as large the same with a white square from (100, 60) to (150, 120)."""
    before = np.random.default_rng(seed).integers(40, 90, (160, 240, 3), np.uint8)
    after = before.copy()
    after[60:120, 100:150] = 255
    paths = folder / "before" / f"{name}.png", folder / "after" / f"{name}.png"
    write_png(paths[0], before)
    write_png(paths[1], np.asarray(cv2.resize(after, (120, 80), interpolation=cv2.INTER_AREA), np.uint8))
    return paths


def read(path: Path) -> Image:
    with Picture.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the model that is taken by default."""
    monkeypatch.setenv("CD_PIPELINE_DATA", str(tmp_path / "data"))
    return write_torchscript(tmp_path / "data/rooms/mlpackage/change_ts.pt")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on stderr; nothing may be on stdout."""
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.count("\n") == 1
    assert "Traceback" not in found.err
    return found.err


def test_two_photos_of_unequal_size_get_mask_overlay_and_summary(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = two_photos(tmp_path)
    mask, overlay = tmp_path / "out" / "mask.png", tmp_path / "out" / "overlay.png"
    assert main(["predict", str(before), str(after), "-o", str(mask), "--overlay", str(overlay)]) == 0
    found = read(mask)
    truth = np.zeros((160, 240), np.uint8)
    truth[60:120, 100:150] = 255
    assert found.shape == truth.shape
    assert set(np.unique(found)) == {0, 255}
    assert (found != truth).mean() < 0.03
    shown, photo = read(overlay), read(before)
    assert shown.shape == photo.shape
    assert (shown[90, 125] == (photo[90, 125] * 0.65 + np.array([0, 255, 255]) * 0.35).astype(int)).all()
    assert (shown[10, 10] == photo[10, 10]).all()
    text = capsys.readouterr().out
    share = (found > 0).mean()
    assert text.splitlines()[0] == f"changed: {share:.2%} of the photo; 1 place"


def test_nothing_is_written_that_is_not_asked_for(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = two_photos(tmp_path)
    here = {path for path in tmp_path.rglob("*")}
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(before), str(after)]) == 0
    assert {path for path in tmp_path.rglob("*")} == here


@pytest.mark.parametrize("to_file", [False, True])
def test_the_results_are_json_on_stdout_or_in_a_file(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], to_file: bool
) -> None:
    before, after = two_photos(tmp_path)
    file = tmp_path / "found.json"
    arguments = ["predict", str(before), str(after), "--threshold", "0.4", "--json"]
    assert main([*arguments, str(file)] if to_file else arguments) == 0
    printed = capsys.readouterr().out
    found = json.loads(file.read_text() if to_file else printed)
    assert (found["before"], found["after"]) == (str(before), str(after))
    assert (found["width"], found["height"], found["threshold"]) == (240, 160, 0.4)
    assert found["model"]["recipe"] == "known"
    assert found["model"]["checkpoint_version"] == "c" * 64
    assert found["changed_fraction"] == pytest.approx(50 * 60 / (160 * 240), rel=0.2)
    (box,) = found["boxes"]
    assert abs(box["left"] - 100) <= 8
    assert abs(box["top"] - 60) <= 8
    assert 0.4 < box["mean_probability"] <= box["max_probability"] <= 1


def test_folders_are_paired_by_name_and_what_cannot_be_used_is_named(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("hall", 1), ("bath", 2)):
        two_photos(tmp_path, name, seed)
    (tmp_path / "after/hall.png").rename(tmp_path / "after/hall.bmp")  # another suffix
    write_png(tmp_path / "before/alone.png", np.zeros((20, 20, 3), np.uint8))
    for side in ("before", "after"):
        (tmp_path / side / "broken.jpg").write_bytes(b"no picture")
    write_png(tmp_path / "before/turned.png", np.zeros((40, 60, 3), np.uint8))
    write_png(tmp_path / "after/turned.png", np.zeros((60, 40, 3), np.uint8))
    out, overlays = tmp_path / "out", tmp_path / "shown"
    arguments = ["predict", str(tmp_path / "before"), str(tmp_path / "after"), "-o", str(out)]
    assert main([*arguments, "--overlay", str(overlays)]) == 1
    told = capsys.readouterr()
    assert "2 predicted, 3 left out" in told.out
    assert {line.split(": ")[1] for line in told.err.splitlines()} == {"alone", "broken", "turned"}
    assert {path.name for path in out.iterdir()} == {"bath.png", "hall.png", "predictions.parquet"}
    assert {path.name for path in overlays.iterdir()} == {"bath.jpg", "hall.jpg"}
    rows = {row["name"]: row for row in parquet.read_table(out / "predictions.parquet").to_pylist()}
    assert list(rows) == ["alone", "bath", "broken", "hall", "turned"]
    assert rows["hall"]["reason"] is None
    assert rows["hall"]["changed_fraction"] == (read(out / "hall.png") > 0).mean()
    assert abs(rows["hall"]["boxes"][0]["left"] - 100) <= 8
    assert "not in" in rows["alone"]["reason"]
    assert "broken.jpg: cannot be decoded" in rows["broken"]["reason"]
    assert "different shapes, 60x40 and 40x60 px" in rows["turned"]["reason"]
    assert rows["alone"]["changed_fraction"] is None


def test_a_folder_gives_the_same_bytes_again(tmp_path: Path, model: Path) -> None:
    for name, seed in (("hall", 1), ("bath", 2)):
        two_photos(tmp_path, name, seed)
    outs = [tmp_path / "first", tmp_path / "second"]
    for out in outs:
        assert main(["predict", str(tmp_path / "before"), str(tmp_path / "after"), "-o", str(out)]) == 0
    for name in ("hall.png", "bath.png", "predictions.parquet"):
        first, second = (out / name for out in outs)
        assert first.read_bytes() == second.read_bytes()


def test_one_photo_goes_to_a_model_of_single_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("background", "road", "car")
    street = write_torchscript(tmp_path / "street_ts.pt", pictures=1, classes=3, class_names=names)
    photo = np.zeros((64, 64, 3), np.uint8)
    photo[:32, :, 0] = photo[32:, :, 1] = 250
    write_png(tmp_path / "photos/corner.png", photo)
    mask = tmp_path / "mask.png"
    arguments = ["predict", str(tmp_path / "photos/corner.png"), "--model", str(street)]
    assert main([*arguments, "-o", str(mask), "--overlay", str(tmp_path / "shown.png")]) == 0
    with Picture.open(mask) as stored:
        assert stored.mode == "P"
        assert list(stored.getpalette() or [])[:9] == VOC_PALETTE[:3].ravel().tolist()
        assert np.asarray(stored)[[5, 60], 30].tolist() == [0, 1]
    assert "road: 50.00%" in capsys.readouterr().out
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "photos"), "--model", str(street), "-o", str(out)]) == 0
    (row,) = parquet.read_table(out / "predictions.parquet").to_pylist()
    assert row["name"] == "corner"
    assert [part["class_name"] for part in row["fractions"]] == list(names)
    assert row["boxes"][0]["class_name"] == "road"


def test_without_the_default_model_the_error_says_how_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = two_photos(tmp_path)
    monkeypatch.setenv("CD_PIPELINE_DATA", str(tmp_path / "nothing"))
    assert main(["predict", str(before), str(after)]) == 2
    remedy = 'dagster asset materialize -m cd_pipeline.definitions --select "*mlpackage"'
    assert f"change_ts.pt is not there: run {remedy}" in said(capsys)


def test_what_was_released_goes_before_what_was_only_made(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = two_photos(tmp_path)
    release = tmp_path / "data/rooms/release"
    write_torchscript(release / "versions/0123456789ab/change_ts.pt", recipe="released")
    (release / "current").symlink_to("versions/0123456789ab")
    assert main(["predict", str(before), str(after), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["model"]
    assert (told["recipe"], told["path"]) == ("released", str(release / "current/change_ts.pt"))


def test_a_release_that_leads_nowhere_is_no_reason_to_take_what_was_not_released(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = two_photos(tmp_path)
    release = tmp_path / "data/rooms/release"
    release.mkdir()
    (release / "current").symlink_to("versions/0123456789ab")
    assert main(["predict", str(before), str(after)]) == 2
    remedy = "ship a version with cd-pipeline release rollback VERSION"
    assert f"current/change_ts.pt is not there: {remedy}" in said(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{before}"], "one photo needs a model of single images"),
        (["{before}", "{after}", "{after}"], "3 photos given, expected one or two"),
        (["{before}", "nowhere.png"], "nowhere.png: no such file or folder"),
        (["{before}", "{folder}"], "give two photos or two folders"),
        (["{folder}", "{folder}"], "folders need a folder for the masks: -o OUT"),
        (["{before}", "{after}", "-o", "{before}"], "would write over what is read"),
        (["{folder}", "{folder}", "-o", "{folder}"], "would write over what is read"),
        (["{before}", "{after}", "-o", "mask.jpg"], "expected a name that ends in .png"),
        (["{before}", "{after}", "--overlay", "o.gif"], "expected a name that ends in .png or .jpg"),
        (["{before}", "--json", "{after}"], "expected a name that ends in .json"),
        (
            ["{before}", "{after}", "--threshold", "1.5"],
            "threshold is 1.5; expected a number from 0 to below 1",
        ),
        (["{before}", "{after}", "--model", "{before}"], "is no model; expected TorchScript"),
        (["{before}", "{after}", "--device", "tpu"], "device is 'tpu', which this machine lacks"),
        (["{before}", "{blank}", "--register", "ecc"], "could not be registered by ecc"),
        (["{text}", "{after}"], "notes.png: cannot be decoded as an image"),
    ],
)
def test_a_wrong_call_is_one_line_and_code_2(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before, after = two_photos(tmp_path)
    (tmp_path / "notes.png").write_text("no picture")
    write_png(tmp_path / "blank.png", np.zeros((160, 240, 3), np.uint8))
    places = {"before": before, "after": after, "folder": tmp_path / "before"}
    places |= {"text": tmp_path / "notes.png", "blank": tmp_path / "blank.png"}
    content = before.read_bytes()
    assert main(["predict", *(argument.format(**places) for argument in arguments)]) == 2
    assert message in said(capsys)
    assert before.read_bytes() == content


@pytest.mark.parametrize("arguments", [["predict"], ["predict", "a", "--fit", "stretch"], ["train"], []])
def test_what_the_parser_refuses_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "--help" in said(capsys)


def test_help_tells_the_exit_codes_and_version_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (
        (["predict", "--help"], "exit codes: 0 done; 1 some"),
        (["predict", "--help"], "rooms/release/current/change_ts.pt"),
        (["release", "--help"], "exit codes: 0 done; 2 wrong"),
        (["--version"], "cd-pipeline 0"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert expected in " ".join(capsys.readouterr().out.split())


def run_cold(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_two_photos_need_none_of_the_heavy_packages(tmp_path: Path, model: Path) -> None:
    before, after = two_photos(tmp_path)
    arguments = ["predict", str(before), str(after), "-o", str(tmp_path / "mask.png"), "--json"]
    done = run_cold(
        f"import sys; from cd_pipeline.cli import main; code = main({arguments!r}); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], code, file=sys.stderr)"
    )
    assert done.stderr.strip() == "[] 0"
    assert json.loads(done.stdout)["boxes"]


@pytest.mark.slow
def test_a_cold_call_takes_at_most_twice_the_import_of_torch(tmp_path: Path, model: Path) -> None:
    before, after = two_photos(tmp_path)
    arguments = ["predict", str(before), str(after), "--overlay", str(tmp_path / "overlay.png")]
    seconds: dict[str, list[float]] = {"floor": [], "call": []}
    for _ in range(3):
        for name, code in (
            ("floor", "import torch, cv2"),
            ("call", f"from cd_pipeline.cli import main; main({arguments!r})"),
        ):
            start = time.perf_counter()
            run_cold(code)
            seconds[name].append(time.perf_counter() - start)
    assert statistics.median(seconds["call"]) <= 2 * statistics.median(seconds["floor"])
