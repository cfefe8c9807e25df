import io
import time

import pytest

from ebbflow.store.views.text import PIPE_COLUMNS, clean, duration_ns, make_console, shown_time, status_text


def span(**fields):
    return {"status": "unset", "attributes": {}, "start_unix_nano": 5, "end_unix_nano": 9, **fields}


def test_clean_control_characters_cannot_reach_the_terminal():
    assert clean("a\x1b[31mb\nc") == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}c"


def test_clean_printable_text_stays():
    assert clean("GET /日本 é") == "GET /日本 é"


@pytest.mark.parametrize(("end", "took"), [(9, 4), (5, 0), (3, 0)])
def test_duration_is_never_negative(end, took):
    assert duration_ns(span(end_unix_nano=end)) == took


@pytest.mark.parametrize(
    ("fields", "text", "style"),
    [
        ({"status": "ok"}, "ok", "green"),
        ({"status": "error"}, "error", "bold red"),
        ({"attributes": {"http.response.status_code": 200}}, "200", "green"),
        ({"attributes": {"http.response.status_code": 404}}, "404", "yellow"),
        ({"attributes": {"http.status_code": 503}}, "503", "bold red"),
        ({"status": "error", "attributes": {"http.response.status_code": 404}}, "404", "bold red"),
        ({"attributes": {"http.response.status_code": "200"}}, "unset", "dim"),
        ({"attributes": {"http.response.status_code": True}}, "unset", "dim"),
    ],
)
def test_status_text_is_the_http_status_where_there_is_one(fields, text, style):
    found = status_text(span(**fields))
    assert (found.plain, found.style) == (text, style)


def test_shown_time_is_local_with_milliseconds(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert shown_time(1_700_000_000_123_456_789, "%H:%M:%S") == "22:13:20.123"


def test_shown_time_no_calendar_has_is_a_dash():
    assert shown_time((1 << 64) - 1 << 20, "%H:%M:%S") == "-"


def test_make_console_pipe_is_wide():
    assert make_console(io.StringIO()).width == PIPE_COLUMNS
