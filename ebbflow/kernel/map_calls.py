"""bpf(2) on maps: one element, the next key, and batches, on addresses of memory.

Sources: linux/bpf.h; kernel/bpf/syscall.c (generic_map_*_batch) and kernel/bpf/hashtab.c
(__htab_map_lookup_and_delete_batch) for what a batch returns when it ends early. A failure here is an errno beside how
far the call came, because both matter: a batch that fails has done a part of its work.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path

from ebbflow.kernel.system_calls import Command, bpf

_NR_BPF = 321  # x86-64
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long)
_syscall.restype = ctypes.c_long
# The map's descriptor, a hole, addresses of key and of value or next key, flags.
_ELEMENT = struct.Struct("=IIQQQ")
# Addresses of the position before and after, of keys and of values; count, the map's descriptor, flags twice.
_BATCH = struct.Struct("=QQQQIIQQ")
_COUNT_AT = 32
# struct bpf_map_info up to and with the name
_INFO = struct.Struct("=6I16s")
# The kernel's own: an operation that this type of map does not have.
ENOTSUPP = 524

KINDS = {
    1: "hash", 2: "array", 3: "prog_array", 4: "perf_event_array", 5: "percpu_hash", 6: "percpu_array",
    7: "stack_trace", 8: "cgroup_array", 9: "lru_hash", 10: "lru_percpu_hash", 11: "lpm_trie", 12: "array_of_maps",
    13: "hash_of_maps", 22: "queue", 23: "stack", 27: "ringbuf",
}  # fmt: skip


class MapCommand(IntEnum):
    """Commands of bpf(2) on maps."""

    LOOKUP = 1
    UPDATE = 2
    DELETE = 3
    NEXT_KEY = 4
    LOOKUP_BATCH = 24
    LOOKUP_AND_DELETE_BATCH = 25
    UPDATE_BATCH = 26
    DELETE_BATCH = 27


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel says of a map; sizes in bytes, of one CPU's value."""

    kind: str
    key_size: int
    value_size: int
    max_entries: int
    name: str


def map_info(fd: int) -> MapInfo:
    """Ask the kernel.

    Raises:
        OSError: not a map.
    """
    buffer = ctypes.create_string_buffer(_INFO.size)
    bpf(Command.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(buffer), ctypes.addressof(buffer)))
    kind, _, key_size, value_size, max_entries, _, name = _INFO.unpack(buffer.raw)
    return MapInfo(KINDS.get(kind, str(kind)), key_size, value_size, max_entries, name.rstrip(b"\0").decode())


class Element:
    """Calls on single elements of one map."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._attributes = ctypes.create_string_buffer(_ELEMENT.size)

    def call(self, command: MapCommand, key: int, value: int = 0) -> int:
        """Do it for the key and the value, or next key, at these addresses; 0, or errno."""
        _ELEMENT.pack_into(self._attributes, 0, self._fd, 0, key, value, 0)
        done = _syscall(_NR_BPF, command, ctypes.addressof(self._attributes), _ELEMENT.size)
        return ctypes.get_errno() if done < 0 else 0


class Batch:
    """Calls on many elements of one map; those that walk it remember where they are.

    Args:
        fd: of the map.
        key_size: in bytes; a position is as large as a key, or 4 bytes.
    """

    def __init__(self, fd: int, key_size: int) -> None:
        self._fd = fd
        self._attributes = ctypes.create_string_buffer(_BATCH.size)
        self._position = ctypes.create_string_buffer(max(key_size, 8))
        self._begun = False

    def call(self, command: MapCommand, count: int, keys: int, values: int = 0) -> tuple[int, int]:
        """Do it for up to `count` keys and values at these addresses, going on from the last call.

        Returns:
            0, or errno (ENOENT: that was the end of the map), and how many elements were done all the same.
        """
        position = ctypes.addressof(self._position)
        start = position if self._begun else 0
        _BATCH.pack_into(self._attributes, 0, start, position, keys, values, count, self._fd, 0, 0)
        done = _syscall(_NR_BPF, command, ctypes.addressof(self._attributes), _BATCH.size)
        error = ctypes.get_errno() if done < 0 else 0
        counted = int.from_bytes(self._attributes.raw[_COUNT_AT : _COUNT_AT + 4], "little")
        if counted == count and error not in {0, errno.ENOENT}:
            return error, 0  # refused before anything was done: the count is still ours
        self._begun = True
        return error, counted


@cache
def possible_cpus(path: Path = Path("/sys/devices/system/cpu/possible")) -> int:
    """How many CPUs the kernel keeps values of per-CPU maps for: also those that are not there yet."""
    return count_cpus(path.read_text("ascii"))


def count_cpus(ranges: str) -> int:
    """Of the kernel's list format: "0-3,8"."""
    ends = [part.partition("-") for part in ranges.strip().split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)


def reason(error: int) -> str:
    return "not supported for this type of map" if error == ENOTSUPP else os.strerror(error)
