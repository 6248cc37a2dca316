"""The report's page as a person uses it: in a browser, by mouse, keyboard and screen reader."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from cd_pipeline.data.palette import VOC_PALETTE
from cd_pipeline.data.samples import Roots
from cd_pipeline.evaluation.report_page.cards import CardMaker
from cd_pipeline.evaluation.report_page.facts import TestSet
from cd_pipeline.evaluation.report_page.page import render_page, visible
from cd_pipeline_tests.browser import Watched, controls, nameless_controls, open_browser, watched_page
from cd_pipeline_tests.evaluation.test_report_page import (
    HOSTILE,
    METRICS,
    THRESHOLD,
    DrawnSet,
    classes_on_disk,
    draw_set,
    facts_of,
    figures_of,
)

pytestmark = pytest.mark.slow
COUNT = 30
WIDE, NARROW = {"width": 1200, "height": 900}, {"width": 360, "height": 700}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> DrawnSet:
    return draw_set(tmp_path_factory.mktemp("set"), COUNT, HOSTILE.replace("/", "") + " ")


@pytest.fixture(scope="module")
def address(drawn: DrawnSet) -> str:
    path = drawn.root / "index.html"
    path.write_bytes(render_page(facts_of(drawn.test_set())))
    return path.as_uri()


@pytest.fixture(scope="module")
def opened(address: str) -> Iterator[Watched]:
    with open_browser() as browser, watched_page(browser, viewport=WIDE) as watched:
        yield watched


@pytest.fixture
def watched(opened: Watched, address: str) -> Watched:
    """The page as it opens."""
    opened.requests.clear()
    opened.complaints.clear()
    opened.page.set_viewport_size(WIDE)  # type: ignore[arg-type]
    opened.page.goto(address)
    return opened


def names_shown(watched: Watched) -> list[str]:
    return watched.page.locator(".card:visible h3").all_inner_texts()


def move_threshold(watched: Watched, step: int) -> None:
    watched.page.locator("#threshold-slider").fill(str(step))


def pixels_of(watched: Watched, selector: str) -> np.ndarray:  # type: ignore[type-arg]
    content = watched.page.locator(selector).first.screenshot()
    with Picture.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_the_page_opens_without_a_complaint_and_asks_for_nothing_else(watched: Watched, address: str) -> None:
    watched.page.mouse.wheel(0, 20_000)
    watched.page.wait_for_timeout(100)
    assert watched.complaints == []
    assert [url for url in watched.requests if not url.startswith("data:")] == [address]
    assert watched.page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    assert watched.page.locator("#left-out tbody td").first.inner_text() == "no <label>"


@pytest.mark.parametrize("step", [0, 12, 40, 63, 100])
def test_the_figures_at_a_threshold_are_those_of_the_masks_above_it(
    step: int, watched: Watched, drawn: DrawnSet
) -> None:
    move_threshold(watched, step)
    marked = [drawn.marked(number, step / 100) for number in range(COUNT)]
    each = [figures_of(mask, truth) for mask, truth in zip(marked, drawn.truths, strict=True)]
    expected = figures_of(np.stack(marked), np.stack(drawn.truths))
    expected["mean_f1"] = float(np.mean([figures["f1"] for figures in each]))
    for name, value in expected.items():
        shown = float(watched.page.locator(f"[data-figure={name}]").inner_text())
        assert shown == pytest.approx(value, abs=0.00051), name
    for number, figures in enumerate(each):
        card = watched.page.locator(f".card[data-number='{number}']")
        for name in ("f1", "iou"):
            shown = float(card.locator(f"[data-score-of={name}]").text_content() or "")
            assert shown == pytest.approx(figures[name], abs=0.00051)
        counts = re.findall(r"\d[\d,]*", card.locator("[data-counts]").text_content() or "")
        truth = drawn.truths[number]
        assert [int(count.replace(",", "")) for count in counts] == [
            *(
                (marked[number] & truth).sum(),
                (marked[number] & ~truth).sum(),
                (truth & ~marked[number]).sum(),
            )
        ]


def test_the_chosen_threshold_is_where_the_slider_begins_and_goes_back_to(watched: Watched) -> None:
    slider = watched.page.locator("#threshold-slider")
    assert slider.input_value() == "40"
    assert "chosen" in watched.page.locator("#threshold-value").inner_text()
    begins = watched.page.locator(".chart .now").bounding_box()
    slider.focus()
    watched.page.keyboard.press("ArrowRight")
    assert watched.page.locator("#threshold-value").inner_text() == "0.41"
    assert slider.get_attribute("aria-valuetext") == "0.41"
    assert "Threshold 0.41: F1 0." in (watched.page.locator("#threshold-status").text_content() or "")
    moved = watched.page.locator(".chart .now").bounding_box()
    assert begins is not None
    assert moved is not None
    assert moved["x"] > begins["x"]
    watched.page.get_by_role("button", name="Back to the chosen 0.40").click()
    assert slider.input_value() == str(round(THRESHOLD * 100))


def test_cards_are_sorted_by_error_or_name_and_the_other_way_round(watched: Watched, drawn: DrawnSet) -> None:
    watched.page.get_by_role("button", name="Show all 30").click()
    f1 = drawn.scores()["f1"].tolist()
    names = [visible(pair.pair_id) for pair in drawn.pairs]
    worst_first = [score for score, _ in sorted(zip(f1, names, strict=True))]
    shown = names_shown(watched)
    assert [f1[names.index(name)] for name in shown] == pytest.approx(worst_first)
    by_error = watched.page.locator("[data-sort=score]")
    assert by_error.get_attribute("aria-pressed") == "true"
    by_error.click()
    assert [f1[names.index(name)] for name in names_shown(watched)] == pytest.approx(worst_first[::-1])
    by_name = watched.page.locator("[data-sort=name]")
    by_name.focus()
    watched.page.keyboard.press("Enter")
    assert names_shown(watched) == names  # by number, not by digit
    assert (by_error.get_attribute("aria-pressed"), by_name.get_attribute("aria-pressed")) == (
        "false",
        "true",
    )
    assert "A to Z" in by_name.inner_text()
    watched.page.locator("[data-sort=group]").click()
    groups = watched.page.locator(".card:visible .meta").all_inner_texts()
    assert [group.startswith("KITCHEN") for group in groups] == [False] * 15 + [True] * 15


def test_cards_are_sorted_anew_when_the_threshold_has_moved(watched: Watched, drawn: DrawnSet) -> None:
    watched.page.locator("#threshold-slider").focus()
    for _ in range(4):
        watched.page.keyboard.press("PageUp")  # ten steps each
    step = int(watched.page.locator("#threshold-slider").input_value())
    assert step > 60
    scores = [
        float(text) for text in watched.page.locator(".card:visible [data-score-of=f1]").all_inner_texts()
    ]
    assert scores == sorted(scores)
    each = [figures_of(drawn.marked(n, step / 100), drawn.truths[n])["f1"] for n in range(COUNT)]
    assert scores == pytest.approx(sorted(each)[: len(scores)], abs=0.00051)


def test_cards_are_filtered_by_class_and_by_false_alarm(watched: Watched, drawn: DrawnSet) -> None:
    watched.page.locator("#filter").select_option(label="Class: KITCHEN")
    assert set(
        watched.page.locator(".card:visible").evaluate_all("(all) => all.map((c) => c.dataset.group)")
    ) == {"KITCHEN"}
    assert watched.page.locator("#shown").inner_text() == "15 of 15 shown"
    watched.page.locator("#filter").select_option("unchanged")
    unchanged = [
        visible(p.pair_id) for p, truth in zip(drawn.pairs, drawn.truths, strict=True) if not truth.any()
    ]
    assert sorted(names_shown(watched)) == sorted(unchanged)
    watched.page.locator("#filter").select_option("")
    assert watched.page.locator("#shown").inner_text() == "24 of 30 shown"


def test_more_cards_appear_when_they_are_asked_for(watched: Watched) -> None:
    assert len(names_shown(watched)) == 24
    watched.page.get_by_role("button", name="Show 6 more").click()
    assert len(names_shown(watched)) == COUNT
    assert not watched.page.locator("#more").is_visible()
    focused = watched.page.evaluate("document.activeElement.closest('.card')?.dataset.name")
    assert visible(focused) == names_shown(watched)[24]


def test_the_swipe_shows_more_of_one_picture_by_mouse_and_by_keyboard(watched: Watched) -> None:
    watched.page.locator("#all-truth").uncheck()
    watched.page.locator("#all-prediction").uncheck()
    watched.page.locator("#filter").select_option("changed")
    stage = watched.page.locator(".card:visible .stage").first
    swipe = stage.locator(".swipe")
    box = stage.bounding_box()
    assert box is not None
    edges = []
    for share in (0.05, 0.95):
        watched.page.mouse.click(box["x"] + share * box["width"], box["y"] + 30)
        edges.append(pixels_of(watched, ".card:visible .stage")[60:-60, 40:-40])
        assert abs(int(swipe.input_value()) - 100 * share) < 6
    assert np.abs(edges[0] - edges[1]).max() > 60  # this pair has a change
    value = int(swipe.input_value())
    watched.page.keyboard.press("ArrowLeft")
    assert int(swipe.input_value()) == value - 1
    assert swipe.get_attribute("aria-valuetext") == f"{value - 1} % before, {101 - value} % after"
    watched.page.keyboard.press("Home")
    first = pixels_of(watched, ".card:visible .stage")[60:-60, 40:-40]
    np.testing.assert_allclose(first, edges[0], atol=12)


def test_overlays_appear_and_go_for_one_card_and_for_all(watched: Watched) -> None:
    card = watched.page.locator(".card:visible:has(.layer.missed)").first
    button = card.get_by_role("button", name=re.compile("^truth of"))
    assert button.get_attribute("aria-pressed") == "true"
    assert card.locator(".layer.missed").is_visible()
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert not card.locator(".layer.missed").is_visible()
    assert watched.page.locator(".layer.missed:visible").count() > 0  # of the others
    watched.page.get_by_label("prediction", exact=True).uncheck()
    assert watched.page.locator(".layer.false_alarm:visible").count() == 0
    watched.page.get_by_label("truth", exact=True).check()
    colour = "(layer) => getComputedStyle(layer).backgroundColor"
    assert card.locator(".layer.missed").evaluate(colour) == "rgb(255, 220, 0)"  # the truth alone
    watched.page.get_by_label("prediction", exact=True).check()
    assert card.locator(".layer.missed").evaluate(colour) == "rgb(255, 60, 190)"


def test_every_control_has_a_name_and_the_tab_key_reaches_it(watched: Watched) -> None:
    assert nameless_controls(watched.page) == []
    assert len(controls(watched.page)) > 70
    wanted = watched.page.evaluate(
        """() => { const all = [...document.querySelectorAll("a, button, select, input, summary, [tabindex]")];
        all.forEach((element, number) => (element.dataset.stop = number));
        return all.filter((e) => e.checkVisibility() || e.classList.contains("skip")).map((e) => e.dataset.stop); }"""
    )
    reached = []
    for _ in wanted:
        watched.page.keyboard.press("Tab")
        reached.append(watched.page.evaluate("document.activeElement.dataset.stop"))
    assert reached == wanted


def test_focus_can_be_seen_on_the_swipe(watched: Watched) -> None:
    stage = watched.page.locator(".card:visible .stage").first
    assert stage.evaluate("(stage) => getComputedStyle(stage).outlineStyle") == "none"
    stage.locator(".swipe").focus()
    watched.page.keyboard.press("ArrowRight")
    assert stage.evaluate("(stage) => getComputedStyle(stage).outlineStyle") == "solid"


def test_a_narrow_screen_needs_no_sideways_scrolling(watched: Watched) -> None:
    watched.page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def test_a_dark_page_for_those_who_want_it(watched: Watched) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = watched.page.evaluate(background)
    watched.page.emulate_media(color_scheme="dark")
    dark = watched.page.evaluate(background)
    watched.page.emulate_media(color_scheme="light")
    sums = [sum(map(int, re.findall(r"\d+", colour))) for colour in (light, dark)]
    assert sums[0] > 600
    assert sums[1] < 120


def test_images_of_several_classes_have_no_threshold_and_show_wrong_pixels(
    opened: Watched, tmp_path: Path
) -> None:
    example, indices, found = classes_on_disk(tmp_path)
    names = {"ground": (0, 0, 0), "disc": (128, 0, 0), HOSTILE: (0, 128, 0)}
    maker = CardMaker(Roots(tmp_path, tmp_path), tmp_path / "found", 1, tuple(names), VOC_PALETTE[:3], False)
    scores = {"file": "s0.png", "miou": 0.5, "pixel_accuracy": 0.7}
    metrics = {key: METRICS[key] for key in ("checkpoint_version",)} | {"threshold": None, "miou": 0.5}
    test = TestSet({**metrics, "images": 1}, [maker.make(0, example, scores)], 1, names)
    page = tmp_path / "index.html"
    page.write_bytes(render_page(replace(facts_of(test), real_pairs=None)))
    opened.complaints.clear()
    opened.page.goto(page.as_uri())
    assert opened.complaints == []
    assert opened.page.locator("#threshold-slider").count() == 0
    card = opened.page.locator(".card")
    assert card.locator("img.prediction").is_visible()
    assert not card.locator(".wrong").is_visible()
    opened.page.get_by_label("truth", exact=True).check()
    assert card.locator(".wrong").is_visible() == bool(((indices != found) & (indices != 255)).any())
    assert not card.locator("img.prediction").is_visible()
    card.locator(".swipe").focus()
    opened.page.keyboard.press("End")
    assert card.locator(".swipe").get_attribute("aria-valuetext") == "100 % image, 0 % marked"
    assert nameless_controls(opened.page) == []
