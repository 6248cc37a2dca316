"""Rows of plain values as the tables of a page: labels, and values as people read them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cd_pipeline.evaluation.report_page.figures import COLUMNS, FIGURES, FigureName
from cd_pipeline.evaluation.report_page.runs import Run

LABELS = {
    **{"class": "Class", "kind": "Kind of change", "size": "Size of change", "dataset": "Data set"},
    **{"pairs": "Pairs", "images": "Images", "changes": "Changes", "pixels": "Pixels in the truth"},
    **{"set": "Set", "split": "Split", "inputs": "Inputs used", "rows": "Rows of the manifest"},
    "version": "Hash of the pixels",
}
ALL = "all"
"""The name of a class or data set that is the only one: its figures are those of the whole."""
RECALL = FigureName("Pixels found")


@dataclass(frozen=True, slots=True)
class Table:
    """A table: the first cell of a row is its head.

    Attributes:
        caption: what it shows.
        head: names of the columns.
        rows: their texts.
        numeric: whether each column holds numbers.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool] = ()


def table_of_rows(caption: str, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> Table:
    """Make a table of rows with the same keys.

    Args:
        caption: what it shows.
        rows: of plain values.
        columns: keys of the columns; empty: those of the first row that hold no lists or tables.
    """
    found = list(rows)
    keys = list(columns) or [key for key, value in (found[0] if found else {}).items() if _plain(value)]
    keys = [key for key in keys if any(key in row for row in found)]
    return Table(
        caption,
        [_label(key) for key in keys],
        [[_text(key, row.get(key)) for key in keys] for row in found],
        [
            key not in LABELS or key in {"pairs", "images", "changes", "pixels", "inputs", "rows"}
            for key in keys
        ],
    )


def breakdowns(metrics: Mapping[str, Any]) -> list[Table]:
    """Return what is told of parts of a test set: by class, kind and size of change, and data set.

    What is told of one part that is the whole is left out.
    """
    held_out = metrics.get("held_out_kinds") or []
    kinds = [
        {**row, "kind": f"{row['kind']} (not in training)" if row["kind"] in held_out else row["kind"]}
        for row in metrics.get("recall_by_kind") or []
    ]
    found = [
        table_of_rows("By class", metrics.get("by_class") or []),
        table_of_rows("By kind of change", kinds),
        table_of_rows("By size of change (share of the picture)", metrics.get("recall_by_size") or []),
        table_of_rows("By data set", metrics.get("by_dataset") or [], DATASET_COLUMNS),
    ]
    return [table for table in found if table.rows and [row[0] for row in table.rows] != [ALL]]


DATASET_COLUMNS = (
    *("dataset", "images", "f1", "iou", "precision", "recall", "ods", "ois", "everything_marked_f1"),
    *("hausdorff_95", "miou", "pixel_accuracy", "mean_dice", "miou_without_void"),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One headline figure of this run and of the previous one."""

    label: str
    note: str
    now: str
    before: str
    difference: str
    verdict: str


def comparisons(run: Run, previous: Run | None) -> list[Comparison]:
    """Return every headline figure of a run, beside that of the previous one."""
    found = []
    for key, name in FIGURES.items():
        if key in run.figures:
            now, before = run.figures[key], previous.figures.get(key) if previous else None
            found.append(
                Comparison(
                    name.label,
                    name.note,
                    name.text(now),
                    name.text(before) if previous else "",
                    name.difference(now, before),
                    name.verdict(now, before),
                )
            )
    return found


def table_of_runs(runs: Sequence[Run]) -> Table:
    """Return a row a run: what it is, and the figures that matter most."""
    keys = [
        key
        for key in ("f1", "iou", "differencing_oracle_f1", "no_change_alarm_rate", "miou", "pixel_accuracy")
        if any(key in run.figures for run in runs)
    ]
    return Table(
        "Runs, oldest first",
        ["Checkpoint", "Threshold", *(FIGURES[key].label for key in keys)],
        [
            [
                run.checkpoint_version[:12],
                "-" if run.threshold is None else f"{run.threshold:.3g}",
                *(FIGURES[key].text(run.figures.get(key)) for key in keys),
            ]
            for run in runs
        ],
        [False, True, *(True for _ in keys)],
    )


def _plain(value: object) -> bool:
    return not isinstance(value, (list, tuple, dict))


def _label(key: str) -> str:
    if key in LABELS:
        return LABELS[key]
    return COLUMNS[key].label if key in COLUMNS else key.replace("_", " ").capitalize()


def _text(key: str, value: Any) -> str:  # noqa: ANN401 - any plain value
    if isinstance(value, bool) or value is None:
        return "-" if value is None else "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return COLUMNS.get(key, RECALL).text(value)
    return str(value)
