"""Perf maps: the text file /tmp/perf-PID.map in which a JIT tells what code it made.

    7f3c10001240 1a0 JS:*handler /srv/app.js:12:20      start and size in hexadecimal, then the name, to the line's end

(linux: tools/perf/Documentation/jit-interface.txt). V8 appends for ever and re-uses addresses, so the last line wins
wherever ranges overlap. The file belongs to the program: lines can be garbage, without end, or not be finished yet.

What is written while a process runs is read on from where the last read ended. Bounds: bytes a read, bytes in all,
entries kept (those longest in the file go first).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from ebbflow.symbols.elf import Array
from ebbflow.symbols.files import Source

READ_BYTES = 8 << 20
MAX_FILE_BYTES = 256 << 20
MAX_ENTRIES = 1 << 18
_MAX_NAME_BYTES = 1024
_MAX_CODE_BYTES = 1 << 30
_HEAD_BYTES = 64
_LINE = re.compile(rb"(?:0x)?([0-9a-fA-F]{1,16}) +(?:0x)?([0-9a-fA-F]{1,16}) +(\S.*)", re.DOTALL)


@dataclass(slots=True)
class _Ranges:
    """Ranges without overlap: `owners[i]` (an entry's index, -1 for none) holds bounds[i] to bounds[i + 1]."""

    bounds: Array
    owners: Array

    def find(self, address: int) -> int:
        if not 0 <= address < 1 << 64:
            return -1
        index = int(np.searchsorted(self.bounds, np.uint64(address), side="right")) - 1
        return int(self.owners[index]) if 0 <= index < len(self.owners) else -1


class PerfMap:
    """The functions of one process's JIT; `troubles` counts lines and files that could not be used."""

    def __init__(self, troubles: Counter[str], *, max_entries: int = MAX_ENTRIES, read_bytes: int = READ_BYTES) -> None:
        self._troubles = troubles
        self._max_entries, self._read_bytes = max_entries, read_bytes
        self._clear()

    def _clear(self) -> None:
        self._offset, self._head = 0, b""
        self._starts: list[int] = []
        self._limits: list[int] = []
        self._names: list[str] = []
        self._ranges: _Ranges | None = None

    def __len__(self) -> int:
        return len(self._names)

    @property
    def memory_bytes(self) -> int:
        """Estimated: two numbers, their ranges, and a name an entry."""
        return 250 * len(self._names)

    def find(self, address: int) -> str | None:
        """Name of the last entry that holds an address."""
        if self._ranges is None:
            self._rebuild()
        index = self._ranges.find(address) if self._ranges is not None else -1
        return self._names[index] if index >= 0 else None

    def read(self, source: Source) -> bool:
        """Read on where the last read ended; anew when the file was replaced. True when there is something new."""
        head = source.read(0, _HEAD_BYTES)
        if source.size < self._offset or not head.startswith(self._head):
            self._clear()
        room = min(self._read_bytes, MAX_FILE_BYTES - self._offset)
        if room <= 0:
            self._troubles["perf_map_too_large"] += 1
            return False
        data = source.read(self._offset, room)
        whole = data.rfind(b"\n") + 1
        if not whole and len(data) == self._read_bytes:  # no line is that long
            whole = len(data)
        self._head = head if len(head) == _HEAD_BYTES else self._head
        self._offset += whole
        return self._add(data[:whole])

    def _add(self, text: bytes) -> bool:
        before = len(self._names)
        for line in text.split(b"\n"):
            if line:
                self._add_line(line)
        if len(self._names) == before:
            return False
        self._ranges = None
        if len(self._names) > self._max_entries:
            self._rebuild()
        return True

    def _add_line(self, line: bytes) -> None:
        match = _LINE.fullmatch(line)
        start, size = (int(match[1], 16), int(match[2], 16)) if match else (0, 0)
        if match is None or not 0 < size < _MAX_CODE_BYTES or start + size >= 1 << 64:
            self._troubles["malformed_perf_map_lines"] += 1
            return
        self._starts.append(start)
        self._limits.append(start + size)
        self._names.append(match[3][:_MAX_NAME_BYTES].decode("utf-8", "replace"))

    def _rebuild(self) -> None:
        """Work out who owns what, and forget entries that own nothing any more, or are too many."""
        ranges = last_wins(np.array(self._starts, np.uint64), np.array(self._limits, np.uint64))
        kept = np.unique(ranges.owners[ranges.owners >= 0])[-self._max_entries :]
        self._starts = [self._starts[i] for i in kept]
        self._limits = [self._limits[i] for i in kept]
        self._names = [self._names[i] for i in kept]
        if len(kept):
            index = np.searchsorted(kept, ranges.owners).clip(max=len(kept) - 1)
            ranges.owners = np.where(kept[index] == ranges.owners, index, -1)
        self._ranges = ranges


def last_wins(starts: Array, limits: Array) -> _Ranges:
    """Cut overlapping ranges (uint64, shape (n,), start < limit) so that the later one, by index, owns every address.

    The addresses where anything begins or ends cut the line into pieces; range i covers pieces low[i] to high[i]. That
    is the union of two, overlapping, of 2^k pieces each; marks of 2^k pieces are handed down to their two halves, from
    the greatest k to 0. O((n + pieces) log n), whatever the ranges are.
    """
    bounds = np.unique(np.concatenate([starts, limits]))
    low, high = np.searchsorted(bounds, starts), np.searchsorted(bounds, limits)
    level = np.frexp(high - low)[1] - 1 if len(low) else np.empty(0, int)
    marks = np.full(max(len(bounds) - 1, 0), -1, np.int64)
    for k in range(int(level.max(initial=-1)), -1, -1):
        index = np.flatnonzero(level == k)
        np.maximum.at(marks, low[index], index)
        np.maximum.at(marks, high[index] - (1 << k), index)
        if k:
            half = 1 << (k - 1)
            marks[half:] = np.maximum(marks[half:], marks[:-half].copy())
    return _Ranges(bounds, marks)
