"""Figures and tables for the Dagster UI."""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    import pandas as pd

INLINE_LIMIT = 96_000
"""Bytes of an inline picture in the event log."""

TABLE_LIMIT = 200
"""Rows of a table in the event log; the whole tables are files."""
TOLD_LIMIT = 50
"""Files that warnings name one by one."""


def picture(content: bytes, mime: str = "image/png") -> dg.MarkdownMetadataValue:
    """Show a picture inline.

    Raises:
        ValueError: it would take more than 96 kB of the event log.
    """
    encoded = base64.b64encode(content).decode()
    if len(encoded) > INLINE_LIMIT:
        raise ValueError(f"inline picture of {len(encoded)} bytes; at most {INLINE_LIMIT} fit the event log")
    return dg.MetadataValue.md(f"![](data:{mime};base64,{encoded})")


def table(rows: "Sequence[Mapping[str, Any]] | pd.DataFrame", whole: str = "") -> dg.TableMetadataValue:
    """Show rows of plain values with the same keys, or a data frame, as a table.

    Of more than 200 rows the first 200 are shown, and in a last one how many there are, and where.

    Args:
        rows: in the order they are shown.
        whole: the file that holds all of them; "": a file of the asset.
    """
    shown = rows[:TABLE_LIMIT]
    plain = shown if isinstance(shown, Sequence) else shown.to_dict("records")
    records = [dg.TableRecord({str(key): _cell(value) for key, value in row.items()}) for row in plain]
    names = list(records[0].data) if records else ["nothing"]
    columns = [
        dg.TableColumn(name, _column_type([record.data[name] for record in records])) for name in names
    ]
    if len(rows) > TABLE_LIMIT:
        left = f"... and {len(rows) - TABLE_LIMIT:,} of {len(rows):,} rows more, in {whole or 'its files'}"
        records.append(dg.TableRecord({name: "" for name in names} | {names[0]: left}))
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def warn_of_left_out(
    log: dg.DagsterLogManager, what: str, left_out: "Sequence[tuple[str, str | None]]", whole: str
) -> None:
    """Warn of inputs that cannot be used: of the first 50 each with its reason, of the others how many they are.

    Args:
        log: is told.
        what: is done with them, such as "quarantined".
        left_out: name and reason.
        whole: the file that holds all of them.
    """
    for name, reason in left_out[:TOLD_LIMIT]:
        log.warning(f"{what} {name}: {reason}")
    if len(left_out) > TOLD_LIMIT:
        log.warning(
            f"{what} {len(left_out) - TOLD_LIMIT:,} more, {len(left_out):,} in all, listed in {whole}"
        )


def _cell(value: object) -> str | int | float | bool:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else "-"
    return value if isinstance(value, str | int) else str(value)


def _column_type(values: Sequence[object]) -> str:
    kinds = {type(value) for value in values}
    return {frozenset({int}): "int", frozenset({float}): "float"}.get(frozenset(kinds), "string")
