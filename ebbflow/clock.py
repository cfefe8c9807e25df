"""Monotonic kernel stamps to unix time, with an error bound.

bpf_ktime_get_ns() is CLOCK_MONOTONIC. On Linux both it and CLOCK_REALTIME run on the same oscillator with the same NTP
rate correction; their distance, wall_to_monotonic, only changes in steps: settimeofday, a leap second, waking from
suspend (kernel/time/timekeeping.c). So nothing needs to be interpolated between two readings, and readings make each
other better: each one bounds the offset from both sides, and a stretch without a step knows it as the intersection.

    reading   monotonic before | realtime | monotonic after       offset in [realtime - after, realtime - before]
    stretch   readings whose intervals all overlap                offset in their intersection
    step      an interval that overlaps no more                   a new stretch begins

A reading can be interrupted between its clocks, hence the best of several. A step is noticed at the first reading that
is precise enough to show it; until the table is refreshed, stamps after a step are converted as if there were none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ebbflow.errors import InternalError

NanosecondClock = Callable[[], int]
SAMPLES = 9
REFRESH_NS = 1_000_000_000
MAX_STRETCHES = 64
# The two clocks round their fractions of a nanosecond on their own.
_ROUNDING_NS = 1


def monotonic_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def realtime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


@dataclass(frozen=True, slots=True)
class ClockPoint:
    """unix time of a stamp = stamp - monotonic_ns + unix_ns, true within uncertainty_ns."""

    monotonic_ns: int
    unix_ns: int
    uncertainty_ns: int

    def convert(self, stamp_ns: int) -> int:
        return stamp_ns - self.monotonic_ns + self.unix_ns


@dataclass(frozen=True, slots=True)
class Reading:
    """The wall clock between two looks at the monotonic one."""

    before_ns: int
    unix_ns: int
    after_ns: int

    @property
    def width_ns(self) -> int:
        return self.after_ns - self.before_ns + 2 * _ROUNDING_NS

    @property
    def lowest_offset_ns(self) -> int:
        return self.unix_ns - self.after_ns - _ROUNDING_NS

    @property
    def highest_offset_ns(self) -> int:
        return self.unix_ns - self.before_ns + _ROUNDING_NS


@dataclass(slots=True)
class _Stretch:
    """A time without a step: the offset lies between `low_ns` and `high_ns` from first to last reading."""

    first_ns: int
    last_ns: int
    low_ns: int
    high_ns: int
    uncertainty_ns: int

    @property
    def offset_ns(self) -> int:
        return (self.low_ns + self.high_ns) // 2


def read_clocks(
    monotonic: NanosecondClock = monotonic_ns, realtime: NanosecondClock = realtime_ns, *, samples: int = SAMPLES
) -> Reading:
    """The narrowest of several readings."""
    readings = (Reading(monotonic(), realtime(), monotonic()) for _ in range(samples))
    return min(readings, key=lambda reading: reading.width_ns)


def read_clock_point() -> ClockPoint:
    """One point without a history, from the system's clocks."""
    reading = read_clocks()
    offset = (reading.lowest_offset_ns + reading.highest_offset_ns) // 2
    return ClockPoint(reading.after_ns, reading.after_ns + offset, reading.width_ns)


class ClockTable:
    """The offsets of a running producer, one for each stretch between two steps of the wall clock.

    Args:
        refresh_ns: `refresh_if_due` reads the clocks again after this long.
        samples: readings per refresh, of which the narrowest counts.
        max_stretches: remembered; the oldest is forgotten first.
    """

    def __init__(
        self,
        *,
        monotonic: NanosecondClock = monotonic_ns,
        realtime: NanosecondClock = realtime_ns,
        refresh_ns: int = REFRESH_NS,
        samples: int = SAMPLES,
        max_stretches: int = MAX_STRETCHES,
    ) -> None:
        self._monotonic = monotonic
        self._realtime = realtime
        self._refresh_ns = refresh_ns
        self._samples = samples
        self._max_stretches = max_stretches
        self._stretches: list[_Stretch] = []
        self.steps = 0
        self.last_step_ns = 0
        self.refresh()

    def refresh(self) -> bool:
        """Read the clocks; True when the wall clock was stepped since the last time (`last_step_ns` says how far)."""
        reading = read_clocks(self._monotonic, self._realtime, samples=self._samples)
        current = self._stretches[-1] if self._stretches else None
        if current and _extend(current, reading):
            return False
        new = _begin(reading)
        self._stretches = [*self._stretches, new][-self._max_stretches :]
        if current is None:
            return False
        self.steps += 1
        self.last_step_ns = new.offset_ns - current.offset_ns
        return True

    def refresh_if_due(self) -> bool:
        """`refresh`, unless the last one is recent; as cheap as a look at the clock otherwise."""
        return self._monotonic() - self._stretches[-1].last_ns >= self._refresh_ns and self.refresh()

    def point(self, first_ns: int, last_ns: int) -> ClockPoint:
        """One point for all stamps from first to last, such as a batch's.

        Its offset is right for the last stamp. When a step lies in between, the uncertainty is as large as the step.

        Raises:
            InternalError: first comes after last.
        """
        if first_ns > last_ns:
            raise InternalError(f"a batch from {first_ns} to {last_ns}")
        covered = self._covered(first_ns, last_ns)
        offset = covered[-1].offset_ns
        error = max(abs(offset - stretch.offset_ns) + stretch.uncertainty_ns for stretch in covered)
        return ClockPoint(last_ns, last_ns + offset, error)

    def unix_ns(self, stamp_ns: int) -> int:
        """Unix time of one monotonic stamp, true within `uncertainty_ns`."""
        return self.point(stamp_ns, stamp_ns).unix_ns

    def uncertainty_ns(self, stamp_ns: int) -> int:
        return self.point(stamp_ns, stamp_ns).uncertainty_ns

    def _covered(self, first_ns: int, last_ns: int) -> list[_Stretch]:
        """Stretches that hold at some time from first to last; between two stretches either may hold."""
        ends = [float("-inf"), *(stretch.last_ns for stretch in self._stretches[:-1])]
        begins = [*(stretch.first_ns for stretch in self._stretches[1:]), float("inf")]
        return [
            stretch
            for stretch, end, begin in zip(self._stretches, ends, begins, strict=True)
            if end < last_ns and first_ns < begin
        ]


def _begin(reading: Reading) -> _Stretch:
    return _Stretch(
        reading.before_ns, reading.after_ns, reading.lowest_offset_ns, reading.highest_offset_ns, reading.width_ns
    )


def _extend(stretch: _Stretch, reading: Reading) -> bool:
    """Take a reading into a stretch; False when its interval does not overlap."""
    low = max(stretch.low_ns, reading.lowest_offset_ns)
    high = min(stretch.high_ns, reading.highest_offset_ns)
    if low > high:
        return False
    stretch.low_ns, stretch.high_ns, stretch.last_ns = low, high, reading.after_ns
    stretch.uncertainty_ns = min(stretch.uncertainty_ns, reading.width_ns)
    return True
