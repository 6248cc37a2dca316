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


def picture(content: bytes, mime: str = "image/png") -> dg.MarkdownMetadataValue:
    """Show a picture inline.

    Raises:
        ValueError: it would take more than 96 kB of the event log.
    """
    encoded = base64.b64encode(content).decode()
    if len(encoded) > INLINE_LIMIT:
        raise ValueError(f"inline picture of {len(encoded)} bytes; at most {INLINE_LIMIT} fit the event log")
    return dg.MetadataValue.md(f"![](data:{mime};base64,{encoded})")


def table(rows: "Sequence[Mapping[str, Any]] | pd.DataFrame") -> dg.TableMetadataValue:
    """Show rows of plain values with the same keys, or a data frame, as a table; the first 200 of them."""
    plain = rows if isinstance(rows, Sequence) else rows.to_dict("records")
    records = [
        dg.TableRecord({str(key): _cell(value) for key, value in row.items()}) for row in plain[:TABLE_LIMIT]
    ]
    names = list(records[0].data) if records else ["nothing"]
    columns = [
        dg.TableColumn(name, _column_type([record.data[name] for record in records])) for name in names
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def _cell(value: object) -> str | int | float | bool:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else "-"
    return value if isinstance(value, str | int) else str(value)


def _column_type(values: Sequence[object]) -> str:
    kinds = {type(value) for value in values}
    return {frozenset({int}): "int", frozenset({float}): "float"}.get(frozenset(kinds), "string")
