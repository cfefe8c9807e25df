from __future__ import annotations

from ebbflow.protocols.http1_pace import Pace
from ebbflow.protocols.stream import Segment


def test_pace_before_any_event_is_one() -> None:
    assert Pace(5).per_event(5) == 1.0


def test_pace_counts_messages_per_event_read() -> None:
    pace = Pace(0)
    for messages in (3, 1, 0):
        pace.count_event()
        for _ in range(messages):
            pace.count_message()
    pace.unread += 2
    assert pace.per_event(5) == 4 / 3
    assert pace.in_event == 0


def test_pace_is_never_zero() -> None:
    pace = Pace(0)
    pace.count_event()
    assert pace.per_event(1) == 0.01


def test_pace_bytes_per_message() -> None:
    pace = Pace(0)
    pace.count_event()
    for _ in range(4):
        pace.count_message()
    assert pace.bytes_per_message(Segment(0, 0, 500, 0, b"x" * 400)) == 100
