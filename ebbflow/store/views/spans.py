"""Spans as a table, newest first. On a narrow terminal columns go, the most telling stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table
from rich.text import Text

from ebbflow.store.views.layout import Column, fitted_table
from ebbflow.store.views.text import Span, clean, service_of, shown_duration, shown_time, status_text

_WIDE = 130
_Cell = Callable[[Span], Text]
# Of columns with the same heading the last that fits is shown.
_COLUMNS: tuple[tuple[Column, _Cell], ...] = (
    (Column("start", from_columns=70), lambda span: Text(shown_time(span["start_unix_nano"], "%H:%M:%S"))),
    (Column("start", from_columns=_WIDE), lambda span: Text(shown_time(span["start_unix_nano"], "%Y-%m-%d %H:%M:%S"))),
    (Column("service", flexible=True, style="cyan", from_columns=50), lambda span: Text(service_of(span))),
    (Column("kind", style="dim", from_columns=90), lambda span: Text(span["kind"])),
    (Column("name", flexible=True), lambda span: Text(clean(span["name"]))),
    (Column("target", flexible=True, style="dim", from_columns=110), lambda span: Text(target(span))),
    (Column("status"), status_text),
    (Column("took", right=True), lambda span: Text(shown_duration(span))),
    (Column("trace", style="dim", from_columns=40), lambda span: Text(span["trace_id"][:8])),
    (Column("trace", style="dim", from_columns=_WIDE), lambda span: Text(span["trace_id"])),
)


def target(span: Span) -> str:
    """What was asked for, where the name is only its kind."""
    attributes = span["attributes"]
    found = attributes.get("url.path") or attributes.get("url.full") or attributes.get("db.query.text") or ""
    return clean(str(found))


def spans_table(spans: Sequence[Span], width: int) -> Table:
    """One row a span, for a terminal of `width` columns."""
    chosen = {column.heading: (column, cell) for column, cell in _COLUMNS if column.from_columns <= width}
    columns = [column for column, _ in chosen.values()]
    rows = [[cell(span) for _, cell in chosen.values()] for span in spans]
    return fitted_table(columns, rows, width)
