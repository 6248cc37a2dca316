"""Damaged label files, lists, manifests, tables and JSON: read, or refused in a line that names the remedy."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cd_pipeline.data.frames import read_frame, write_frame
from cd_pipeline.data.image_manifest import (
    LabelledImage,
    read_labelled_images,
    read_masked_images,
    write_labelled_images,
    write_masked_images,
)
from cd_pipeline.data.labels import CLASS_LIMIT, Box, parse_labels
from cd_pipeline.data.listing import read_names
from cd_pipeline.data.manifest import (
    ManifestError,
    Pair,
    plan_version_of,
    read_pairs,
    read_photos,
    read_two_date,
    write_pairs,
    write_photos,
    write_two_date,
)
from cd_pipeline.data.masked_images import MaskedImage
from cd_pipeline.data.photos import Photo
from cd_pipeline.data.samples import Roots
from cd_pipeline.data.two_date import TwoDatePair
from cd_pipeline.evaluation.threshold import ChosenThreshold
from cd_pipeline_tests.fuzz.mutations import damaged, names, outcomes, written

SLOW = pytest.mark.slow
WORDS = (
    *("0", "1", "-1", "0.5", ".5", "1e-9", "1e999", "nan", "inf", "-0", "0x1", "1_0", "٣", "9" * 400),
    *(" ", " ", " ", " ", "\t", "\n", "\n", "\r\n", "\x0b", "\x1c", "\x85", "\u2028", "\u3000", "\x00"),
    *("chair", ",", "\ufeff", "\ud800", "가", "#", "'", '"'),
)
LABELS = (b"0 0.5 0.5 0.2 0.2\n3 0.25 0.75 0.5 0.5\n", b"\xef\xbb\xbf1\t.5 .5 1 1\r\n", b"")
BOX = Box(1, 0.5, 0.5, 0.25, 0.25)
PHOTO = Photo("images/a/b.jpg", "", "a", "labels/a/b.txt", *"abc", 64, 48, (BOX, BOX), ("line 1: x",), None)
PAIR = Pair(
    pair_id="b__01234567",
    split="train",
    class_name="a",
    before="source:images/a/b.jpg",
    after="workspace:change_masks/train/after/b.png",
    mask="workspace:change_masks/train/mask/b.png",
    photo="images/a/b.jpg",
    photo_sha256="c" * 64,
    width=64,
    height=48,
    boxes=(BOX,),
    seed=5,
    changed=True,
    plan={"changes": [], "truthful": True, "jpeg_quality": 90},
    crop={"left": 0, "top": 0, "width": 32, "height": 32},
)
IMAGE = LabelledImage(
    *("a", "train", "", "source:images/a.png", "source:masks/a.png", "b" * 64, "c" * 64),
    *(3, 255, False, None, True, 2.0, 64, 48, 7, (5, 6, 7)),
)
FOUND = MaskedImage("a", "", "images/a.png", "masks/a.png", class_pixels=((0, 5), (2, 7)), split="val")
THRESHOLD = ChosenThreshold(0.5, 0.25, 0.125, 0.5, 0.75, "abc", {"pairs": "own"})


def read_label_text(content: bytes) -> None:
    text = content.decode("utf-8-sig", errors="replace")
    boxes, dropped = parse_labels(text)
    assert len(boxes) + len(dropped) == sum(bool(line.strip()) for line in text.splitlines())
    assert all(abs(box.class_id) < CLASS_LIMIT and 0 < min(box.w, box.h) <= 1 for box in boxes)
    assert all(len(reason) < 700 and len(reason.splitlines()) == 1 for reason in dropped)


@pytest.mark.parametrize("count", [2_000, pytest.param(40_000, marks=SLOW)])
def test_every_line_of_a_damaged_label_file_is_a_box_or_a_reason(count: int) -> None:
    made = (text.encode(errors="surrogatepass") for text in written(WORDS, count // 2, seed=count))
    assert outcomes(read_label_text, made, ValueError)["refused"] == 0
    assert outcomes(read_label_text, damaged(LABELS, count // 2, seed=count), ValueError)["refused"] == 0


@pytest.mark.parametrize("count", [200, pytest.param(2_000, marks=SLOW)])
def test_a_damaged_list_of_names_is_names_or_an_error_that_names_it(tmp_path: Path, count: int) -> None:
    path = tmp_path / "train.txt"
    lists = ["\n".join(names(5, seed=seed)).encode(errors="surrogateescape") for seed in range(20)]

    def read(content: bytes) -> None:
        path.write_bytes(content)
        found = read_names(path)
        assert found is not None and all(isinstance(name, str) for name in found)

    found = outcomes(read, damaged(lists, count, seed=count), ValueError)
    assert min(found["read"], found["refused"]) > count // 50


TABLES: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "photos": (lambda path: write_photos(path, [PHOTO] * 3), read_photos),
    "two dates": (lambda path: write_two_date(path, [TwoDatePair("a", "val", "A/a.png")] * 3), read_two_date),
    "pairs": (lambda path: write_pairs(path, [PAIR, replace(PAIR, after=None)], "1"), read_pairs),
    "found images": (lambda path: write_masked_images(path, [FOUND] * 3, "1"), read_masked_images),
    "images": (lambda path: write_labelled_images(path, [IMAGE] * 3, "1"), read_labelled_images),
    "plan version": (lambda path: write_pairs(path, [PAIR], "1"), plan_version_of),
}


@pytest.mark.parametrize("count", [60, pytest.param(1_000, marks=SLOW)])
@pytest.mark.parametrize("kind", TABLES)
def test_a_damaged_manifest_is_rows_or_an_error_with_the_remedy(
    tmp_path: Path, kind: str, count: int
) -> None:
    write, read_back = TABLES[kind]
    path = tmp_path / "pair_manifest" / "pairs.parquet"
    write(path)
    whole = path.read_bytes()

    def read(content: bytes) -> None:
        path.write_bytes(content)
        try:
            read_back(path)
        except ManifestError as error:
            assert "pairs.parquet: " in str(error) and "materialize pair_manifest again" in str(error)
            raise

    found = outcomes(read, damaged([whole], count, seed=count), ManifestError)
    assert found["refused"] > count // 4


@pytest.mark.parametrize("count", [60, pytest.param(1_000, marks=SLOW)])
def test_a_damaged_table_of_figures_is_a_table_or_an_error_with_the_remedy(
    tmp_path: Path, count: int
) -> None:
    path = tmp_path / "checkpoint" / "history.parquet"
    write_frame(path, pd.DataFrame({"epoch": [1, 2], "val_f1": [0.25, None], "name": ["a", "b"]}))
    whole = path.read_bytes()

    def read(content: bytes) -> None:
        path.write_bytes(content)
        read_frame(path)

    assert outcomes(read, damaged([whole], count, seed=count), ValueError)["refused"] > count // 4


JSON_WORDS = (
    *('{"threshold": ', "0.5", "1", "-1", "1e999", "NaN", "Infinity", "true", "null", '"a"', "9" * 5000),
    *(', "f1": ', ', "iou": ', ', "precision": ', ', "recall": ', ', "checkpoint_version": ', "[", "]", "{"),
    *("}", ", ", '"chosen_by": ', "\\ud800", "\x00", "[" * 3000, '{"a":' * 3000),
)


@pytest.mark.parametrize("count", [500, pytest.param(4_000, marks=SLOW)])
def test_a_damaged_threshold_is_a_number_of_0_to_1_or_an_error_with_the_remedy(
    tmp_path: Path, count: int
) -> None:
    path = tmp_path / "threshold" / "threshold.json"
    THRESHOLD.save(path)
    whole = path.read_bytes()

    def read(content: bytes) -> None:
        path.write_bytes(content)
        assert 0 <= ChosenThreshold.load(path).threshold <= 1

    found = outcomes(read, damaged([whole], count // 2, seed=count), ValueError)
    assert min(found["read"], found["refused"]) > count // 100
    made = (text.encode(errors="surrogatepass") for text in written(JSON_WORDS, count // 2, seed=count))
    assert outcomes(read, made, ValueError)["refused"] > count // 4


@pytest.mark.parametrize("value", [None, True, "0.5", float("nan"), float("inf"), -0.1, 1.1, [0.5], {}])
@pytest.mark.parametrize("field", ["threshold", "f1", "recall"])
def test_a_threshold_file_of_other_values_is_refused_by_the_name_of_the_field(
    tmp_path: Path, field: str, value: object
) -> None:
    path = tmp_path / "threshold.json"
    THRESHOLD.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(ValueError, match=rf"threshold\.json: .*{field}: found .*materialize threshold again"):
        ChosenThreshold.load(path)


@pytest.mark.parametrize("count", [1_000, pytest.param(20_000, marks=SLOW)])
def test_no_reference_leads_out_of_its_root(tmp_path: Path, count: int) -> None:
    roots = Roots(tmp_path / "source", tmp_path / "workspace")
    below = (str(roots.source.resolve()), str(roots.workspace.resolve()))

    def read(content: bytes) -> None:
        found = roots.resolve(content.decode(errors="surrogateescape"))
        assert str(found.resolve()).startswith(below)

    paths = (name.encode(errors="surrogateescape") for name in names(count, seed=count))
    references = (scheme + path for path in paths for scheme in (b"source:", b"workspace:", b""))
    found = outcomes(read, references, ValueError)
    assert min(found["read"], found["refused"]) > count // 10
