from __future__ import annotations

import numpy as np
import pytest

from ebbflow.records import Batch, decode
from ebbflow.requests.validate import CLOSE, DATA, EXIT, LAYOUT, OPEN, ValidationLimits, dead_letters, find_invalid
from ebbflow.testing.socket_events import Event, Wire, encode_batch
from ebbflow.v1 import raw_pb2

LIMITS = ValidationLimits()
GOOD = Event(1_000_000_000, 1 << 20, size=3, payload=b"abc", captured=3)
HOUR_NS = 3_600_000_000_000


def batch_of(*events: Event) -> Batch:
    return decode(encode_batch(events, [Wire(1 << 20)], sequence=0), LAYOUT)


def changed(**values: object) -> Event:
    return Event(**{name: getattr(GOOD, name) for name in Event.__dataclass_fields__} | values)  # type: ignore[arg-type]


def test_find_invalid_good_rows_break_no_rule() -> None:
    batch = batch_of(GOOD, changed(kind=EXIT, generation=0, size=0, payload=b"", captured=0))
    assert find_invalid(batch, LIMITS) == {}


def test_find_invalid_no_rows_break_no_rule() -> None:
    assert find_invalid(batch_of(), LIMITS) == {}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (changed(kind=0), "unknown kind"),
        (changed(kind=8), "unknown kind"),
        (changed(direction=2), "unknown direction"),
        (changed(pid=0), "no process"),
        (changed(generation=0), "no connection"),
        (changed(size=0), "data without bytes"),
        (changed(captured=4), "more captured than moved"),
        (changed(captured=2), "more payload than captured"),
        (changed(position=1 << 63), "position out of range"),
        (changed(kind=OPEN), "payload does not fit the kind"),
        (changed(kind=CLOSE), "payload does not fit the kind"),
        (changed(kind=EXIT), "payload does not fit the kind"),
    ],
)
def test_find_invalid_bad_row_is_found_alone(row: Event, reason: str) -> None:
    found = find_invalid(batch_of(GOOD, row, GOOD), LIMITS)
    assert found[reason].tolist() == [False, True, False]


@pytest.mark.parametrize(("ahead_ns", "bad"), [(4_000_000_000, False), (6_000_000_000, True), (1 << 62, True)])
def test_find_invalid_time_ahead_of_the_clock(ahead_ns: int, bad: bool) -> None:
    batch = batch_of(GOOD)
    batch.envelope.clock.monotonic_ns -= 0
    batch.rows = batch.rows.copy()
    batch.rows["time_ns"] += np.uint64(ahead_ns)
    assert bool(find_invalid(batch, LIMITS)) is bad


def test_find_invalid_time_long_before_the_clock() -> None:
    late = changed(time_ns=1_000_000_000 + 7 * HOUR_NS)
    assert find_invalid(batch_of(GOOD, late), LIMITS)["time out of range"].tolist() == [True, False]


def test_find_invalid_sequence_outside_its_cpus_range() -> None:
    batch = batch_of(GOOD, GOOD, GOOD)
    batch.envelope.cpus[0].last = 1
    assert find_invalid(batch, LIMITS)["sequence out of its CPU's range"].tolist() == [False, False, True]


def test_find_invalid_cpus_that_share_low_bits_share_a_range() -> None:
    batch = batch_of(GOOD, GOOD, GOOD)
    batch.envelope.cpus[0].last = 0
    batch.envelope.cpus.append(raw_pb2.CpuRange(cpu=256, first=1, last=2, count=2))
    assert find_invalid(batch, LIMITS) == {}


def test_dead_letters_carry_row_and_payload_and_the_first_reason() -> None:
    batch = batch_of(GOOD, changed(kind=99, pid=0))
    (letter,) = dead_letters(batch, find_invalid(batch, LIMITS), LIMITS)
    assert (letter.code, letter.reason, letter.count) == ("EBB602", "row 1: unknown kind", 1)
    assert letter.value == batch.rows[1:2].tobytes() + b"abc"


def test_dead_letters_beyond_the_limit_share_one() -> None:
    batch = batch_of(*[changed(pid=0)] * 10)
    letters = list(dead_letters(batch, find_invalid(batch, LIMITS), ValidationLimits(single_dead_letters=3)))
    assert [letter.count for letter in letters] == [1, 1, 1, 7]
    assert letters[-1].reason == "7 more rows: no process"
    assert len(letters[-1].value) == 7 * LAYOUT.size


def test_kinds_are_those_of_the_header() -> None:
    assert (DATA, OPEN, CLOSE, EXIT) == (1, 2, 3, 7)
