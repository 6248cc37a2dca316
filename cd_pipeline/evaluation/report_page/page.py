"""The facts of a report -> one HTML file: style, script, pictures and figures are all in it."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from cd_pipeline.evaluation.figures import COMPARISON_COLOURS
from cd_pipeline.evaluation.report_page.cards import Card
from cd_pipeline.evaluation.report_page.curves import table_of
from cd_pipeline.evaluation.report_page.facts import SHOWN_RUNS, ReportFacts
from cd_pipeline.evaluation.report_page.figures import FIGURES
from cd_pipeline.evaluation.report_page.tables import (
    Table,
    breakdowns,
    comparisons,
    table_of_rows,
    table_of_runs,
)

HERE = Path(__file__).parent
ALARM_NOTE = "an alarm is a marked region of 0.5 % of the picture or more"
MOST_LEFT_OUT = 500
"""Files, and lines, that are listed as left out."""
TILES = ("f1", "iou", "precision", "recall", "miou", "pixel_accuracy", "mean_dice")
AGREEMENT = {
    "samples": "Samples",
    "max_probability_difference": "Largest difference of a probability",
    "flipped_share": "Share of pixels of another class",
    "mask_iou": "IoU of the masks",
}
FLOORS = {
    "f1": ("differencing_oracle_f1", "everything_marked_f1"),
    "miou": ("baseline_miou",),
    "pixel_accuracy": ("baseline_pixel_accuracy",),
}
"""What a figure is shown beside."""


def render_page(facts: ReportFacts) -> bytes:
    """Return the page: UTF-8, the same bytes for the same facts; nothing in it asks for another file."""
    environment = Environment(
        loader=FileSystemLoader(HERE, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(str(value)),
    )
    script = (HERE / "script.js").read_text(encoding="utf-8")
    page = environment.get_template("page.html").render(
        facts=facts,
        test=facts.test,
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        data=embedded(page_data(facts)),
        **headline_parts(facts),
        **chart_parts(facts),
        **card_parts(facts),
        tables=breakdowns(facts.test.metrics),
        counts=table_of_rows("Counts a split", facts.lineage.counts),
        settings=indented(facts.lineage.settings),
        real_sets=real_table(facts),
        agreement=agreement_table(facts),
        most_left_out=MOST_LEFT_OUT,
        layer_colours={key.replace(" ", "_"): css_colour(c) for key, c in COMPARISON_COLOURS.items()},
    )
    return page.encode()


def visible(text: str) -> str:
    """Write characters that cannot be seen, such as line breaks in a file name, as backslash escapes."""
    if text.isprintable():  # most are, and pictures are long
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def embedded(value: object) -> Markup:
    """Return JSON for a script element: no character in it can end the element or begin another."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def indented(value: Mapping[str, Any]) -> Markup:
    """Return settings as JSON of several lines, escaped."""
    return escape(json.dumps(value, indent=2, ensure_ascii=True))


def css_colour(colour: Sequence[int]) -> str:
    """Return red, green and blue as CSS writes them."""
    return "#" + "".join(f"{int(value):02x}" for value in colour)


def page_data(facts: ReportFacts) -> dict[str, Any]:
    """Return what the script reads: the sweep of the examples."""
    sweep = facts.test.sweep
    return {"sweep": sweep.data([card.number for card in facts.test.cards]) if sweep else None}


def headline_parts(facts: ReportFacts) -> dict[str, Any]:
    """Return the figures at the top, and those of all runs."""
    metrics = facts.test.metrics
    tiles = [
        {
            "label": FIGURES[key].label,
            "value": FIGURES[key].text(metrics[key]),
            "beside": [
                f"{FIGURES[other].label}: {FIGURES[other].text(metrics[other])}"
                for other in FLOORS.get(key, ())
                if other in metrics
            ],
        }
        for key in TILES
        if key in metrics
    ]
    if "no_change_pairs" in metrics:
        tiles.append(alarm_tile(metrics))
    return {
        "tiles": tiles,
        "figures": comparisons(facts.run, facts.previous),
        "runs": table_of_runs([*facts.earlier, facts.run][-SHOWN_RUNS:]),
    }


def alarm_tile(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the share of unchanged pairs with a false alarm, with its interval."""
    count, rate = metrics["no_change_pairs"], metrics["no_change_alarm_rate"]
    if not count:
        return {"label": "False alarms", "value": "-", "beside": ["no unchanged pair in the test set"]}
    low, high = (100 * metrics[f"no_change_alarm_rate_{end}"] for end in ("low", "high"))
    beside = [f"of {count} unchanged pairs; 95 % interval {low:.1f} to {high:.1f} %", ALARM_NOTE]
    return {"label": "False alarms", "value": f"{100 * rate:.1f} %", "beside": beside}


def chart_parts(facts: ReportFacts) -> dict[str, Any]:
    """Return the curves, each with its table."""
    charts = []
    for chart in facts.training.charts():
        head, rows = table_of(chart)
        title = chart.title.partition(" over")[0]
        charts.append((title, chart.svg(), Table(chart.title, head, rows, [True] * len(head))))
    sweep = facts.test.sweep
    found: dict[str, Any] = {"training_charts": charts, "sweep_chart": None, "sweep_rows": None}
    if sweep:
        chart = sweep.chart()
        head, rows = table_of(chart, every=5)
        found |= {
            "sweep_chart": chart.svg(),
            "sweep_rows": Table(chart.title, head, rows, [True] * len(head)),
        }
    return found


def card_parts(facts: ReportFacts) -> dict[str, Any]:
    """Return the cards, worst first, what they can be found by, and the legend of their colours."""
    test = facts.test
    key = "miou" if test.names else "f1"
    groups = sorted({name for card in test.cards for name in card.classes})
    in_order = [name for name in test.names if name in groups] if test.names else groups
    return {
        "cards": sorted(enumerate(test.cards), key=lambda entry: (_score(entry[1], key), entry[1].name)),
        "score": key,
        "groups": in_order,
        "group_label": "Class" if test.pairs or test.names else "Data set",
        "by_group": bool(any(card.group for card in test.cards)),
        "first_class": next(iter(test.names), None),
        "class_colours": {name: css_colour(colour) for name, colour in test.names.items() if name in groups},
    }


def real_table(facts: ReportFacts) -> Table | None:
    """Return the scores of photos really taken at two times."""
    if not facts.real_pairs or not facts.real_pairs.figures:
        return None
    columns = (
        "set",
        "pairs",
        "f1",
        "oracle_f1",
        "precision",
        "recall",
        "iou",
        "best_f1",
        "mean_image_f1",
        "version",
    )
    return table_of_rows("Pairs really taken at two times", facts.real_pairs.figures["sets"], columns)


def agreement_table(facts: ReportFacts) -> Table | None:
    """Return how closely each delivered form of the network agrees with the checkpoint."""
    found = facts.package.figures
    if not found:
        return None
    precision = f", in {found['precision']}" if "precision" in found else ""
    return Table(
        f"Delivered forms against the checkpoint, on test samples (package{precision})",
        ["Form", *AGREEMENT.values()],
        [
            [name, *("-" if (v := form.get(key)) is None else f"{v:.3g}" for key in AGREEMENT)]
            for name, form in found["forms"].items()
        ],
        [False, *(True for _ in AGREEMENT)],
    )


def _score(card: Card, key: str) -> float:
    value = card.scores[key]
    return 2.0 if value is None else value
