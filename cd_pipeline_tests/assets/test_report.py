"""The asset `report`, made by real assets through Dagster on tiny drawn data."""

import html
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from cd_pipeline.data.images import write_png
from cd_pipeline.pipeline import build_pipeline
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace
from cd_pipeline_tests.assets.test_image_pipeline import draw_lines, draw_shapes, mask_recipe, voc_recipe
from cd_pipeline_tests.assets.test_two_date_pipeline import draw_tiles, two_date_recipe
from cd_pipeline_tests.assets.tiny import draw_photos, failure, metadata, tiny_recipe, versions
from cd_pipeline_tests.tiny_pairs import draw_pair

EARLY = {
    "rooms": ("raw_photos", "split", "pair_manifest", "change_masks"),
    "levir": ("raw_pairs", "pair_manifest"),
    "walls": ("raw_images", "split", "image_manifest"),
    "shapes": ("raw_images", "split", "image_manifest"),
}

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_torch_thread")]


@dataclass(frozen=True)
class Run:
    """A run up to the report."""

    recipe: Recipe
    folder: Path
    result: dg.ExecuteInProcessResult

    @property
    def page(self) -> str:
        return (self.folder / "report" / "index.html").read_text()

    @property
    def text(self) -> str:
        """What is read on the page, without its tags."""
        return html.unescape(re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", self.page, flags=re.DOTALL))


def materialize(
    recipe: Recipe, workspace: Path, *select: str, fails: bool = False
) -> dg.ExecuteInProcessResult:
    """Run assets without their checks, which would stop a network that has learnt nothing."""
    return dg.materialize(
        list(build_pipeline(recipe).assets or []),  # type: ignore[arg-type]
        selection=dg.AssetSelection.assets(*(recipe.asset_key(name) for name in select)),
        resources={
            "workspace": Workspace(root=str(workspace)),
            "compute": Compute(device="cpu", threads=1, workers=0),
        },
        raise_on_error=not fails,
    )


def hasty(recipe: Recipe) -> Recipe:
    """The same recipe, trained for one epoch."""
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": 1})})


def until_report(recipe: Recipe, workspace: Path) -> Run:
    threshold = ["threshold"] if recipe.has_threshold else []
    select = [*EARLY[recipe.name], "checkpoint", *threshold, "test_predictions", "report"]
    return Run(recipe, workspace / recipe.name, materialize(recipe, workspace, *select))


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Run:
    photos = draw_photos(tmp_path_factory.mktemp("photos"))
    (photos / "trainval" / "images" / "KITCHEN" / 'a<b>&"c.jpg').write_bytes(b"no picture")
    label = photos / "trainval" / "labels" / "KITCHEN" / "photo_001.txt"
    label.write_text(label.read_text() + "9 <script>nonsense\n")
    return until_report(hasty(tiny_recipe(photos)), tmp_path_factory.mktemp("data"))


def copied(made: Run, root: Path) -> Path:
    shutil.copytree(made.folder, root / made.recipe.name)
    return root


def again(made: Run, root: Path) -> dg.ExecuteInProcessResult:
    return materialize(made.recipe, root, "report", fails=True)


def test_the_page_tells_the_figures_of_the_test_set_beside_differencing(rooms: Run) -> None:
    metrics = json.loads((rooms.folder / "test_predictions" / "metrics.json").read_text())
    assert f"{metrics['f1']:.3f}" in rooms.text
    assert f"F1 of plain differencing: {metrics['differencing_oracle_f1']:.3f}" in rooms.text
    told = metadata(rooms.result, "report")
    assert told["headline"] == f"f1 {metrics['f1']:.3f}"
    assert told["previous"] == "none"
    assert told["examples"] == told["cards"] == metrics["pairs"]
    assert told["megabytes"] == pytest.approx(len(rooms.page.encode()) / 1e6)


def test_what_was_left_out_is_told_with_its_reason(rooms: Run) -> None:
    assert 'trainval/images/KITCHEN/a<b>&"c.jpg' in rooms.text
    assert "cannot be decoded as an image" in rooms.text
    assert "<script>nonsense" in rooms.text or "line 4" in rooms.text or "columns" in rooms.text
    assert "Dropped lines of label files" in rooms.text


def test_counts_and_versions_of_all_that_went_in_are_told(rooms: Run) -> None:
    made = versions(rooms.result)
    for asset in ("checkpoint", "split", "pair_manifest"):
        assert made[asset] in rooms.text, asset
    assert re.search(r"train\s+19\s+19\s", rooms.text)  # photos, and pairs drawn each epoch
    assert re.search(r"test\s+7\s+7\s", rooms.text)


def test_the_same_report_again_has_the_same_bytes_and_no_new_line(rooms: Run, tmp_path: Path) -> None:
    root = copied(rooms, tmp_path)
    assert versions(again(rooms, root)) == {"report": versions(rooms.result)["report"]}
    assert (root / "rooms" / "report" / "index.html").read_text() == rooms.page
    history = (root / "rooms" / "report" / "runs.jsonl").read_text()
    assert history == (rooms.folder / "report" / "runs.jsonl").read_text()
    assert len(history.splitlines()) == 1


def test_another_checkpoint_is_compared_with_the_one_before(rooms: Run, tmp_path: Path) -> None:
    root = copied(rooms, tmp_path)
    path = root / "rooms" / "report" / "runs.jsonl"
    ours = json.loads(path.read_text())
    earlier = {
        **ours,
        "checkpoint_version": "of an earlier one",
        "figures": {**ours["figures"], "f1": 0.0625},
    }
    path.write_text(json.dumps(earlier) + "\n")
    result = again(rooms, root)
    assert metadata(result, "report")["previous"] == "f1 0.062"
    text = Run(rooms.recipe, root / "rooms", result).text
    assert "Against the previous run, checkpoint" in text
    assert f"{ours['figures']['f1'] - 0.0625:+.3f}" in text
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [earlier, ours]


def test_without_the_sweep_there_is_no_page_but_the_remedy(rooms: Run, tmp_path: Path) -> None:
    root = copied(rooms, tmp_path)
    path = root / "rooms" / "test_predictions" / "sweep.parquet"
    path.unlink()
    (root / "rooms" / "report" / "index.html").unlink()
    told = failure(again(rooms, root), "report")
    assert f"{path} is not there: run dagster asset materialize" in told
    assert "\n" not in told
    assert not list((root / "rooms" / "report").glob("*.html"))


def test_metrics_of_another_checkpoint_are_refused(rooms: Run, tmp_path: Path) -> None:
    root = copied(rooms, tmp_path)
    path = root / "rooms" / "test_predictions" / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "checkpoint_version": "of another"}))
    path.with_name(".receipt.json").unlink()  # without it the file is used as it is
    assert "test_predictions was made for another checkpoint" in failure(again(rooms, root), "report")


def test_agreement_and_real_pairs_are_shown_only_if_they_are_of_this_checkpoint(
    rooms: Run, tmp_path: Path
) -> None:
    root = copied(rooms, tmp_path)
    assert "No package has been made yet" in rooms.text
    assert "really taken at two times" not in rooms.text
    ours = json.loads((rooms.folder / "test_predictions" / "metrics.json").read_text())
    form = {"samples": 7, "max_probability_difference": 0.00123, "flipped_share": 0.0, "mask_iou": None}
    scores = {"pairs": 2, "f1": 0.4321, "oracle_f1": 0.8764}
    for version, shown in ((ours["checkpoint_version"], True), ("of another", False)):
        proof = {"forms": {"package": form}, "precision": "float16", "checkpoint_version": version}
        real = {"as they are": scores, "threshold": ours["threshold"], "checkpoint_version": version}
        for path, content in (("mlpackage/agreement.json", proof), ("real_pairs/metrics.json", real)):
            (root / "rooms" / path).parent.mkdir(exist_ok=True)
            (root / "rooms" / path).write_text(json.dumps(content))
        text = Run(rooms.recipe, root / "rooms", again(rooms, root)).text
        assert ("0.00123" in text) is shown
        assert ("0.876" in text) is shown
        assert ("of another checkpoint: materialize mlpackage" in text) is not shown
        assert ("of another checkpoint or threshold: materialize real_pairs" in text) is not shown


def test_the_report_waits_for_what_it_shows_and_for_the_package() -> None:
    from cd_pipeline.assets.report import report_asset

    report = report_asset(Recipe(name="rooms"))
    waits = {key.path[-1] for key in report.dependency_keys}
    shown = {"checkpoint", "threshold", "test_predictions", "pair_manifest", "change_masks", "split"}
    assert waits == {*shown, "mlpackage"}


def test_pairs_of_a_folder_have_a_report_of_whole_pictures(tmp_path: Path) -> None:
    tiles = draw_tiles(tmp_path / "tiles")
    shutil.copy(tiles / "train" / "A" / "tile_0.png", tiles / "train" / "A" / "lonely.png")
    made = until_report(hasty(two_date_recipe(tiles)), tmp_path)
    assert "train/lonely" in made.text
    assert "not in B, label" in made.text
    assert made.page.count('class="swipe"') == 2
    assert re.search(r"train\s+4\s+16\s", made.text)  # pairs, and their tiles


def test_images_of_several_data_sets_have_a_report(tmp_path: Path) -> None:
    draw_lines(tmp_path / "source", "old", 12, grey=120)
    draw_lines(tmp_path / "source", "new", 12, grey=170)
    made = until_report(hasty(mask_recipe(tmp_path / "source")), tmp_path)
    assert {"Data set: new", "Data set: old"} <= set(re.findall(r"Data set: \w+", made.text))
    assert "are rid of areas below 10 px" in made.text
    scores = pd.read_parquet(made.folder / "test_predictions" / "predictions.parquet")
    assert all(f"{Path(file).stem}" in made.text for file in scores["file"])


def test_images_of_several_classes_have_a_report_without_a_threshold(tmp_path: Path) -> None:
    made = until_report(hasty(voc_recipe(draw_shapes(tmp_path / "source", 12))), tmp_path)
    assert 'id="threshold-slider"' not in made.page
    assert "mIoU of the most frequent class everywhere" in made.text
    assert {"Class: ground", "Class: disc", "Class: square"} & set(re.findall(r"Class: \w+", made.text))
    (line,) = (made.folder / "report" / "runs.jsonl").read_text().splitlines()
    assert json.loads(line)["threshold"] is None


def test_real_pairs_of_this_checkpoint_are_shown_apart(tmp_path: Path) -> None:
    for number in range(2):
        pair = draw_pair(number, 80)
        for part, image in zip(("A", "B", "label"), pair.arrays, strict=True):
            write_png(tmp_path / "real" / part / f"office_{number}.png", image)
    recipe = tiny_recipe(draw_photos(tmp_path / "photos"), real_pairs={"folder": str(tmp_path / "real")})
    recipe = hasty(recipe)
    until_report(recipe, tmp_path)
    materialize(recipe, tmp_path, "real_pairs")
    made = Run(recipe, tmp_path / "rooms", materialize(recipe, tmp_path, "report"))
    scores = json.loads((made.folder / "real_pairs" / "metrics.json").read_text())
    assert "Photos really taken at two times" in made.text
    assert f"{scores['as they are']['f1']:.3f}" in made.text
    assert "with nuisance on the second photo" in made.text
