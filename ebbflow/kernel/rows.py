"""From ring records to rows: one gather for all of them, none looked at alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ebbflow.kernel.layout import Layout
from ebbflow.kernel.ring import Chunk

Rows = np.ndarray[tuple[int], np.dtype[np.void]]
_WORD = 8


@dataclass(slots=True)
class Drained:
    """What one read of the ring holds.

    Attributes:
        rows: structured array, shape (n,).
        starts, ends: int64, shape (n,): where each row's payload is in `data`.
        invalid: records too short for a row, or whose payload is not as long as the row says.
    """

    data: bytes
    rows: Rows
    starts: np.ndarray[tuple[int], np.dtype[np.int64]]
    ends: np.ndarray[tuple[int], np.dtype[np.int64]]
    invalid: int

    def choose(self, which: np.ndarray[Any, Any]) -> Drained:
        """Those rows: a mask, or indices in the order wanted."""
        return Drained(self.data, self.rows[which], self.starts[which], self.ends[which], self.invalid)


def take(rows: Rows, indices: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Rows:
    """`rows[indices]`, five times as quick: whole words are moved, not structs field by field."""
    words = rows.view(np.uint64).reshape(len(rows), -1)
    return words[indices].reshape(-1).view(rows.dtype)


def rows_of(chunk: Chunk, layout: Layout) -> Drained:
    """Read a row from the front of every record; the row's `captured` says how many bytes of payload follow.

    The layout's size must be a multiple of 8, as the ring's positions are.
    """
    words_per_row = layout.size // _WORD
    fits = chunk.lengths >= layout.size
    offsets = chunk.offsets[fits]
    words = np.frombuffer(chunk.data, np.uint64, count=len(chunk.data) // _WORD)
    gathered = words[(offsets // _WORD)[:, None] + np.arange(words_per_row)]
    rows = gathered.reshape(-1).view(layout.dtype)
    sound = rows["captured"] + layout.size == chunk.lengths[fits]
    if not sound.all():
        rows, offsets = rows[sound], offsets[sound]
    starts = offsets + layout.size
    return Drained(chunk.data, rows, starts, starts + rows["captured"], len(chunk.lengths) - len(rows))


def join(parts: Sequence[Drained]) -> Drained:
    """One behind the other."""
    bases = np.cumsum([0, *(len(part.data) for part in parts)])
    return Drained(
        b"".join(part.data for part in parts),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.starts + base for part, base in zip(parts, bases, strict=False)]),
        np.concatenate([part.ends + base for part, base in zip(parts, bases, strict=False)]),
        sum(part.invalid for part in parts),
    )
