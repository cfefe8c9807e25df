"""How often something is read again that may have changed."""

from __future__ import annotations

from collections.abc import Callable


class Pace:
    """When something may be read again: not before `least_s`, twice as long after each time nothing was new."""

    def __init__(self, least_s: float, most_s: float, now: Callable[[], float]) -> None:
        self._least_s, self._most_s, self._now = least_s, most_s, now
        self._wait_s = least_s
        self._read_s = -float("inf")

    def is_due(self) -> bool:
        return self._now() >= self._read_s + self._wait_s

    @property
    def age_s(self) -> float:
        return self._now() - self._read_s

    def done(self, *, new: bool) -> None:
        self._read_s = self._now()
        self._wait_s = self._least_s if new else min(2 * self._wait_s, self._most_s)
