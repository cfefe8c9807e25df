"""What found no room in the ring and must not be lost: the kernel program keeps it in a map until we look.

That is what opens or ends a connection, or a process. The ring is read first, then the map: what opens something is in
the map before anything of it is in the ring, so it goes before what was read. What ends something may be in the map
while older events are still in the ring; it waits here until they have been taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ebbflow.kernel.layout import Layout
from ebbflow.kernel.ring import Ring
from ebbflow.kernel.rows import Drained, join


class Spill:
    """The map of one program.

    Args:
        table: BCC's; its values are a row and room for the longest payload.
        layout: of the rows.
        opening: the kind of row that comes before everything else of its connection.
        largest_bytes: of an event with its payload; with less room than that in the ring, events may spill.
    """

    def __init__(self, table: Any, layout: Layout, opening: int, largest_bytes: int) -> None:
        self._table = table
        self._layout = layout
        self._opening = opening
        self._largest_bytes = largest_bytes
        self._ends: list[tuple[int, Drained]] = []

    @property
    def waiting(self) -> int:
        """Events that wait for older ones."""
        return sum(len(ended.rows) for _, ended in self._ends)

    def may_hold(self, ring: Ring) -> bool:
        """Whether it is worth looking, as the ring stands before it is read: only the reader makes room in it."""
        return bool(self._ends) or ring.size_bytes - (ring.produced - ring.consumed) < self._largest_bytes

    def around(self, drained: Drained, ring: Ring) -> Drained:
        """What was just read of the ring with what spilled beside it, by time."""
        found = self._read()
        opens = found.rows["kind"] == self._opening
        self._ends.append((ring.produced, found.choose(~opens)))
        due = [ended for produced, ended in self._ends if produced <= ring.consumed]
        self._ends = [
            (produced, ended) for produced, ended in self._ends if produced > ring.consumed and len(ended.rows)
        ]
        joined = join([found.choose(opens), drained, *due])
        # A small event may find room where a larger one before it did not: an exit after the last close.
        return joined.choose(np.argsort(joined.rows["time_ns"], kind="stable"))

    def _read(self) -> Drained:
        return spilled_of(self._take(), self._layout)

    def _take(self) -> Iterator[bytes]:
        """The map's values, which are no longer in it then."""
        for key in list(self._table.keys()):
            yield bytes(self._table[key])
            del self._table[key]


def spilled_of(values: Iterable[bytes], layout: Layout) -> Drained:
    """Rows with their payload from values of equal length."""
    found = list(values)
    data = b"".join(found)
    size = len(found[0]) if found else layout.size
    heads = np.frombuffer(data, np.uint8).reshape(-1, size)[:, : layout.size]
    rows = np.ascontiguousarray(heads).reshape(-1).view(layout.dtype)
    starts = np.arange(len(rows), dtype=np.int64) * size + layout.size
    return Drained(data, rows, starts, starts + rows["captured"], 0)
