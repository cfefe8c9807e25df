"""Small pieces that all views share."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from ebbflow.durations import show_duration

# A pipe has no width: wide enough that no column is cut.
PIPE_COLUMNS = 220
NANOSECONDS = 1_000_000_000
_STATUS_STYLES = {"error": "bold red", "ok": "green", "unset": "dim"}
_SERVER_ERRORS = 500
_CLIENT_ERRORS = 400

Span = dict[str, Any]


def make_console(stream: TextIO | None = None) -> Console:
    """A console over standard output, wide when that is no terminal."""
    stream = sys.stdout if stream is None else stream
    return Console(file=stream, width=None if stream.isatty() else PIPE_COLUMNS, highlight=False)


def clean(text: str) -> str:
    """Without control characters: names come from the network, and a terminal obeys what it is told."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def service_of(span: Span) -> str:
    return clean(str(span["resource"].get("service.name") or "unknown_service"))


def duration_ns(span: Span) -> int:
    """Never negative, whatever the clocks said."""
    return max(0, int(span["end_unix_nano"]) - int(span["start_unix_nano"]))


def shown_duration(span: Span) -> str:
    return show_duration(duration_ns(span))


def shown_time(unix_nano: int, pattern: str) -> str:
    """Local time with milliseconds after `pattern`; a dash for a time no calendar has."""
    try:
        moment = datetime.fromtimestamp(unix_nano // NANOSECONDS).astimezone()
    except (OverflowError, ValueError, OSError):
        return "-"
    return f"{moment.strftime(pattern)}.{unix_nano % NANOSECONDS // 1_000_000:03d}"


def is_failed(span: Span) -> bool:
    return bool(span["status"] == "error")


def status_text(span: Span) -> Text:
    """The HTTP status where there is one, else the span's own."""
    code = span["attributes"].get("http.response.status_code", span["attributes"].get("http.status_code"))
    if not isinstance(code, int) or isinstance(code, bool):
        return Text(span["status"], _STATUS_STYLES[span["status"]])
    if is_failed(span) or code >= _SERVER_ERRORS:
        return Text(str(code), "bold red")
    return Text(str(code), "yellow" if code >= _CLIENT_ERRORS else "green")
