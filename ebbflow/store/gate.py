"""Readers together, or one that wants to be alone.

DuckDB gives the space of deleted rows back only when no older snapshot is open at the checkpoint that follows, and
not at a later one. So deleting waits for the readers there are, and holds back new ones for that moment.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Any number of readers, or one alone; whoever waits to be alone goes before new readers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._closed = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self, timeout_s: float) -> Iterator[bool]:
        """Whether the readers were gone within `timeout_s`. For one thread only."""
        with self._changed:
            self._closed = True
            alone = self._changed.wait_for(lambda: not self._readers, timeout_s)
        try:
            yield alone
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()
