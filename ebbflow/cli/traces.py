"""`ebbflow traces` and `ebbflow trace ID`: what the store has seen."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from ebbflow.cli.common import load_config

if TYPE_CHECKING:
    from ebbflow.store.queries import SpanFilter

# A table is laid out as a whole; more rows than this come as several, one after the other.
TABLE_ROWS = 1000


def register(app: typer.Typer) -> None:
    app.command()(traces)
    app.command()(trace)


def traces(
    ctx: typer.Context,
    service: Annotated[str, typer.Option(help="Spans of this service.name only.")] = "",
    status: Annotated[str, typer.Option(help="unset, ok, error, an HTTP status as 404, or a class as 5xx.")] = "",
    slower_than: Annotated[str, typer.Option(metavar="DURATION", help="Took longer: 250ms, 5s.")] = "0",
    since: Annotated[str, typer.Option(metavar="DURATION", help="Started at most this long ago: 10m, 1h.")] = "0",
    limit: Annotated[int, typer.Option(min=0, help="The newest so many; 0: all.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One span a line.")] = False,
) -> None:
    """List spans, newest first."""
    from ebbflow.store.client import connect

    wanted = make_filter(
        service=service, status=status, slower_than=slower_than, since=since, limit=limit, now_ns=time.time_ns()
    )
    with connect(load_config(ctx).config.store) as reader:
        lines = reader.spans(wanted)
        write_lines(lines) if as_json else show_spans(lines)


def make_filter(*, service: str, status: str, slower_than: str, since: str, limit: int, now_ns: int) -> SpanFilter:
    """The options as a filter.

    Raises:
        ConfigError: no status, or no duration.
    """
    from ebbflow.durations import parse_duration_ns
    from ebbflow.store.queries import SpanFilter, status_condition

    if status:
        status_condition(status)
    since_ns = parse_duration_ns(since)
    return SpanFilter(
        service=service,
        status=status,
        slower_than_ns=parse_duration_ns(slower_than),
        since_ns=max(1, now_ns - since_ns) if since_ns else 0,
        limit=limit,
    )


def write_lines(lines: Iterator[bytes]) -> None:
    """JSON lines to standard output, as they are."""
    for line in lines:
        sys.stdout.buffer.write(line)
    sys.stdout.flush()


def show_spans(lines: Iterator[bytes]) -> None:
    from itertools import islice

    import orjson

    from ebbflow.store.views.spans import spans_table
    from ebbflow.store.views.text import make_console

    console = make_console()
    shown = 0
    while part := [orjson.loads(line) for line in islice(lines, TABLE_ROWS)]:
        console.print(spans_table(part, console.width))
        shown += len(part)
    if not shown:
        console.print("no spans")


def trace(
    ctx: typer.Context,
    trace_id: Annotated[str, typer.Argument(metavar="ID", help="Hex; a beginning that only one trace has is enough.")],
    as_json: Annotated[bool, typer.Option("--json", help="One span a line, oldest first.")] = False,
) -> None:
    """Show one trace as a tree with a time bar."""
    from ebbflow.store.client import connect

    with connect(load_config(ctx).config.store) as reader:
        lines = reader.trace(trace_id)
        write_lines(lines) if as_json else show_trace(lines)


def show_trace(lines: Iterator[bytes]) -> None:
    import orjson

    from ebbflow.store.views.text import make_console
    from ebbflow.store.views.trace import summary, trace_table

    spans = [orjson.loads(line) for line in lines]
    console = make_console()
    console.print(f"trace {spans[0]['trace_id']}", style="bold")
    console.print(summary(spans), style="dim")
    console.print(trace_table(spans, console.width, ascii_only=console.options.ascii_only))
