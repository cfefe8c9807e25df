from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbflow.run.words import Notice, last_words, read_line, read_lines


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"event":"sink runs","level":"info"}', None),
        ('{"event":"late","level":"warning"}', Notice("warning", "late")),
        ('{"event":"away","level":"warning","code":"EBB400","hint":"start"}', Notice("warning", "away", "start")),
        ('{"event":"failed","level":"error","error":"OSError: no"}', Notice("error", "failed: OSError: no")),
        ('{"event":"gave up","level":"warning","events":7,"timestamp":"x"}', Notice("warning", "gave up (events=7)")),
        ('{"event":"bad","level":"critical"}', Notice("error", "bad")),
        ('{"event": broken', None),
        ("[1, 2]", None),
        ("error: port 1 is taken\n", Notice("error", "port 1 is taken")),
        ("2026/01/01 10:00:00 [emerg] 12#12: bind() failed", Notice("error", "bind() failed")),
        ("2026/01/01 10:00:00 [warn] 12#12: slow", Notice("warning", "slow")),
        ("nginx: [emerg] unknown directive", Notice("error", "unknown directive")),
        ("ValueError: no such thing", Notice("error", "ValueError: no such thing")),
        ("some.module.OddError: why", Notice("error", "OddError: why")),
        ("Traceback (most recent call last):", None),
        ("Kafka is ready at 127.0.0.1:9092", None),
        ("", None),
    ],
)  # fmt: skip
def test_read_line_tells_only_what_is_wrong(line, expected):
    assert read_line(line) == expected


def test_read_lines_hint_line_joins_the_error_before_it():
    lines = ["hint: of nothing", "error: full", "hint: free some", "all well"]
    assert read_lines(lines) == [Notice("error", "full", "free some")]


def test_str_of_notice_names_a_warning_and_its_hint():
    assert str(Notice("warning", "late", "wait")) == "warning: late (hint: wait)"
    assert str(Notice("error", "broken")) == "broken"


def test_last_words_takes_the_last_error():
    log = 'error: first\nhint: one\n{"level":"error","event":"second"}\n{"level":"info","event":"bye"}\n'
    assert last_words(log) == Notice("error", "second")


def test_last_words_without_an_error_takes_the_last_line():
    assert last_words('one\n{"level":"info","event":"stopping"}\n\n') == Notice("error", "stopping")
    assert last_words("one\n  two  \n") == Notice("error", "two")
    assert last_words("") == Notice("error", "")


@given(st.text())
def test_read_line_any_text_never_raises(line):
    assert isinstance(read_line(line), Notice | None)
