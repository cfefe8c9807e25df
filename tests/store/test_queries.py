import orjson
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ebbflow.errors import ConfigError
from ebbflow.store.decode import rows_of
from ebbflow.store.queries import (
    IDLE_NS,
    RECENT_NS,
    SpanFilter,
    find_spans,
    find_top,
    find_trace,
    resolve_trace,
    status_condition,
)
from ebbflow.store.samples import CLIENT, START_NS, make_request, make_span

MS = 1_000_000
SECOND = 1_000_000_000


@pytest.fixture
def insert(database):
    def add(*spans, resource=None, received_ns=START_NS + 3600 * SECOND):
        decoded = rows_of(make_request(spans, resource), received_ns)
        database.insert(decoded.rows, decoded.resources)

    return add


def spans(database, **wanted):
    return [orjson.loads(line) for line in find_spans(database, SpanFilter(**wanted))]


def names(database, **wanted):
    return [span["name"] for span in spans(database, **wanted)]


def test_find_spans_line_has_exactly_the_documented_keys(insert, database):
    attributes = {"http.route": "/x", "n": 5, "ok": True, "list": [1, None], "http.response.status_code": 200}
    insert(make_span(0, attributes=attributes, name='quo"te\n', parent_span_id=b"\x0a" * 8, kind=CLIENT))
    assert spans(database) == [
        {
            "trace_id": f"{1:032x}",
            "span_id": f"{1:016x}",
            "parent_span_id": "0a" * 8,
            "name": 'quo"te\n',
            "kind": "client",
            "start_unix_nano": START_NS,
            "end_unix_nano": START_NS + 2 * MS,
            "status": "unset",
            "resource": {"service.name": "shop"},
            "attributes": attributes,
        }
    ]


def test_find_spans_root_has_an_empty_parent(insert, database):
    insert(make_span(0))
    assert spans(database)[0]["parent_span_id"] == ""


def test_find_spans_newest_come_first_and_equal_starts_by_id(insert, database):
    insert(make_span(1), make_span(2))
    insert(*(make_span(n, start_time_unix_nano=START_NS) for n in (5, 3, 4)))
    assert names(database) == ["span 2", "span 1", "span 3", "span 4", "span 5"]


def test_find_spans_limit_keeps_the_newest(insert, database):
    insert(*(make_span(n) for n in range(5)))
    assert names(database, limit=2) == ["span 4", "span 3"]


def test_find_spans_limit_zero_is_all(insert, database):
    insert(*(make_span(n) for n in range(1005)))
    assert names(database, limit=0) == [f"span {n}" for n in reversed(range(1005))]


def test_find_spans_filters_by_service(insert, database):
    insert(make_span(0), resource={"service.name": "a'b"})
    insert(make_span(1))
    assert names(database, service="a'b") == ["span 0"]


@pytest.mark.parametrize(
    ("status", "found"),
    [
        ("error", ["span 3"]),
        ("ok", ["span 2"]),
        ("UNSET", ["span 1", "span 0"]),
        ("404", ["span 1"]),
        ("5xx", ["span 3"]),
        ("3XX", []),
    ],
)
def test_find_spans_filters_by_status(insert, database, status, found):
    insert(
        make_span(0, attributes={"http.response.status_code": 200}),
        make_span(1, attributes={"http.response.status_code": 404}),
        make_span(2, status=Status(code=1)),
        make_span(3, status=Status(code=2), attributes={"http.response.status_code": 503}),
    )
    assert names(database, status=status) == found


def test_find_spans_slower_than_takes_longer_ones_only(insert, database):
    insert(*(make_span(n, end_time_unix_nano=START_NS + n * MS + n * 10 * MS) for n in range(4)))
    assert names(database, slower_than_ns=20 * MS) == ["span 3"]


def test_find_spans_end_before_start_took_no_time(insert, database):
    insert(make_span(0, end_time_unix_nano=START_NS - 5))
    assert names(database, slower_than_ns=1) == []


def test_find_spans_since_takes_what_started_then_or_later(insert, database):
    insert(*(make_span(n) for n in range(3)))
    assert names(database, since_ns=START_NS + 1 * MS) == ["span 2", "span 1"]


@pytest.mark.parametrize("status", ["", "bad", "50x", "99", "1000", "0xx", "xxx"])
def test_status_condition_anything_else_is_refused(status):
    with pytest.raises(ConfigError) as error:
        status_condition(status)
    assert "5xx" in error.value.hint


def test_find_trace_lines_are_oldest_first_with_what_few_spans_have(insert, database):
    insert(
        make_span(
            1,
            trace_id=b"\x01" * 16,
            trace_state="a=b",
            status=Status(code=2, message="why"),
            events=[Span.Event(name="e")],
            dropped_events_count=3,
        ),
        make_span(0, trace_id=b"\x01" * 16),
        make_span(2),
    )
    first, second = (orjson.loads(line) for line in find_trace(database, "01" * 16))
    assert (first["name"], second["name"]) == ("span 0", "span 1")
    assert second["status_message"] == "why"
    assert second["trace_state"] == "a=b"
    assert second["events"] == [{"name": "e", "time_unix_nano": 0, "attributes": {}}]
    assert second["dropped"] == {"events": 3}
    assert not {"events", "links", "scope", "status_message"} & set(first)


def test_find_trace_span_id_with_two_starts_is_shown_once(insert, database):
    insert(make_span(0))
    insert(make_span(0, start_time_unix_nano=START_NS + 7), received_ns=START_NS + 7200 * SECOND)
    assert [orjson.loads(line)["start_unix_nano"] for line in find_trace(database, f"{1:032x}")] == [START_NS]


@pytest.mark.parametrize("digits", [3, 4, 16, 17, 31, 32])
def test_resolve_trace_unique_beginning_is_enough(insert, database, digits):
    wanted, other = "abc1" * 8, "abd1" * 8
    insert(make_span(0, trace_id=bytes.fromhex(wanted)), make_span(1, trace_id=bytes.fromhex(other)))
    high, low = resolve_trace(database, wanted[:digits].upper())
    assert f"{high:016x}{low:016x}" == wanted


def test_resolve_trace_halves_are_compared_as_one_number(insert, database):
    for number, text in enumerate(["1" * 16 + "2" * 16, "1" * 16 + "3" * 16, "1" * 15 + "2" + "2" * 16]):
        insert(make_span(number, trace_id=bytes.fromhex(text)))
    assert resolve_trace(database, "1" * 16 + "2") == (int("1" * 16, 16), int("2" * 16, 16))


def test_resolve_trace_beginning_of_many_names_some(insert, database):
    insert(*(make_span(n) for n in range(5)))
    with pytest.raises(ConfigError, match="more than one trace begins with 0") as error:
        resolve_trace(database, "0")
    assert f"{1:032x}" in error.value.hint


def test_resolve_trace_nothing_found_says_so(database):
    with pytest.raises(ConfigError, match="no trace begins with 0a"):
        resolve_trace(database, "0a")


@pytest.mark.parametrize("text", ["", "xyz", "0" * 33, "0x1", "' OR 1=1"])
def test_resolve_trace_what_is_not_hex_is_refused(database, text):
    with pytest.raises(ConfigError, match="no trace id"):
        resolve_trace(database, text)


def ending(number, end_ns, took_ns=MS, **fields):
    return make_span(number, start_time_unix_nano=end_ns - took_ns, end_time_unix_nano=end_ns, **fields)


def test_find_top_empty_store_has_no_rows(database):
    found = find_top(database, 10 * SECOND, now_ns=5)
    assert (found.rows, found.end_unix_nano, found.newest_unix_nano) == ([], 0, 0)


def test_find_top_counts_rates_errors_and_quantiles(insert, database):
    route = {"http.route": "/a"}
    insert(*(ending(n, START_NS + n, (n + 1) * MS, attributes=route) for n in range(98)))
    insert(ending(98, START_NS, 99 * MS, attributes=route, status=Status(code=2)))
    insert(ending(99, START_NS, 100 * MS, attributes=route | {"http.response.status_code": 500}))
    (row,) = find_top(database, 10 * SECOND).rows
    assert (row.service, row.kind, row.route) == ("shop", "server", "/a")
    assert (row.count, row.rate_per_s, row.errors, row.errors_percent) == (100, 10.0, 2, 2.0)
    assert (row.p50_ms, row.p95_ms, row.p99_ms) == (50.5, 95.05, 99.01)


def test_find_top_groups_by_service_kind_and_route_busiest_first(insert, database):
    insert(
        ending(0, START_NS), ending(1, START_NS, kind=CLIENT, name="GET"), ending(2, START_NS, kind=CLIENT, name="GET")
    )
    insert(ending(3, START_NS, name="GET", kind=CLIENT), resource={"service.name": "a"})
    rows = [(row.service, row.kind, row.route, row.count) for row in find_top(database, SECOND).rows]
    assert rows == [("shop", "client", "GET", 2), ("a", "client", "GET", 1), ("shop", "server", "span 0", 1)]


def test_find_top_window_ends_at_the_newest_span(insert, database):
    insert(*(ending(n, START_NS + n * SECOND) for n in range(10)))
    found = find_top(database, 3 * SECOND)
    assert found.end_unix_nano == START_NS + 9 * SECOND
    assert sum(row.count for row in found.rows) == 3


def test_find_top_span_from_the_future_does_not_move_the_window(insert, database):
    now = START_NS + 3600 * SECOND
    insert(ending(0, now - SECOND), ending(1, now + 1000 * SECOND))
    found = find_top(database, 10 * SECOND, now_ns=now)
    assert found.newest_unix_nano == now
    assert sum(row.count for row in found.rows) == 1


def test_find_top_old_arrivals_do_not_decide_on_the_newest(insert, database):
    insert(ending(0, START_NS + 100 * SECOND), received_ns=START_NS + 100 * SECOND)
    insert(ending(1, START_NS), received_ns=START_NS + 101 * SECOND + RECENT_NS)
    assert find_top(database, SECOND).newest_unix_nano == START_NS


def test_find_top_window_moves_on_when_nothing_arrives(insert, database):
    arrived = START_NS + SECOND
    insert(ending(0, START_NS), received_ns=arrived)
    busy = find_top(database, 10 * SECOND, now_ns=arrived + IDLE_NS)
    idle = find_top(database, 10 * SECOND, now_ns=arrived + IDLE_NS + 10 * SECOND)
    assert (len(busy.rows), len(idle.rows)) == (1, 0)
    assert idle.end_unix_nano == START_NS + 10 * SECOND


def test_find_top_losses_are_passed_on(database):
    assert find_top(database, SECOND, losses={"refused": 3}).losses == {"refused": 3}
