import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebbflow.clock import ClockTable, Reading, read_clock_point, read_clocks
from ebbflow.errors import InternalError

OFFSET_NS = 1_700_000_000_000_000_000


class FakeClocks:
    """One oscillator; every look at a clock takes the next latency (ns, repeated)."""

    def __init__(self, latencies=(50,), now=1_000_000, offset=OFFSET_NS):
        self.latencies, self.looks, self.now, self.offset = latencies, 0, now, offset

    def _pass(self):
        self.now += self.latencies[self.looks % len(self.latencies)]
        self.looks += 1

    def monotonic(self):
        self._pass()
        return self.now

    def realtime(self):
        self._pass()
        return self.now + self.offset

    def table(self, **kwargs):
        return ClockTable(monotonic=self.monotonic, realtime=self.realtime, **kwargs)


def test_reading_interval_holds_every_possible_offset():
    reading = Reading(before_ns=100, unix_ns=1_150, after_ns=200)
    assert (reading.lowest_offset_ns, reading.highest_offset_ns, reading.width_ns) == (949, 1_051, 102)


def test_read_clocks_takes_the_narrowest():
    clocks = FakeClocks(latencies=(10, 900, 900, 10, 30, 40, 10, 500, 500))
    reading = read_clocks(clocks.monotonic, clocks.realtime, samples=3)
    assert reading.after_ns - reading.before_ns == 70


def test_read_clock_point_of_this_system_agrees_with_it():
    point = read_clock_point()
    before = time.time_ns()
    converted = point.convert(time.monotonic_ns())
    after = time.time_ns()
    assert before - point.uncertainty_ns <= converted <= after + point.uncertainty_ns
    assert point.uncertainty_ns < 1_000_000


def test_table_converts_within_its_uncertainty():
    table = FakeClocks().table()
    assert abs(table.unix_ns(2_000_000) - 2_000_000 - OFFSET_NS) <= table.uncertainty_ns(2_000_000)


def test_table_readings_narrow_each_other():
    clocks = FakeClocks(latencies=(1, 99, 1, 1, 1, 99))  # the wall clock is read late in one reading, early in the next
    table = clocks.table(samples=1)
    wide = abs(table.unix_ns(0) - OFFSET_NS)
    table.refresh()
    assert wide > 40
    assert abs(table.unix_ns(0) - OFFSET_NS) <= 2


def test_refresh_if_due_reads_only_after_the_interval():
    clocks = FakeClocks()
    table = clocks.table(refresh_ns=1_000_000)
    clocks.offset += 5_000_000
    assert not table.refresh_if_due()
    clocks.now += 1_000_000
    assert table.refresh_if_due()
    assert table.steps == 1


@pytest.mark.parametrize("step_ns", [-3_600_000_000_000, -1_000, 1_000, 86_400_000_000_000])
def test_refresh_step_of_the_wall_clock_begins_a_new_stretch(step_ns):
    clocks = FakeClocks()
    before = clocks.now
    table = clocks.table()
    clocks.now += 1_000_000
    clocks.offset += step_ns
    assert table.refresh()
    assert (table.steps, table.last_step_ns) == (1, step_ns)
    assert abs(table.unix_ns(before) - before - OFFSET_NS) <= table.uncertainty_ns(before) < 200
    assert abs(table.unix_ns(clocks.now) - clocks.now - clocks.offset) <= table.uncertainty_ns(clocks.now) < 200


def test_uncertainty_between_two_stretches_is_the_step():
    clocks = FakeClocks()
    table = clocks.table()
    between = clocks.now + 500_000
    clocks.now += 1_000_000
    clocks.offset += 7_000_000
    table.refresh()
    assert 7_000_000 <= table.uncertainty_ns(between) <= 7_000_200


def test_point_of_a_batch_across_a_step_says_so():
    clocks = FakeClocks()
    first = clocks.now
    table = clocks.table()
    clocks.now += 1_000_000
    clocks.offset += 7_000_000
    table.refresh()
    point = table.point(first, clocks.now)
    assert abs(point.convert(clocks.now) - clocks.now - clocks.offset) < 200
    assert abs(point.convert(first) - first - OFFSET_NS) <= point.uncertainty_ns


def test_point_of_reversed_range_is_internal_error():
    with pytest.raises(InternalError, match="from 2 to 1"):
        FakeClocks().table().point(2, 1)


def test_table_forgets_the_oldest_stretch():
    clocks = FakeClocks()
    table = clocks.table(max_stretches=2)
    for _ in range(3):
        clocks.now += 1_000_000
        clocks.offset += 1_000_000
        table.refresh()
    assert table.steps == 3
    assert abs(table.unix_ns(0) - OFFSET_NS - 2_000_000) <= table.uncertainty_ns(0)


@settings(max_examples=30)
@given(
    latencies=st.lists(st.integers(0, 10_000), min_size=1, max_size=30),
    # Steps are none or larger than the widest reading, so each is noticed at the next refresh.
    refreshes=st.lists(
        st.tuples(st.integers(1, 10**9), st.sampled_from([0, 0, -(10**9), 10**6, 10**12])), min_size=1, max_size=12
    ),
)
def test_table_any_history_is_right_within_its_uncertainty(latencies, refreshes):
    """Oracle: the fake's own offset at every instant that was stamped."""
    clocks = FakeClocks(latencies)
    table = clocks.table(samples=2)
    stamped = [(clocks.now, clocks.offset)]
    for pause, step in refreshes:
        clocks.now += pause
        stamped.append((clocks.now, clocks.offset))
        clocks.offset += step
        clocks.now += 1  # the clocks' resolution: nothing happens in the very nanosecond of a step
        stamped.append((clocks.now, clocks.offset))
        table.refresh()
    assert table.steps == sum(step != 0 for _, step in refreshes)
    for stamp, offset in stamped:
        assert abs(table.unix_ns(stamp) - stamp - offset) <= table.uncertainty_ns(stamp)
    first, last = stamped[0][0], stamped[-1][0]
    batch = table.point(first, last)
    assert all(abs(batch.convert(stamp) - stamp - offset) <= batch.uncertainty_ns for stamp, offset in stamped)
