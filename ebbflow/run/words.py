"""What a line of a part's log means to people: warnings and errors are shown, everything else stays in its file.

Our own parts write JSON (structlog) and, when they cannot go on, `error: …` and `hint: …`; nginx writes `[error] …`;
an interpreter's last words are a traceback, of which the last line says what it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

_SHOWN_LEVELS = {"warning": "warning", "error": "error", "critical": "error"}
_FRAME_FIELDS = frozenset({"event", "level", "timestamp", "component", "logger", "error", "hint", "code"})
_NGINX = re.compile(r"\[(warn|error|crit|alert|emerg)\] (?:\d+#\d+: )?(.*)")
_RAISED = re.compile(r"^([\w.]+(?:Error|Exception|Interrupt|Exit)): (.*)")
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing worth telling; `hint` may come later, in a line of its own."""

    level: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        told = self.text if self.level == "error" else f"{self.level}: {self.text}"
        return f"{told} (hint: {self.hint})" if self.hint else told


def read_line(line: str) -> Notice | None:
    """The notice in one line of a log; None where it is nothing to worry about."""
    line = line.strip()
    if line.startswith("{"):
        return _from_json(line)
    if line.startswith("error: "):
        return Notice("error", line.removeprefix("error: ")[:_LONGEST])
    if found := _NGINX.search(line):
        return Notice("warning" if found[1] == "warn" else "error", found[2][:_LONGEST])
    if found := _RAISED.match(line):
        return Notice("error", f"{found[1].rpartition('.')[2]}: {found[2]}"[:_LONGEST])
    return None


def read_lines(lines: Iterable[str]) -> list[Notice]:
    """The notices of some lines; a line `hint: …` belongs to the notice before it."""
    notices: list[Notice] = []
    for line in lines:
        if line.startswith("hint: ") and notices:
            notices[-1] = Notice(notices[-1].level, notices[-1].text, line.removeprefix("hint: ").strip())
        elif notice := read_line(line):
            notices.append(notice)
    return notices


def last_words(log: str) -> Notice:
    """Why a part ended, as far as its log says: the last error, else the last line."""
    lines = log.splitlines()
    errors = [notice for notice in read_lines(lines) if notice.level == "error"]
    if errors:
        return errors[-1]
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return Notice("error", _event(last)[:_LONGEST])


def _from_json(line: str) -> Notice | None:
    record = _parse(line)
    level = _SHOWN_LEVELS.get(str(record.get("level")))
    if level is None:
        return None
    details = [f"{key}={value}" for key, value in record.items() if key not in _FRAME_FIELDS]
    parts = [str(record.get("event", "")), *filter(None, [str(record.get("error", ""))])]
    text = ": ".join(parts) + (f" ({', '.join(details)})" if details else "")
    return Notice(level, text[:_LONGEST], str(record.get("hint") or ""))


def _event(line: str) -> str:
    return str(_parse(line).get("event", line)) if line.startswith("{") else line


def _parse(line: str) -> dict[str, Any]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return record if isinstance(record, dict) else {}
