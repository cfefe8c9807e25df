"""Questions to the store, as SQL: spans, one trace, rates.

Spans leave as JSON lines. The attributes are JSON in the file already, so a line is put together from text: nothing is
parsed to be written again, and every value stays what it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import orjson

from ebbflow.errors import ConfigError
from ebbflow.store.columns import KINDS, STATUSES

FEW = 10_000
DURATION = "(greatest(end_ns, start_ns) - start_ns)"
FAILED = f"(status = {STATUSES.index('error')} OR http_status >= 500)"
NEWEST_FIRST = "start_ns DESC, trace_hi, trace_lo, span_id"
OLDEST_FIRST = "start_ns, trace_hi, trace_lo, span_id"
_PLAIN = "trace_hi, trace_lo, s.span_id, parent_id, name, kind, start_ns, end_ns, status, r.attributes, s.attributes"
_FULL = f"{_PLAIN}, status_message, trace_state, scope, events, links, dropped"
_EMPTY = {"", "[]", "{}"}
# A stored batch may be some seconds old when the next one comes; only after that does a window count as idle time.
IDLE_NS = 5_000_000_000
RECENT_NS = 60_000_000_000


class Source(Protocol):
    """What is used of a database."""

    def rows(self, query: str, parameters: Sequence[Any] = ..., *, many: bool = ...) -> Iterator[tuple[Any, ...]]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanFilter:
    """Which spans; what is 0 or empty does not filter.

    Attributes:
        status: unset, ok, error, an HTTP status code, or a class of them such as 5xx.
        since_ns: earliest start, unix time.
        limit: the newest so many; 0: all.
    """

    service: str = ""
    status: str = ""
    slower_than_ns: int = 0
    since_ns: int = 0
    limit: int = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class TopRow:
    """One service, kind and route over the window."""

    service: str
    kind: str
    route: str
    count: int
    rate_per_s: float
    errors: int
    errors_percent: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Top:
    """Rates over the window that ends at `end_unix_nano`, in event time; 0 when there are no spans.

    `losses` has what the store itself refused, failed to write or deleted; the pipeline's own losses can be added.
    """

    window_s: float
    end_unix_nano: int
    newest_unix_nano: int
    arrived_unix_nano: int
    rows: list[TopRow]
    losses: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def status_condition(status: str) -> tuple[str, list[int]]:
    """SQL and parameters for a status filter.

    Raises:
        ConfigError: none of the forms known.
    """
    text = status.lower()
    if text in STATUSES:
        return "status = ?", [STATUSES.index(text)]
    if re.fullmatch(r"[1-9][0-9]{2}", text):
        return "http_status = ?", [int(text)]
    if re.fullmatch(r"[1-9]xx", text):
        lowest = int(text[0]) * 100
        return "http_status BETWEEN ? AND ?", [lowest, lowest + 99]
    raise ConfigError(f"{status!r} is no status", hint="use unset, ok, error, an HTTP status as 404, or a class as 5xx")


def _conditions(wanted: SpanFilter) -> Iterator[tuple[str, list[Any]]]:
    if wanted.service:
        yield "service = ?", [wanted.service]
    if wanted.status:
        yield status_condition(wanted.status)
    if wanted.slower_than_ns:
        yield f"{DURATION} > ?", [wanted.slower_than_ns]
    if wanted.since_ns:
        yield "start_ns >= ?", [wanted.since_ns]


def find_spans(source: Source, wanted: SpanFilter) -> Iterator[bytes]:
    """Spans as JSON lines, newest first.

    Raises:
        ConfigError: the filter's status is none.
    """
    conditions = list(_conditions(wanted))
    where = " AND ".join(sql for sql, _ in conditions) or "true"
    parameters = [value for _, values in conditions for value in values]
    found = f"SELECT * FROM spans WHERE {where}"  # noqa: S608 - our own conditions, values are parameters
    if wanted.limit:
        # Row numbers first: only the rows that are shown are read in full, four times as fast on a slow condition.
        found = f"""SELECT * FROM spans WHERE rowid IN
            (SELECT rowid FROM spans WHERE {where} ORDER BY {NEWEST_FIRST} LIMIT {int(wanted.limit)})"""  # noqa: S608
    many = not 0 < wanted.limit <= FEW
    yield from _lines(source, _PLAIN, found, NEWEST_FIRST, parameters, many=many)


def find_trace(source: Source, prefix: str) -> Iterator[bytes]:
    """The spans of one trace as JSON lines, oldest first, each span id once.

    Raises:
        ConfigError: not hex, or no trace, or more than one begins with it.
    """
    trace = resolve_trace(source, prefix)
    once = """
        SELECT * FROM spans WHERE trace_hi = ? AND trace_lo = ?
        QUALIFY row_number() OVER (PARTITION BY span_id ORDER BY received_ns, start_ns) = 1"""
    yield from _lines(source, _FULL, once, OLDEST_FIRST, list(trace))


def _lines(
    source: Source, names: str, found: str, order: str, parameters: list[Any], *, many: bool = False
) -> Iterator[bytes]:
    query = f"SELECT {names} FROM ({found}) s JOIN resources r ON r.id = s.resource_id ORDER BY {order}"  # noqa: S608
    for row in source.rows(query, parameters, many=many):
        yield _line(*row)


def _line(
    trace_hi: int, trace_lo: int, span_id: int, parent_id: int, name: str, kind: int, start_ns: int, end_ns: int,
    status: int, resource: str, attributes: str, *more: str,
) -> bytes:  # fmt: skip
    parent = f"{parent_id:016x}" if parent_id else ""
    return (
        f'{{"trace_id":"{trace_hi:016x}{trace_lo:016x}","span_id":"{span_id:016x}","parent_span_id":"{parent}",'
        f'"name":{orjson.dumps(name).decode()},"kind":"{KINDS[kind]}",'
        f'"start_unix_nano":{start_ns},"end_unix_nano":{end_ns},"status":"{STATUSES[status]}",'
        f'"resource":{resource},"attributes":{attributes}{_more(*more)}}}\n'
    ).encode()


def _more(*values: str) -> str:
    """What few spans have: keys that are left out when there is nothing."""
    if not values:
        return ""
    message, state, *documents = values
    texts = {"status_message": message, "trace_state": state}
    parts = [f',"{key}":{orjson.dumps(value).decode()}' for key, value in texts.items() if value]
    names = ("scope", "events", "links", "dropped")
    parts += [f',"{key}":{value}' for key, value in zip(names, documents, strict=True) if value not in _EMPTY]
    return "".join(parts)


def resolve_trace(source: Source, prefix: str) -> tuple[int, int]:
    """The two halves of the only trace id that begins with `prefix`.

    Raises:
        ConfigError: not hex, or no trace, or more than one begins with it.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{1,32}", prefix):
        raise ConfigError(f"{prefix!r} is no trace id", hint="a trace id is 32 hex digits; its beginning is enough")
    lowest, highest = (int(prefix.ljust(32, digit), 16) for digit in "0f")
    found = list(
        source.rows(
            "SELECT DISTINCT trace_hi, trace_lo FROM spans WHERE trace_hi BETWEEN ? AND ?"
            " AND (trace_hi > ? OR trace_lo >= ?) AND (trace_hi < ? OR trace_lo <= ?) ORDER BY ALL LIMIT 3",
            [lowest >> 64, highest >> 64, *_halves(lowest), *_halves(highest)],
        )
    )
    if not found:
        raise ConfigError(f"no trace begins with {prefix}", hint="`ebbflow traces` lists what there is")
    if len(found) > 1:
        examples = " ".join(f"{high:016x}{low:016x}" for high, low in found)
        raise ConfigError(f"more than one trace begins with {prefix}", hint=f"give more digits of one: {examples}")
    return found[0][0], found[0][1]


def _halves(identity: int) -> tuple[int, int]:
    return identity >> 64, identity & (1 << 64) - 1


def find_top(source: Source, window_ns: int, *, now_ns: int | None = None, losses: dict[str, int] | None = None) -> Top:
    """Rates, errors and latencies by service, kind and route.

    The window ends at the newest span: event time, so that data on its way through the pipeline is not missing at the
    end. Spans that claim to end after they arrived do not move it. When nothing has arrived for `IDLE_NS`, it moves on
    with the clock.

    Args:
        source: the database.
        window_ns: length.
        now_ns: the clock of a live view; None keeps the window at the newest span.
        losses: passed on.
    """
    newest, arrived = next(
        source.rows(
            "SELECT max(least(end_ns, received_ns)), max(received_ns) FROM spans"
            " WHERE received_ns + ? >= (SELECT max(received_ns) FROM spans)",
            [RECENT_NS],
        )
    )
    idle_ns = 0 if now_ns is None or arrived is None else max(0, now_ns - arrived - IDLE_NS)
    end = (newest or 0) + idle_ns
    found = source.rows(_TOP, [max(0, end - window_ns), end]) if newest else ()
    return Top(
        window_s=window_ns / 1e9,
        end_unix_nano=end,
        newest_unix_nano=newest or 0,
        arrived_unix_nano=arrived or 0,
        rows=[_top_row(window_ns / 1e9, *row) for row in found],
        losses=losses or {},
    )


_TOP = f"""
    SELECT service, kind, if(route = '', name, route) AS label, count(*) AS n, count(*) FILTER ({FAILED}),
           quantile_cont({DURATION}, [0.5, 0.95, 0.99])
    FROM spans WHERE end_ns > ? AND end_ns <= ?
    GROUP BY ALL ORDER BY n DESC, service, kind, label
"""  # noqa: S608 - our own names


def _top_row(
    window_s: float, service: str, kind: int, route: str, count: int, errors: int, quantiles: list[float]
) -> TopRow:
    p50_ms, p95_ms, p99_ms = (round(value / 1e6, 3) for value in quantiles)
    return TopRow(
        service=service,
        kind=KINDS[kind],
        route=route,
        count=count,
        rate_per_s=round(count / window_s, 3),
        errors=errors,
        errors_percent=round(100 * errors / count, 2),
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        p99_ms=p99_ms,
    )
