"""Where lines for people go: straight out, or, while a screen is drawn again and again, into its last lines."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHOWN_S = 60.0
SHOWN_LINES = 3
_KEPT_LINES = 50


class Board:
    """Lines for people.

    Args:
        write: shows a line.
        clock_s: a clock that only rises.
    """

    def __init__(self, write: Callable[[str], None], clock_s: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock_s = clock_s
        self._is_screen = False
        self._kept: deque[tuple[float, str]] = deque(maxlen=_KEPT_LINES)

    def say(self, line: str) -> None:
        if self._is_screen:
            self._kept.append((self._clock_s(), f"{time.strftime('%H:%M:%S')}  {line}"))
        else:
            self._write(line)

    def recent(self) -> list[str]:
        """The last lines, for the screen."""
        now_s = self._clock_s()
        return [line for said_s, line in self._kept if now_s - said_s < SHOWN_S][-SHOWN_LINES:]

    @contextmanager
    def screen(self) -> Iterator[None]:
        """Somebody draws a screen meanwhile; what was said then is written after it."""
        self._is_screen = True
        try:
            yield
        finally:
            self._is_screen = False
            for _, line in self._kept:
                self._write(line)
            self._kept.clear()
