"""One trace as a tree: who called whom, and a bar that says when and for how long.

    GET /cart            shop   200  12.3 ms  ━━━━━━━━━━━━━━━━━━━━
    ├─ GET /prices       price  200  4.10 ms   ━━━━━━
    └─ SELECT            shop   ok   2.00 ms          ━━━

Spans whose parent was not stored hang below a line that says so. Parents that go round in a circle are cut open at
their earliest span, so that every span is shown, and once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from ebbflow.durations import show_duration
from ebbflow.store.views.layout import Column, fitted_table
from ebbflow.store.views.text import Span, clean, duration_ns, is_failed, service_of, shown_duration, shown_time
from ebbflow.store.views.text import status_text as status_of

MAX_INDENTS = 20
_BAR_SHARE = 3  # one third of the terminal
_MIN_BAR = 8
_COLUMNS = (
    Column("name", flexible=True),
    Column("service", flexible=True, from_columns=70),
    Column("status", from_columns=60),
    Column("took", right=True),
    Column("time"),
)
_FORK, _LAST, _PASS, _NONE = "├─ ", "└─ ", "│  ", "   "
_ASCII = str.maketrans({"├": "|", "└": "`", "│": "|", "─": "-", "━": "=", "…": "~", "•": "|"})


@dataclass(frozen=True, slots=True)
class Node:
    """One line of the tree: a span, or (None) the parent that is missing."""

    span: Span | None
    parent_id: str
    branches: str


def tree(spans: Sequence[Span]) -> list[Node]:
    """Lines in the order of the tree; children by start. Depth costs no stack."""
    children: defaultdict[str, list[Span]] = defaultdict(list)
    ordered = sorted(spans, key=lambda span: (span["start_unix_nano"], span["span_id"]))
    known = {span["span_id"] for span in ordered}
    missing: dict[str, None] = {}
    for span in ordered:
        children[span["parent_span_id"]].append(span)
        if span["parent_span_id"] not in known and span["parent_span_id"]:
            missing[span["parent_span_id"]] = None
    lines = list(_descend(children[""], children, ()))
    for parent_id in missing:
        lines.append(Node(None, parent_id, ""))
        lines += _descend(children[parent_id], children, (False,))
    return lines + _circles(ordered, children, lines)


def _circles(ordered: Sequence[Span], children: dict[str, list[Span]], lines: list[Node]) -> list[Node]:
    """What no root leads to, each circle from its earliest span."""
    shown = {node.span["span_id"] for node in lines if node.span is not None}
    extra: list[Node] = []
    for span in ordered:
        if span["span_id"] not in shown:
            part = list(_descend([span], children, ()))
            shown |= {node.span["span_id"] for node in part if node.span is not None}
            extra += part
    return extra


def _descend(roots: Sequence[Span], children: dict[str, list[Span]], path: tuple[bool, ...]) -> Iterator[Node]:
    """Depth first. `path` says of every level above whether more follows there."""
    stack = _frames(roots, path)
    seen: set[str] = set()
    while stack:
        span, place = stack.pop()
        if span["span_id"] in seen:
            continue
        seen.add(span["span_id"])
        yield Node(span, span["parent_span_id"], _branches(place))
        stack += _frames(children.get(span["span_id"], ()), place)


def _frames(spans: Sequence[Span], path: tuple[bool, ...]) -> list[tuple[Span, tuple[bool, ...]]]:
    last = len(spans) - 1
    return [(span, (*path, index < last)) for index, span in enumerate(spans)][::-1]


def _branches(place: tuple[bool, ...]) -> str:
    """The lines left of a name; the first level, the roots, has none."""
    levels = place[1:]
    if not levels:
        return ""
    above = levels[:-1]
    shown = "".join(_PASS if more else _NONE for more in above[:MAX_INDENTS])
    return ("… " if len(above) > MAX_INDENTS else "") + shown + (_FORK if levels[-1] else _LAST)


def summary(spans: Sequence[Span]) -> str:
    """One line about the whole trace."""
    start, length = extent(spans)
    services = len({service_of(span) for span in spans})
    errors = sum(map(is_failed, spans))
    parts = [_count(len(spans), "span"), _count(services, "service"), show_duration(length)]
    parts += [_count(errors, "error")] if errors else []
    return f"{', '.join(parts)}, from {shown_time(start, '%Y-%m-%d %H:%M:%S')}"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def extent(spans: Sequence[Span]) -> tuple[int, int]:
    """Start (unix ns) and length (ns) of all spans together."""
    start = min(span["start_unix_nano"] for span in spans)
    return start, max(span["start_unix_nano"] + duration_ns(span) for span in spans) - start


def bar(span: Span, start_ns: int, length_ns: int, width: int) -> str:
    """Where a span lies within the trace, in `width` characters; never nothing."""
    scale = width / length_ns if length_ns else 0.0
    first = min(width - 1, int((span["start_unix_nano"] - start_ns) * scale))
    size = max(1, min(width - first, round(duration_ns(span) * scale)))
    return " " * first + ("━" * size if length_ns else "•")


def trace_table(spans: Sequence[Span], width: int, *, ascii_only: bool = False) -> Table:
    """The tree with its bars, for a terminal of `width` columns."""
    start, length = extent(spans)
    bar_width = max(_MIN_BAR, width // _BAR_SHARE)
    columns = [column for column in _COLUMNS if column.from_columns <= width]
    rows = []
    for node in tree(spans):
        cells = {"name": _label(node)}
        if node.span is not None:
            cells |= _cells(node.span, bar(node.span, start, length, bar_width))
        shown = [cells.get(column.heading, Text()) for column in columns]
        rows.append([_as_ascii(cell) for cell in shown] if ascii_only else shown)
    return fitted_table(columns, rows, width, show_header=False)


def _cells(span: Span, time: str) -> dict[str, Text]:
    return {
        "service": Text(service_of(span), "cyan"),
        "status": status_of(span),
        "took": Text(shown_duration(span)),
        "time": Text(time, "red" if is_failed(span) else "blue"),
    }


def _label(node: Node) -> Text:
    if node.span is None:
        return Text(f"missing parent {node.parent_id}", "dim italic")
    style = "bold red" if is_failed(node.span) else ""
    name = clean(node.span["name"]) or "(no name)"
    return Text.assemble((node.branches, "dim"), (name, style))


def _as_ascii(text: Text) -> Text:
    return Text(text.plain.translate(_ASCII), text.style)
