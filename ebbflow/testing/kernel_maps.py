"""Kernel maps without a program: made by bpf(2) itself, gone with their descriptor."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ebbflow.kernel.map_calls import KINDS
from ebbflow.kernel.maps import Map
from ebbflow.kernel.system_calls import Command, bpf

NO_PREALLOC = 1
_NUMBERS = {name: number for number, name in KINDS.items()}


def make_map(kind: str, key_size: int, value_size: int, entries: int, flags: int = 0) -> int:
    """Descriptor of a new map; sizes in bytes.

    Raises:
        OSError: the kernel does not make such a map.
    """
    attributes = struct.pack(
        "=7I16s", _NUMBERS[kind], key_size, value_size, entries, flags, 0, 0, b"ebbflow_test"
    )  # fmt: skip
    return bpf(Command.MAP_CREATE, attributes)[0]


@contextmanager
def kernel_map(kind: str, key: Any, value: Any, entries: int, flags: int = 0) -> Iterator[Map]:
    """A new map with these dtypes, or what numpy makes dtypes of."""
    key, value = np.dtype(key), np.dtype(value)
    fd = make_map(kind, key.itemsize, value.itemsize, entries, flags)
    try:
        yield Map(fd, key, value)
    finally:
        os.close(fd)
