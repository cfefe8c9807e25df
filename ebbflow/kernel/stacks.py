"""Stack trace maps: call stacks that the kernel keeps once each, by the number that bpf_get_stackid() gave.

A stack stays in the map until it is forgotten; when the map has no room at a stack's place, bpf_get_stackid() gives
-EEXIST (-17), and that sample has no stack. So forget what is not needed any more, but not what a program may be about
to name: an id seen in one take of the samples may be in the next one again. Forget the ids that are in neither.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ebbflow.errors import MapMismatch
from ebbflow.kernel.loader import Program
from ebbflow.kernel.map_calls import map_info
from ebbflow.kernel.maps import Map

_ADDRESS_BYTES = 8
Addresses = npt.NDArray[np.uint64]


class StackTraces:
    """One stack trace map without build ids.

    Args:
        fd: its descriptor, kept open by whoever made it.

    Raises:
        MapMismatch: another type of map, or one with build ids.
    """

    def __init__(self, fd: int) -> None:
        info = map_info(fd)
        depth = info.value_size // _ADDRESS_BYTES
        self._map = Map(fd, np.dtype("<i4"), np.dtype([("addresses", "<u8", (depth,))]))
        if info.kind != "stack_trace":
            raise MapMismatch(f"map {info.name}: type {info.kind}, not stack_trace")

    @classmethod
    def of(cls, program: Program, name: str) -> Self:
        return cls(program.map(name).map_fd)

    def read(self, ids: Any) -> list[Addresses]:
        """Addresses of each stack, leaf first; none for a negative id, or one that is not there.

        Args:
            ids: integers, shape (n,).
        """
        values, _ = self._map.read(np.asarray(ids))
        addresses = values["addresses"]
        # The kernel fills what the stack does not need with zeros.
        ended = np.concatenate([addresses == 0, np.ones((len(values), 1), np.bool_)], axis=1)
        return [stack[:depth] for stack, depth in zip(addresses, np.argmax(ended, axis=1).tolist(), strict=True)]

    def forget(self, ids: Any) -> int:
        """Make room. Returns how many were there."""
        known = np.unique(np.asarray(ids))
        return self._map.delete(known[known >= 0])

    def count(self) -> int:
        return self._map.count()

    def usage(self) -> float:
        """How full the map is, 0 to 1. Long before 1, stacks that share a place begin to be refused."""
        return self._map.usage()
