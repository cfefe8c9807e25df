import io

import pytest
from rich.console import Console

from ebbflow.store.views.spans import spans_table, target

SPAN = {
    "trace_id": "ab" * 16,
    "span_id": "01" * 8,
    "parent_span_id": "",
    "name": "GET /items/{id}",
    "kind": "server",
    "start_unix_nano": 1_700_000_000_000_000_000,
    "end_unix_nano": 1_700_000_000_012_300_000,
    "status": "unset",
    "resource": {"service.name": "shop"},
    "attributes": {"url.path": "/items/7", "http.response.status_code": 200},
}


def lines(spans, width):
    stream = io.StringIO()
    Console(file=stream, width=width).print(spans_table(spans, width))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (140, ["start", "service", "kind", "name", "target", "status", "took", "trace"]),
        (110, ["start", "service", "kind", "name", "target", "status", "took", "trace"]),
        (90, ["start", "service", "kind", "name", "status", "took", "trace"]),
        (70, ["start", "service", "name", "status", "took", "trace"]),
        (50, ["service", "name", "status", "took", "trace"]),
        (40, ["name", "status", "took", "trace"]),
        (30, ["name", "status", "took"]),
    ],
)
def test_spans_table_narrow_terminals_have_fewer_columns(width, headings):
    head, row = lines([SPAN], width)
    assert head.split() == headings
    assert "12.3 ms" in row
    assert "200" in row


def test_spans_table_wide_terminal_has_the_whole_id_and_date():
    row = lines([SPAN], 140)[1]
    assert "ab" * 16 in row
    assert row.startswith("2023-11-1")


@pytest.mark.parametrize("width", range(30, 150, 7))
def test_spans_table_never_wraps(width):
    long = SPAN | {"name": "n" * 300, "resource": {"service.name": "s" * 300}, "attributes": {"url.path": "p" * 300}}
    shown = lines([long, SPAN], width)
    assert len(shown) == 3
    assert max(map(len, shown)) <= width


def test_spans_table_service_without_a_name_is_unknown():
    assert "unknown_service" in lines([SPAN | {"resource": {}}], 140)[1]


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"url.path": "/a", "url.full": "b"}, "/a"),
        ({"url.full": "http://b/"}, "http://b/"),
        ({"db.query.text": "SELECT ?"}, "SELECT ?"),
        ({"url.path": 5}, "5"),
        ({}, ""),
    ],
)
def test_target_is_what_was_asked_for(attributes, text):
    assert target({"attributes": attributes}) == text
