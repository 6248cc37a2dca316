"""The report's page: its facts, its pictures, and the HTML, read by Python's own parser."""

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Picture

from cd_pipeline.data.files import bytes_digest
from cd_pipeline.data.frames import write_frame
from cd_pipeline.data.image_manifest import LabelledImage
from cd_pipeline.data.images import Image, write_png
from cd_pipeline.data.manifest import Pair
from cd_pipeline.data.palette import VOC_PALETTE, write_palette_png
from cd_pipeline.data.samples import Roots, Sample
from cd_pipeline.data.task import MaskForm
from cd_pipeline.evaluation.image_sweep import ImageSweep
from cd_pipeline.evaluation.report_page.cards import Card, CardMaker, chosen_examples, require_scores
from cd_pipeline.evaluation.report_page.curves import Chart, Series, ticks
from cd_pipeline.evaluation.report_page.facts import (
    Beside,
    LeftOut,
    Lineage,
    ReportFacts,
    TestSet,
    Training,
    run_of,
)
from cd_pipeline.evaluation.report_page.page import embedded, render_page, visible
from cd_pipeline.evaluation.report_page.runs import Run, read_runs, with_run, write_runs
from cd_pipeline.evaluation.report_page.sweep_table import read_sweep
from cd_pipeline.evaluation.report_page.tables import breakdowns, comparisons
from cd_pipeline_tests.tiny_images import draw_scene, write_labelled
from cd_pipeline_tests.tiny_pairs import draw_pair, write_pair

THRESHOLD = 0.4
HOSTILE = "a</script><img src=x onerror=alert(1)>\"'&amp;\n`${1}"
METRICS = {
    **{"pairs": 6, "precision": 0.9, "recall": 0.7, "f1": 0.7875, "iou": 0.65, "mean_image_f1": 0.7},
    **{"no_change_pairs": 4, "no_change_alarm_rate": 0.25, "differencing_oracle_f1": 0.3},
    **{"no_change_alarm_rate_low": 0.046, "no_change_alarm_rate_high": 0.699, "held_out_kinds": ["blur"]},
    **{"threshold": THRESHOLD, "checkpoint_version": "c0ffee" * 10},
    "by_class": [
        {"class": "KITCHEN", "pairs": 3, "f1": 0.8, "iou": 0.7},
        {"class": HOSTILE, "pairs": 3, "f1": 0.6, "iou": 0.5},
    ],
    "recall_by_kind": [{"kind": "blur", "changes": 3, "recall": 0.25, "half_found": 0.0}],
    "recall_by_size": [{"size": "above 5 %", "changes": 3, "recall": 0.5, "half_found": 0.5}],
}
HISTORY = [
    {
        **{"epoch": epoch, "train_loss": 1 / epoch, "val_loss": 1.2 / epoch, "val_f1": epoch / 10},
        **{"val_iou": epoch / 12, "train_iou": epoch / 11, "threshold": 0.5},
    }
    for epoch in range(1, 6)
]


@dataclass
class DrawnSet:
    """A drawn test set: what a network is said to have marked on some pairs."""

    root: Path
    pairs: list[Pair] = field(default_factory=list)
    truths: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    probabilities: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def add(self, name: str, class_name: str, sample: Sample, seed: int) -> None:
        truth, rng = sample.mask > 0, np.random.default_rng(seed)
        noise = rng.random((8, 8)).repeat(truth.shape[0] // 8, 0).repeat(truth.shape[1] // 8, 1)
        self.pairs.append(replace(write_pair(self.root, name, sample), class_name=class_name))
        self.truths.append(truth)
        self.probabilities.append((0.6 * noise + 0.35 * truth).astype(np.float32))
        write_png(self.root / "found" / f"{name}.png", (self.marked(-1) * 255).astype(np.uint8))

    def marked(self, number: int, threshold: float = THRESHOLD) -> npt.NDArray[np.bool_]:
        return np.asarray(self.probabilities[number] > np.float32(threshold))

    def scores(self) -> pd.DataFrame:
        rows = []
        for number, (pair, truth) in enumerate(zip(self.pairs, self.truths, strict=True)):
            found = figures_of(self.marked(number), truth)
            counts = {"tp": (self.marked(number) & truth).sum(), "fn": (~self.marked(number) & truth).sum()}
            alarm = bool(self.marked(number).any())
            rows.append({"file": f"{pair.pair_id}.png", "alarm": alarm, **found, **counts})
        return pd.DataFrame(rows)

    def test_set(self, threshold: float = THRESHOLD) -> TestSet:
        sweep, scores = ImageSweep(), self.scores()
        for truth, probability in zip(self.truths, self.probabilities, strict=True):
            sweep.update(probability, truth)
        write_frame(self.root / "sweep.parquet", sweep.frame().assign(file=scores["file"]))
        maker = CardMaker(Roots(self.root, self.root), self.root / "found", len(self.pairs))
        rows = scores.to_dict("records")
        return TestSet(
            metrics=METRICS,
            cards=[maker.make(n, pair, rows[n]) for n, pair in enumerate(self.pairs)],  # type: ignore[arg-type]
            examples=len(self.pairs),
            sweep=read_sweep(self.root / "sweep.parquet", scores, threshold),
        )


def figures_of(marked: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Scores by their textbook formulas; empty on empty is 1."""
    both, either = int((marked & truth).sum()), int((marked | truth).sum())
    return {
        "precision": both / marked.sum() if marked.any() else float(not truth.any()),
        "recall": both / truth.sum() if truth.any() else 1.0,
        "f1": 2 * both / int(marked.sum() + truth.sum()) if either else 1.0,
        "iou": both / either if either else 1.0,
    }


def draw_set(root: Path, count: int = 6, name: str = "p") -> DrawnSet:
    """Pairs of two classes in turn, every fourth without a change, named p0, p1, …"""
    drawn = DrawnSet(root)
    for number in range(count):
        sample = draw_pair(number, changed=number % 4 != 3)
        drawn.add(f"{name}{number}", "KITCHEN" if number % 2 else HOSTILE, sample, number)
    return drawn


def facts_of(test: TestSet, **changes: object) -> ReportFacts:
    """Facts about a drawn test set; the rest is made up."""
    facts = ReportFacts(
        recipe="rooms",
        sample=False,
        run=run_of(test.metrics, "data1"),
        earlier=[],
        test=test,
        training=Training(HISTORY, 4),
        left_out=LeftOut([(HOSTILE, "no <label>")], [("label.txt", "9 nonsense <script>")]),
        lineage=Lineage(
            [("checkpoint_version", "c0ffee")],
            {"torch": "2.9"},
            [{"split": "test", "inputs": 6}],
            {"a": HOSTILE},
        ),
        package=Beside(missing="No package."),
        real_pairs=Beside({"sets": [{"set": "as they are", "pairs": 2, "f1": 0.5, "oracle_f1": 0.8}]}),
    )
    return replace(facts, **changes)  # type: ignore[arg-type]


class Reader(HTMLParser):
    """All elements of a page with their attributes, their texts, and what is not closed in order."""

    VOID = frozenset({"meta", "link", "img", "input", "br", "hr"})

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.faults: list[str] = []
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID and not (tag == "path" or self.get_starttag_text().endswith("/>")):  # type: ignore[union-attr]
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        for tag in dict.fromkeys(self.open):
            self.texts[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> DrawnSet:
    return draw_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def page(drawn: DrawnSet) -> bytes:
    return render_page(facts_of(drawn.test_set()))


def test_every_element_of_the_page_is_closed_and_ids_are_unique(page: bytes) -> None:
    read = Reader(page)
    assert read.faults == []
    assert read.open == []
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    places = [attributes["href"] for attributes in read.all("a")]
    assert {str(place).removeprefix("#") for place in places} <= set(ids)


def test_the_page_asks_for_no_other_file(page: bytes) -> None:
    read = Reader(page)
    for tag, attributes in read.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            if name in attributes and not (tag == "a" and str(attributes[name]).startswith("#")):
                assert str(attributes[name]).startswith("data:"), (tag, name, attributes[name])
    assert all(
        url.startswith("data:") for url in re.findall(r"url\(['\"]?([^)]{0,20})", page.decode()) if url != ""
    )
    assert "@import" not in page.decode()
    (policy,) = [a["content"] for a in read.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in str(policy)


def test_the_policy_allows_the_one_script_of_the_page(page: bytes) -> None:
    import hashlib

    (script,) = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.decode()


def test_a_hostile_name_is_text_wherever_it_stands(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "\\")
    drawn = draw_set(tmp_path, 2, name)
    read = Reader(render_page(facts_of(drawn.test_set(), recipe=HOSTILE)))
    assert read.faults == []
    assert {attributes.get("src") for attributes in read.all("img")}.isdisjoint({"x"})
    assert not any(name.startswith("on") for _, attributes in read.elements for name in attributes)
    assert len(read.all("script")) == 2
    shown = read.texts["h3"]
    assert sorted(shown) == [visible(f"{name}{number}") for number in range(2)]
    assert "\\n" in shown[0]
    assert visible(HOSTILE) in read.texts["title"][0]
    assert json.loads(read.texts["pre"][0]) == {"a": HOSTILE}


@given(st.lists(st.dictionaries(st.text(max_size=9), st.text() | st.integers(), max_size=3), max_size=3))
def test_embedded_json_says_the_same_and_cannot_end_its_element(value: object) -> None:
    text = str(embedded(value))
    assert json.loads(text) == value
    assert not set(text) & set("<>&")


@given(st.text())
def test_nothing_that_cannot_be_seen_is_left_in_a_shown_name(name: str) -> None:
    shown = visible(name)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    shown.encode()


def test_the_same_facts_give_the_same_bytes(drawn: DrawnSet, page: bytes) -> None:
    assert render_page(facts_of(drawn.test_set())) == page


def test_a_page_of_a_hundred_pairs_stays_below_15_megabytes_even_if_they_are_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (320, 320, 3), np.uint8) for _ in range(2)]
    sample = Sample.of_pair(*noise, (rng.random((320, 320)) < 0.5).astype(np.uint8) * np.uint8(255))
    drawn = DrawnSet(tmp_path)
    drawn.add("p0", "KITCHEN", sample, 0)
    first = drawn.test_set().cards[0]
    maker = CardMaker(Roots(tmp_path, tmp_path), tmp_path / "found", cards=100)
    card = maker.make(0, drawn.pairs[0], {**drawn.scores().iloc[0]})
    assert card.size == first.size == (320, 320)
    test = replace(drawn.test_set(), cards=[replace(card, name=f"p{n}") for n in range(100)], examples=100)
    assert 1_000_000 < len(render_page(facts_of(test))) <= 15_000_000


def layer(card: Card, name: str) -> Image:
    """The pixels of a layer that are not clear: 1; or the indices of a picture of classes."""
    if not card.layers[name]:
        return np.zeros(card.size, np.uint8)
    with Picture.open(io.BytesIO(base64.b64decode(card.layers[name].partition(",")[2]))) as picture:
        assert picture.info["transparency"] == 0
        return np.asarray(picture)


def test_layers_are_what_was_found_falsely_marked_and_missed(drawn: DrawnSet) -> None:
    cards = drawn.test_set().cards
    for number, card in enumerate(cards):
        truth, marked = drawn.truths[number], drawn.marked(number)
        np.testing.assert_array_equal(layer(card, "found"), truth & marked)
        np.testing.assert_array_equal(layer(card, "false_alarm"), marked & ~truth)
        np.testing.assert_array_equal(layer(card, "missed"), truth & ~marked)
    assert [card.changed for card in cards] == [True, True, True, False, True, True]
    assert [card.alarm for card in cards] == [None, None, None, True, None, None]


def test_pixels_that_do_not_count_are_in_no_layer(tmp_path: Path) -> None:
    drawn = DrawnSet(tmp_path)
    drawn.add("p0", "KITCHEN", draw_pair(0), 0)
    valid = np.full((64, 64), 255, np.uint8)
    valid[:, :40] = 0
    write_png(tmp_path / "valid.png", valid)
    pair = replace(drawn.pairs[0], valid="workspace:valid.png")
    maker = CardMaker(Roots(tmp_path, tmp_path), tmp_path / "found", 1)
    card = maker.make(0, pair, {**drawn.scores().iloc[0]})
    np.testing.assert_array_equal(
        layer(card, "false_alarm"), drawn.marked(0) & ~drawn.truths[0] & (valid > 0)
    )


def test_classes_are_shown_in_their_colours_and_wrong_ones_as_a_mask(tmp_path: Path) -> None:
    example, indices, found = classes_on_disk(tmp_path)
    maker = CardMaker(
        Roots(tmp_path, tmp_path), tmp_path / "found", 1, ("ground", "disc", "square"), VOC_PALETTE[:3], False
    )
    card = maker.make(0, example, {"file": "s0.png", "miou": float("nan"), "pixel_accuracy": 0.5})
    truth = layer(card, "truth")
    np.testing.assert_array_equal(truth, indices)  # 255 is void
    np.testing.assert_array_equal(layer(card, "prediction"), found)
    np.testing.assert_array_equal(layer(card, "wrong"), (indices != found) & (indices != 255))
    seen = {*indices[indices != 255].tolist(), *found[indices != 255].tolist()}
    assert card.classes == tuple(maker.names[index] for index in sorted(seen))
    assert card.scores == {"miou": None, "pixel_accuracy": 0.5}
    with Picture.open(io.BytesIO(base64.b64decode(card.layers["truth"].partition(",")[2]))) as picture:
        assert picture.getpalette()[:9] == VOC_PALETTE[:3].ravel().tolist()  # type: ignore[index]


def classes_on_disk(root: Path) -> tuple[LabelledImage, Image, Image]:
    """An image of three classes with a void strip: its row, its indices, and those predicted."""
    sample = draw_scene(0, 32, 3, void=True)
    indices = np.where(sample.valid == 255, sample.mask, 255).astype(np.uint8)
    example = write_labelled(root, "s0", sample.pictures[0], indices, MaskForm(3, 255, False), "test")
    colours = np.zeros((256, 3), np.uint8)
    colours[:21], colours[255] = VOC_PALETTE[:21], (224, 224, 192)
    write_palette_png(root / "masks" / "s0.png", indices, colours)
    example = replace(example, mask_sha256=bytes_digest((root / "masks" / "s0.png").read_bytes()))
    found = np.roll(sample.mask, 3, axis=0)
    write_palette_png(root / "found" / "s0.png", found, VOC_PALETTE[:3])
    return example, indices, found


def test_a_prediction_that_is_gone_or_of_another_size_is_named_with_the_remedy(tmp_path: Path) -> None:
    drawn = draw_set(tmp_path, 1)
    maker = CardMaker(Roots(tmp_path, tmp_path), tmp_path / "found", 1)
    row = {**drawn.scores().iloc[0]}
    write_png(tmp_path / "found" / "p0.png", np.zeros((32, 64), np.uint8))
    with pytest.raises(
        ValueError, match=r"p0\.png: prediction and truth .* 64x32 64x64; materialize test_pre"
    ):
        maker.make(0, drawn.pairs[0], row)
    (tmp_path / "found" / "p0.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"p0\.png: the prediction is not there; materialize test_pred"
    ):
        maker.make(0, drawn.pairs[0], row)


def test_scores_of_other_examples_are_refused(drawn: DrawnSet) -> None:
    with pytest.raises(ValueError, match="its rows are not the test examples"):
        require_scores(Path("predictions.parquet"), drawn.scores(), ["p0", "p1"])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(2, 20))
def test_of_many_examples_the_worst_have_a_card(scores: list[float], most: int) -> None:
    shown = chosen_examples(scores, most)
    assert shown == sorted(set(shown))
    assert len(shown) <= max(most, 1)
    if len(scores) <= most:
        assert len(shown) == len(scores)
    else:
        others = [score for number, score in enumerate(scores) if number not in shown]
        worst = sorted(scores)[: most // 2]
        assert all(score >= worst[-1] for score in others)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda frame: frame.drop(columns="tp"), "expected also tp"),
        (lambda frame: frame.iloc[::-1], "not those of predictions"),
        (lambda frame: frame.assign(positives=frame["positives"] + 1), "positives differ"),
        (lambda frame: frame.assign(tp=[row[:5] for row in frame["tp"]]), "must each hold 101 counts"),
    ],
)
def test_a_sweep_of_something_else_is_refused_with_the_remedy(
    spoil: object, complaint: str, drawn: DrawnSet, tmp_path: Path
) -> None:
    drawn.test_set()
    frame = pd.read_parquet(drawn.root / "sweep.parquet")
    write_frame(tmp_path / "sweep.parquet", spoil(frame))  # type: ignore[operator]
    with pytest.raises(ValueError, match=complaint) as caught:
        read_sweep(tmp_path / "sweep.parquet", drawn.scores(), THRESHOLD)
    assert str(caught.value).endswith("materialize test_predictions again")


def test_examples_without_a_card_are_summed_for_the_slider(drawn: DrawnSet) -> None:
    sweep = drawn.test_set().sweep
    assert sweep is not None
    data, step = sweep.data([1, 4]), 70
    rest = [0, 2, 3, 5]
    marked = {number: drawn.marked(number, step / 100) for number in rest}
    assert data["others"]["count"] == 4
    assert data["others"]["tp"][step] == sum((marked[n] & drawn.truths[n]).sum() for n in rest)
    assert data["others"]["fp"][step] == sum((marked[n] & ~drawn.truths[n]).sum() for n in rest)
    expected = sum(figures_of(marked[n], drawn.truths[n])["f1"] for n in rest)
    assert data["others"]["f1_sum"][step] == pytest.approx(expected)
    assert [card["positives"] for card in data["cards"]] == [drawn.truths[n].sum() for n in (1, 4)]


def test_a_threshold_between_two_steps_is_told(drawn: DrawnSet) -> None:
    note = "lies between two steps"
    assert note not in render_page(facts_of(drawn.test_set())).decode()
    assert note in render_page(facts_of(drawn.test_set(threshold=0.405))).decode()


def test_cleaning_of_masks_is_told_beside_the_slider(drawn: DrawnSet) -> None:
    test = replace(drawn.test_set(), cleaned="rid of areas below 10 px")
    assert "are rid of areas below 10 px, and so differ" in render_page(facts_of(test)).decode()


def run(checkpoint: str = "a", threshold: float | None = 0.5, **figures: float | None) -> Run:
    return Run(checkpoint, threshold, "data1", figures)


def test_the_first_run_has_no_previous_one(drawn: DrawnSet, tmp_path: Path) -> None:
    assert read_runs(tmp_path / "runs.jsonl") == []
    assert "there is no previous run" in render_page(facts_of(drawn.test_set())).decode()


def test_the_same_checkpoint_and_threshold_replace_the_last_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    for one in (
        run("a", f1=0.1),
        run("b", f1=0.2),
        run("b", f1=0.3),
        run("b", 0.6, f1=0.4),
        run("a", f1=0.5),
    ):
        write_runs(path, with_run(read_runs(path), one))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["checkpoint_version"], line["threshold"], line["figures"]["f1"]) for line in lines] == [
        *[("a", 0.5, 0.1), ("b", 0.5, 0.3), ("b", 0.6, 0.4), ("a", 0.5, 0.5)]
    ]


@pytest.mark.parametrize("line", ["{", "[]", '{"figures": {}}', "7"])
def test_a_damaged_line_of_the_history_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    write_runs(path, [run()])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"runs\.jsonl: line 2 is not a run .* delete that line"):
        read_runs(path)


def test_fewer_false_alarms_are_better_and_a_lower_f1_is_worse() -> None:
    before = run(f1=0.5, no_change_alarm_rate=0.5, iou=0.3, differencing_oracle_f1=0.2)
    now = run(f1=0.4, no_change_alarm_rate=0.25, iou=0.30004, differencing_oracle_f1=0.3)
    found = {row.label: (row.difference, row.verdict) for row in comparisons(now, before)}
    assert found == {
        "F1": ("-0.100", "worse"),
        "IoU": ("+0.000", "the same"),
        "F1 of plain differencing": ("+0.100", ""),
        "False alarms on unchanged pairs": ("-25.0", "better"),
    }


def test_a_previous_run_on_another_manifest_is_warned_of(drawn: DrawnSet) -> None:
    earlier = replace(run(f1=0.5), data_version="data0")
    facts = facts_of(drawn.test_set(), earlier=[earlier])
    assert any("another manifest" in warning for warning in facts.warnings)
    shown = render_page(facts).decode()
    assert "+0.287" in shown
    assert "All runs" in shown


def test_differencing_that_does_as_well_is_warned_of(drawn: DrawnSet) -> None:
    metrics = {**METRICS, "differencing_oracle_f1": 0.9}
    facts = facts_of(replace(drawn.test_set(), metrics=metrics))
    assert any(
        "Plain differencing, at its best on this set, is as good or better" in w for w in facts.warnings
    )
    assert not facts_of(drawn.test_set()).warnings


def test_false_alarms_are_shown_with_their_interval_and_a_held_out_kind_as_such(page: bytes) -> None:
    text = page.decode()
    assert "of 4 unchanged pairs; 95 % interval 4.6 to 69.9 %" in text
    assert "blur (not in training)" in text


def test_a_part_that_is_the_whole_has_no_table() -> None:
    assert breakdowns({"by_class": [{"class": "all", "pairs": 2, "f1": 0.5, "iou": 0.3}]}) == []
    assert [table.caption for table in breakdowns(METRICS)] == [
        *("By class", "By kind of change", "By size of change (share of the picture)")
    ]


@given(st.floats(0, 1e4), st.floats(1e-3, 1e4))
def test_ticks_are_even_inside_the_axis_and_not_too_many(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert 1 <= len(found) <= 12
    assert all(low - 1e-9 <= value <= low + width + 1e-9 for value in found)
    steps = np.diff(found)
    assert np.allclose(steps, steps[:1] if len(steps) else steps, rtol=1e-6)


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]


def test_a_curve_goes_through_its_values_and_breaks_where_there_is_none() -> None:
    chart = Chart("t", "epoch", [1, 2, 3, 4], [Series("a", [0.0, 1.0, None, 0.5])])
    (path,) = [
        attributes["d"] or ""
        for attributes in Reader(str(chart.svg()).encode()).all("path")
        if attributes["class"] == "line s0"
        and points(attributes["d"] or "")
        and "h22" not in (attributes["d"] or "")
    ]
    (x0, y0), (x1, y1), (x3, y3) = points(path)
    assert path.count("M") == 2
    assert (x1 - x0) * 2 == pytest.approx(x3 - x1, abs=0.3)
    assert (y0 + y1) / 2 == pytest.approx(y3, abs=0.2)
    assert y1 < y0  # up is more


def test_every_curve_has_a_table_of_its_values(page: bytes) -> None:
    read = Reader(page)
    charts = read.all("svg")
    assert len(charts) == 3
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in charts)
    assert any("Loss over 5 epochs" in text and "0.3333" in text for text in read.texts["table"])


def texts_of(read: Reader, tags: Sequence[str]) -> str:
    return " ".join(text for tag in tags for text in read.texts.get(tag, []))


def test_inputs_left_out_are_listed_with_their_reasons(page: bytes) -> None:
    shown = texts_of(Reader(page), ["td", "th"])
    assert "no <label>" in shown
    assert "9 nonsense <script>" in shown


def test_of_many_inputs_left_out_the_first_are_listed_and_all_are_counted(drawn: DrawnSet) -> None:
    files = [(f"photo_{number:04d}.jpg", "too dark") for number in range(1200)]
    lines = [(f"label_{number:04d}.txt", "line 1") for number in range(500)]
    page = render_page(facts_of(drawn.test_set(), left_out=LeftOut(files, lines, "split.parquet"))).decode()
    assert re.findall(r"photo_\d{4}\.jpg", page) == [name for name, _ in files[:500]]
    assert re.findall(r"label_\d{4}\.txt", page) == [name for name, _ in lines]
    assert "Files that were not used: 1,200</summary>" in page
    assert page.count("The first 500 are shown; all are in <code>split.parquet</code>.") == 1
