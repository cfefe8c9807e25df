"""Rates, errors and latencies as a table that is drawn again each second, or as plain lines."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ebbflow.durations import show_duration
from ebbflow.store.queries import Top, TopRow
from ebbflow.store.views.layout import Column, fitted_table
from ebbflow.store.views.text import clean, shown_time

_COLUMNS = (
    Column("service", flexible=True, style="cyan"),
    Column("kind", style="dim", from_columns=90),
    Column("route", flexible=True),
    Column("rate/s", right=True),
    Column("errors", right=True),
    Column("p50", right=True, from_columns=60),
    Column("p95", right=True, from_columns=70),
    Column("p99", right=True),
)
_FRAME_LINES = 4  # heading, head of the table, losses, the line "more"


def top_lines(top: Top) -> list[str]:
    """One plain line for every service and route."""
    if not top.rows:
        return [f"{_clock(top)} no spans in the last {top.window_s:g} s"]
    return [f"{_clock(top)} {_plain(row)}" for row in top.rows]


def _plain(row: TopRow) -> str:
    return (
        f"{clean(row.service)} {row.kind} {clean(row.route)!r} {row.rate_per_s:.1f}/s errors {row.errors_percent:.1f}% "
        f"p50 {_ms(row.p50_ms)} p95 {_ms(row.p95_ms)} p99 {_ms(row.p99_ms)}"
    )


def _ms(milliseconds: float) -> str:
    return show_duration(milliseconds * 1e6)


def _clock(top: Top) -> str:
    return shown_time(top.end_unix_nano, "%H:%M:%S").partition(".")[0] if top.end_unix_nano else "--:--:--"


def top_view(top: Top, width: int, height: int, *, notice: str = "") -> Group:
    """The whole screen: heading, table, losses, and a notice when something is wrong.

    Args:
        top: what to show.
        width: columns of the terminal.
        height: its lines; rows that do not fit are counted.
        notice: lines for people.
    """
    room = max(1, height - _FRAME_LINES - len(notice.splitlines()))
    rows, hidden = top.rows[:room], top.rows[room:]
    parts: list[Text | Table] = [_heading(top)]
    parts.append(_table(rows, width) if rows else Text(f"no spans in the last {top.window_s:g} s", "dim"))
    if hidden:
        parts.append(Text(f"and {len(hidden)} more", "dim"))
    if lost := losses_line(top.losses):
        parts.append(Text(lost, "yellow"))
    if notice:
        parts.append(Text(notice, "bold red", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _heading(top: Top) -> Text:
    rate = sum(row.rate_per_s for row in top.rows)
    errors = sum(row.errors for row in top.rows)
    count = sum(row.count for row in top.rows)
    percent = 100 * errors / count if count else 0.0
    line = f"ebbflow top  {_clock(top)}  last {top.window_s:g} s  {rate:.1f} spans/s  {percent:.1f} % errors"
    return Text(line, "bold", no_wrap=True, overflow="ellipsis")


def losses_line(losses: Mapping[str, int]) -> str:
    """What was lost, by its place; empty when nothing was."""
    parts = [f"{name.replace('_', ' ')} {count}" for name, count in losses.items() if count]
    return f"lost: {', '.join(parts)}" if parts else ""


def _table(rows: list[TopRow], width: int) -> Table:
    columns = [column for column in _COLUMNS if column.from_columns <= width]
    cells = map(_cells, rows)
    return fitted_table(columns, [[row[column.heading] for column in columns] for row in cells], width)


def _cells(row: TopRow) -> dict[str, Text]:
    return {
        "service": Text(clean(row.service)),
        "kind": Text(row.kind),
        "route": Text(clean(row.route)),
        "rate/s": Text(f"{row.rate_per_s:.1f}"),
        "errors": Text(f"{row.errors_percent:.1f} %", "bold red" if row.errors else "dim"),
        "p50": Text(_ms(row.p50_ms)),
        "p95": Text(_ms(row.p95_ms)),
        "p99": Text(_ms(row.p99_ms)),
    }
