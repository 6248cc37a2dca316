"""What tells one raw folder, or one machine, from another."""

import os
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cd_pipeline.assets.identity import (
    accelerators,
    predicting,
    predicting_in_shards,
    raw_source,
    real_pairs_and_machine,
    training,
)
from cd_pipeline.data.images import write_png
from cd_pipeline.data.palette import VOC_PALETTE, write_palette_png
from cd_pipeline.recipe import Recipe
from cd_pipeline.resources import Compute, Workspace
from cd_pipeline_tests.assets.tiny import tiny_recipe
from cd_pipeline_tests.drawn import draw_photo_tree
from cd_pipeline_tests.tiny_pairs import draw_pair

WORKSPACE, COMPUTE = Workspace(root="data"), Compute(device="cpu", threads=2)


def draw_two_date(root: Path) -> None:
    for split in ("train", "val", "test"):
        pair = draw_pair(1, 16)
        for part, image in zip(("A", "B", "label"), pair.arrays, strict=True):
            write_png(root / split / part / "tile.png", image)


def draw_listed(root: Path) -> None:
    for part, image in zip(("A", "B", "label"), draw_pair(1, 16).arrays, strict=True):
        write_png(root / part / "tile.png", image)
    for split in ("train", "val", "test"):
        (root / "list").mkdir(exist_ok=True)
        (root / "list" / f"{split}.txt").write_text("tile\n")


def draw_masked(root: Path) -> None:
    for data_set in ("one", "two"):
        (before, _), mask, _ = draw_pair(1, 16)
        write_png(root / data_set / "images" / "wall.png", before)
        write_png(root / data_set / "masks" / "wall.png", mask)


def draw_voc(root: Path) -> None:
    tree = root / "VOCdevkit" / "VOC2012"
    (before, _), mask, _ = draw_pair(1, 16)
    write_png(tree / "JPEGImages" / "scene.png", before)
    write_palette_png(tree / "SegmentationClass" / "scene.png", mask // 255, VOC_PALETTE)
    lists = tree / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("scene\n")


LAYOUTS = {
    "labelled_photos": lambda root: draw_photo_tree(root, {"trainval": {"A": 2}, "test": {"A": 1}}),
    "labelled_photos, one tree": lambda root: draw_photo_tree(root, {"": {"A": 2}}),
    "two_date": draw_two_date,
    "two_date, listed": draw_listed,
    "masked_images": draw_masked,
    "voc": draw_voc,
}


def recipe_of(layout: str, root: Path) -> Recipe:
    source = {"layout": layout.partition(",")[0], "folder": str(root)}
    network = {} if layout.startswith(("labelled", "two_date")) else {"name": "unet"}
    losses = {"masked_images": {"preset": "cracks"}, "voc": {"preset": "voc"}}
    own = {"pairs": "own"} if not layout.startswith(("labelled", "voc")) else {}
    return Recipe.model_validate(
        {
            "name": "some",
            "source": source,
            "model": network,
            "training": losses.get(layout, {}),
            "threshold": own,
        }
    )


def seen(layout: str, root: Path) -> object:
    return raw_source(recipe_of(layout, root))(workspace=WORKSPACE, compute=COMPUTE)["source"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_byte_and_name_that_a_reader_sees_makes_another_folder(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    found = [seen(layout, tmp_path)]
    for number, path in enumerate(files):
        whole, times = path.read_bytes(), path.stat()
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # content decides
        found.append(seen(layout, tmp_path))
        path.write_bytes(whole)
        other = path.rename(path.with_name("other" + path.suffix))
        found.append(seen(layout, tmp_path))
        other.rename(path)
        more = path.with_name(f"more_{number}{path.suffix}")
        more.write_bytes(b"")
        found.append(seen(layout, tmp_path))
        more.unlink()
    assert len(set(found)) == len(found)
    assert seen(layout, tmp_path) == found[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_no_reader_looks_at_and_file_times_change_nothing(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path)
    before = seen(layout, tmp_path)
    for path in list(tmp_path.rglob("*")):
        os.utime(path)
        if path.is_dir():
            (path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "README.txt").write_text("notes")
    assert seen(layout, tmp_path) == before


def test_the_order_of_the_files_and_the_threads_change_nothing(tmp_path: Path) -> None:
    draw_photo_tree(tmp_path / "one", {"": {"A": 5}})
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    before = seen("labelled_photos", tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "old")
    random.Random(1).shuffle(files)
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((tmp_path / "old" / path.relative_to(tmp_path / "one")).read_bytes())
    recipe = recipe_of("labelled_photos", tmp_path / "one")
    for threads in (1, 4):
        found = raw_source(recipe)(workspace=WORKSPACE, compute=Compute(device="cpu", threads=threads))
        assert found["source"] == before


def test_files_behind_links_to_folders_are_seen(tmp_path: Path) -> None:
    draw_photo_tree(tmp_path / "real", {"": {"A": 1}})
    (tmp_path / "linked").mkdir()
    for part in ("images", "labels"):
        (tmp_path / "linked" / part).symlink_to(tmp_path / "real" / part)
    (tmp_path / "real" / "images" / "up").symlink_to(tmp_path / "real" / "images")  # leads back up
    before = seen("labelled_photos", tmp_path / "linked")
    (photo,) = (tmp_path / "real" / "images" / "A").iterdir()
    photo.write_bytes(b"another")
    assert seen("labelled_photos", tmp_path / "linked") != before
    photo.unlink()
    photo.symlink_to(tmp_path / "nowhere")
    assert seen("labelled_photos", tmp_path / "linked") != before


def test_a_folder_without_the_layout_is_refused_as_its_reader_does(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected images/<class>/ and labels/<class>/"):
        seen("labelled_photos", tmp_path)


def test_real_pairs_are_told_by_content_and_none_by_their_absence(tmp_path: Path) -> None:
    for part, image in zip(("A", "B", "label"), draw_pair(1, 16).arrays, strict=True):
        write_png(tmp_path / part / "office.png", image)
    also = real_pairs_and_machine(tiny_recipe(None, real_pairs={"folder": str(tmp_path)}))
    before = also(workspace=WORKSPACE, compute=COMPUTE)
    (tmp_path / "label" / "office.png").write_bytes(b"other")
    after = also(workspace=WORKSPACE, compute=COMPUTE)
    assert before["real pairs"] != after["real pairs"]
    assert before["machine"] == after["machine"]
    none = real_pairs_and_machine(tiny_recipe(None))(workspace=WORKSPACE, compute=COMPUTE)
    assert none == {"real pairs": "none"}


def test_training_depends_on_threads_and_precision_and_prediction_on_neither(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)

    def trains(compute: Compute) -> Mapping[str, object]:
        return training(recipe)(workspace=WORKSPACE, compute=compute)

    others = (
        Compute(device="cpu", threads=3),
        Compute(device="cpu", threads=2, precision="bfloat16"),
        Compute(device="cpu", threads=2, processes=2),
    )
    for other in others:
        assert trains(other) != trains(COMPUTE)
        assert predicting(WORKSPACE, other) == predicting(WORKSPACE, COMPUTE)
    assert trains(Compute(device="cpu", threads=2, workers=5)) == trains(COMPUTE)
    assert predicting(WORKSPACE, Compute(device="auto")) != predicting(WORKSPACE, COMPUTE)


@pytest.fixture
def another_machine(tmp_path: Path) -> Iterator[None]:
    """From here on other GPUs, and another limit of CPUs."""
    (tmp_path / "gpus" / "0").mkdir(parents=True)
    (tmp_path / "gpus" / "0" / "information").write_text("Model: \t NVIDIA H200\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cd_pipeline.assets.identity.GPUS", tmp_path / "gpus")
        patch.setattr("cd_pipeline.resources.usable_cores", lambda: 77)
        patch.setenv("CUDA_VISIBLE_DEVICES", "3")
        yield


def told_of(compute: dict[str, object], **settings: object) -> list[Mapping[str, object]]:
    """What tells the training and the predictions of a recipe."""
    pytest.importorskip("ray")
    recipe, resource = tiny_recipe(None, compute=compute), Compute(**settings)  # type: ignore[arg-type]
    return [also(recipe)(workspace=WORKSPACE, compute=resource) for also in (training, predicting_in_shards)]


ON_CLUSTER: dict[str, object] = {"engine": "ray", "address": "head:6379"}


@pytest.mark.parametrize(
    ("compute", "variable", "same"),
    [
        (ON_CLUSTER, "", True),
        ({"engine": "ray"}, "head:6379", True),
        ({"engine": "ray"}, "", False),
        ({"engine": "local"}, "head:6379", False),
    ],
    ids=["address of the recipe", "RAY_ADDRESS", "a cluster of this machine alone", "no cluster"],
)
def test_work_on_a_cluster_is_not_done_again_because_another_machine_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    compute: dict[str, object],
    variable: str,
    same: bool,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", variable)
    before = told_of(compute)
    request.getfixturevalue("another_machine")
    assert [old == new for old, new in zip(before, told_of(compute), strict=True)] == [same, same]


def test_an_address_that_differs_in_every_run_of_a_job_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for address in ("10.0.0.1:6379", "10.0.0.2:6379"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        found.append(told_of({"engine": "ray"}))
    assert found[0] == found[1]


def test_training_on_a_cluster_depends_on_which_it_is_and_on_what_is_asked_of_it() -> None:
    trained, predicted = told_of(ON_CLUSTER)
    assert told_of({**ON_CLUSTER, "workers": 8}) != [trained, predicted]
    assert told_of({**ON_CLUSTER, "workers": 8})[1] == predicted
    assert told_of(ON_CLUSTER, threads=4)[0] != trained
    for other in (
        told_of({"engine": "ray", "address": "other:6379"}),
        told_of({"engine": "local"}),
        told_of(ON_CLUSTER, device="cpu"),
    ):
        assert other[0] != trained
        assert other[1] != predicted


def test_weights_that_training_starts_from_are_told_by_content(tmp_path: Path) -> None:
    start = tmp_path / "start.pt"
    recipe = tiny_recipe(tmp_path, model={"start_from": str(start)})
    found = []
    for content in (b"one", b"two"):
        start.write_bytes(content)
        found.append(training(recipe)(workspace=WORKSPACE, compute=COMPUTE))
    assert found[0] != found[1]


def test_gpus_are_told_by_their_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cd_pipeline.assets.identity.GPUS", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert accelerators()[2:] == ("all",)
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   \t\t 12\n")
    assert accelerators()[2:] == ("all", "NVIDIA H200")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert accelerators()[2:] == ("1", "NVIDIA H200")
