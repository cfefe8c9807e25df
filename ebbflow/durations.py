"""Durations as people write them: 250ms, 5s, 1h30m."""

from __future__ import annotations

import re

from ebbflow.errors import ConfigError

UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
_PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ns|us|µs|ms|s|m|h|d)")
_SHOWN = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"))


def parse_duration_ns(text: str) -> int:
    """Nanoseconds of one or more numbers with units; a bare number has no meaning but 0.

    Raises:
        ConfigError: anything else.
    """
    compact = text.strip().replace(" ", "").lower()
    if compact == "0":
        return 0
    parts = list(_PART.finditer(compact))
    if not parts or "".join(part[0] for part in parts) != compact:
        raise ConfigError(f"{text!r} is no duration", hint="write a number with a unit: 250ms, 5s, 10m, 1h30m, 2d")
    return round(sum(float(part[1]) * UNITS_NS[part[2]] for part in parts))


def show_duration(nanoseconds: float) -> str:
    """Three significant digits and the unit that fits: 850 µs, 12.3 ms, 1.20 s, 125 s."""
    for size, unit in _SHOWN:
        # What would be rounded up to a thousand belongs to the next unit.
        if nanoseconds >= size * 0.9995:
            value = nanoseconds / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"  # noqa: PLR2004 - digits
    return f"{nanoseconds:.0f} ns"
