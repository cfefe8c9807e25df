from __future__ import annotations

import pytest
from totals import INPUT, OUTPUT, Totals, expected

from ebbflow.component import Record, Result
from ebbflow.errors import BatchInvalid, InternalError
from ebbflow.ledger import decode as decode_entry
from ebbflow.stream.checkpoint import Checkpoint
from ebbflow.stream.partition import Breaker, Partition
from ebbflow.topics import DEAD_LETTERS, LEDGER


def record(offset: int, value: bytes, timestamp_ms: int = 0) -> Record:
    return Record(INPUT, 0, offset, timestamp_ms, b"key", value)


def partition(processor=None, start: Checkpoint | None = None) -> Partition:
    start = start or Checkpoint(next_offset=0, snapshot_version=1)
    return Partition(
        processor or Totals(), INPUT, 0, start, breaker=Breaker(10, 0.5, start.recent), clock_unix_ns=lambda: 99
    )


def values(step) -> list[bytes]:
    return [output.value for output in step.outputs if output.topic == OUTPUT]


def test_breaker_below_its_share_would_not_open():
    breaker = Breaker(10, 0.5)
    for _ in range(4):
        breaker.push(bad=True)
    assert not breaker.would_open()


def test_breaker_at_its_share_would_open_with_the_next():
    breaker = Breaker(10, 0.5)
    for _ in range(5):
        breaker.push(bad=True)
    assert breaker.would_open()


def test_breaker_forgets_what_left_the_window():
    breaker = Breaker(4, 0.5)
    for bad in (True, True, False, False):
        breaker.push(bad=bad)
    assert not breaker.would_open()


def test_breaker_with_full_share_never_opens():
    breaker = Breaker(4, 1.0)
    for _ in range(10):
        breaker.push(bad=True)
    assert not breaker.would_open()


def test_breaker_window_survives_being_written():
    breaker = Breaker(4, 0.5)
    for bad in (True, False, True, True, False):
        breaker.push(bad=bad)
    assert Breaker(4, 0.5, breaker.window()).window() == b"\x00\x01\x01\x00"


def test_step_gives_outputs_then_the_ledger_entry_of_the_record():
    step = partition().step(record(0, b"7"))
    assert values(step) == [b"total 7 7"]
    entry = decode_entry(step.outputs[-1].value)
    assert (entry.stage, entry.source, entry.time_unix_ns) == ("totals", f"{INPUT}/0/0", 99)
    assert entry.counters == {"events": 1, "spans": 1}


def test_step_ticks_at_the_largest_event_time_so_far():
    ours = partition()
    steps = [ours.step(record(offset, b"%d" % number)) for offset, number in enumerate((0, 200, 100, 101))]
    assert [value for step in steps for value in values(step)] == expected([b"0", b"200", b"100", b"101"])
    # Number 100 comes when 200 has been: its half is given up at once, and 101 finds nothing.
    assert ours.watermark_ns == 200_000_000_000


def test_step_without_counters_writes_no_entry():
    class Silent(Totals):
        def process(self, record):
            return Result()

    assert partition(Silent()).step(record(0, b"1")).outputs == []


def test_step_bad_row_is_a_dead_letter_beside_the_outputs():
    step = partition().step(record(4, b"row"))
    assert [output.topic for output in step.outputs] == [DEAD_LETTERS, LEDGER]
    assert step.codes == ["EBB602"]
    headers = dict(step.outputs[0].headers)
    assert (headers["ebbflow-offset"], headers["ebbflow-reason"]) == (b"4", b"one row")


def test_step_bad_record_raises_and_changes_nothing():
    ours = partition()
    ours.step(record(0, b"1"))
    before = ours.checkpoint()
    with pytest.raises(BatchInvalid):
        ours.step(record(1, b"bad"))
    assert ours.checkpoint() == before


def test_step_validation_error_in_tick_is_a_bug():
    class Picky(Totals):
        def tick(self, event_time_ns):
            raise BatchInvalid("too late to say so")

    with pytest.raises(InternalError, match="tick refused"):
        partition(Picky()).step(record(0, b"1"))


def test_refuse_passes_over_the_record_with_a_dead_letter():
    ours = partition()
    step = ours.refuse(record(0, b"bad"), BatchInvalid("no good"))
    assert step.codes == ["EBB601"]
    assert step.outputs[0].value == b"bad"
    assert decode_entry(step.outputs[1].value).counters == {"bad_records": 1}
    assert (ours.next_offset, ours.breaker.window()) == (1, b"\x01")


def test_refuse_foreign_exception_is_an_internal_error():
    step = partition().refuse(record(0, b"boom"), ZeroDivisionError("by zero"))
    assert step.codes == ["EBB900"]
    assert dict(step.outputs[0].headers)["ebbflow-reason"] == b"ZeroDivisionError: by zero"


def test_checkpoint_restored_goes_on_as_if_nothing_had_happened():
    numbers = [b"%d" % number for number in range(100, 140)]
    whole, first = partition(), partition()
    wanted = [values(whole.step(record(offset, value))) for offset, value in enumerate(numbers)]
    given = [values(first.step(record(offset, value))) for offset, value in enumerate(numbers[:21])]
    middle = first.checkpoint()
    processor = Totals()
    processor.restore(middle.state)
    second = partition(processor, middle)
    assert (second.next_offset, second.is_dirty) == (21, False)
    given += [values(second.step(record(21 + offset, value))) for offset, value in enumerate(numbers[21:])]
    assert given == wanted
    assert second.checkpoint() == whole.checkpoint()


def test_checkpoint_restored_knows_what_time_it_was():
    first = partition()
    first.step(record(0, b"200"))
    processor = Totals()
    middle = first.checkpoint()
    processor.restore(middle.state)
    step = partition(processor, middle).step(record(1, b"100"))
    assert values(step) == [b"total 100 300", b"late 50 100"]


def test_is_foreign_known_offset_with_newer_time_is_another_topic():
    ours = partition()
    ours.step(record(0, b"1", timestamp_ms=50))
    assert not ours.is_foreign(record(0, b"1", timestamp_ms=50))
    assert ours.is_foreign(record(0, b"1", timestamp_ms=51))
    assert not ours.is_foreign(record(1, b"1", timestamp_ms=51))
