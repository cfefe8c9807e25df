"""How long to wait before something is sent again."""

from __future__ import annotations

from random import Random


class Backoff:
    """Exponential backoff with jitter, which a peer may lengthen.

    Without word from the peer the n-th delay lies within +-50 % of `first_s * factor**n`, up to `last_s`. A delay the
    peer asks for is kept, never shortened, up to 10 % longer so that clients do not come back all at once; the
    backoff goes on from there.
    """

    FACTOR = 1.5
    JITTER = 0.5
    LATER = 0.1

    def __init__(self, random: Random, *, first_s: float = 0.5, last_s: float = 30.0) -> None:
        self._random = random
        self._next_s = first_s
        self._last_s = last_s

    def delay_s(self, asked_s: float | None = None) -> float:
        """The next delay."""
        if asked_s is not None and asked_s >= self._next_s:
            delay_s = asked_s * (1 + self.LATER * self._random.random())
            base_s = asked_s
        else:
            delay_s = self._next_s * (1 + self.JITTER * (2 * self._random.random() - 1))
            delay_s = max(delay_s, asked_s or 0.0)
            base_s = self._next_s
        self._next_s = min(base_s * self.FACTOR, self._last_s)
        return delay_s
