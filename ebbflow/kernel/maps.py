"""Kernel maps as numpy arrays, and totals that are taken exactly while programs count on.

    Map       one map: read, write, delete, everything at once in batches
    Swapped   two tables in turn (bpf/swap.h): the way to take totals without losing or repeating one

Why `take` of one map is not exact while programs write to it: each element is removed at once, but a program that had
looked it up just before may still add to it, and what it adds is gone with it. (In a preallocated map it may even add
to the key that gets the memory next.) Measured: 1 to 4 of 1,000,003 in some thousand takes. `Swapped` waits until there
are no such programs: none.

While the kernel walks a hash map for us it skips tracepoint, kprobe, uprobe and perf programs on that CPU
(bpf_disable_instrumentation); it counts them as misses of the program. Raw tracepoints are not skipped.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Self

import numpy as np

from ebbflow.errors import KernelError, MapFull, MapMismatch
from ebbflow.kernel.loader import Program
from ebbflow.kernel.map_calls import ENOTSUPP, Batch, Element, MapCommand, map_info, possible_cpus, reason
from ebbflow.kernel.map_types import Array, as_array, check_type, pad, reduce_cpus, stride_of, unpad

__all__ = ["Map", "Swapped", "reduce_cpus"]

_HASHES = {"hash", "percpu_hash", "lru_hash", "lru_percpu_hash"}
_ARRAYS = {"array", "percpu_array"}
_KNOWN = _HASHES | _ARRAYS | {"stack_trace", "array_of_maps"}
# One call of the kernel copies about so much.
_BATCH_BYTES = 1 << 20
_LEAST_BATCH, _MOST_BATCH = 256, 65_536
# Calls in a row that get nowhere because a program holds the bucket's lock, or its CPU was taken from us.
_MOST_RETRIES = 1000
_AGAIN = {errno.EBUSY, errno.EAGAIN, errno.EINTR}
# From this share of an array's keys on, all of it is read in one call instead.
_WHOLE_ARRAY = 8


class _NoBatches(Exception):
    """This kernel has no batches for this type of map."""


class Map:
    """One kernel map; whoever made it keeps its descriptor open.

    Keys have the shape (n,), values (n,) or, where every CPU has its own, (n, cpus).

    Args:
        fd: the map's descriptor.
        key, value: their types; of one CPU's value.

    Raises:
        MapMismatch: the kernel's map has other sizes, or is of a type that holds no values.
    """

    def __init__(self, fd: int, key: np.dtype[Any], value: np.dtype[Any]) -> None:
        info = map_info(fd)
        if np.dtype(key).subdtype or np.dtype(value).subdtype:
            raise MapMismatch(f"map {info.name}: an array as key or value is a member of a struct here")
        self.fd, self.key, self.value = fd, np.dtype(key), np.dtype(value)
        self.name, self.kind, self.max_entries = info.name, info.kind, info.max_entries
        self.is_per_cpu = info.kind in {"percpu_hash", "percpu_array", "lru_percpu_hash"}
        if self.kind not in _KNOWN:
            raise MapMismatch(f"map {self.name}: type {self.kind} is not read or written by key and value")
        for what, dtype, size in (("key", self.key, info.key_size), ("value", self.value, info.value_size)):
            if dtype.itemsize != size:
                raise MapMismatch(f"map {self.name}: {what} of {dtype.itemsize} bytes, but the kernel's has {size}")
        self._cpus = possible_cpus() if self.is_per_cpu else 1
        self._stride = stride_of(info.value_size) if self.is_per_cpu else info.value_size
        self._element = Element(fd)
        self._batch_size = min(max(_BATCH_BYTES // self._element_bytes, _LEAST_BATCH), _MOST_BATCH, self.max_entries)

    @classmethod
    def of(cls, program: Program, name: str, key: np.dtype[Any], value: np.dtype[Any]) -> Self:
        """A table of a loaded program; its members are compared with those in the program's text.

        Raises:
            MapMismatch
        """
        table = program.map(name)
        check_type(np.dtype(key), table.Key, f"key of {name}")
        # BCC's Leaf of a per-CPU map is an array of all CPUs'.
        check_type(np.dtype(value), getattr(table, "sLeaf", table.Leaf), f"value of {name}")
        return cls(table.map_fd, key, value)

    @property
    def _element_bytes(self) -> int:
        return self.key.itemsize + self._cpus * self._stride

    def read(self, keys: Any) -> tuple[Array, Array]:
        """Values of these keys, zeros where there is none, and a mask of those that are there."""
        wanted = self._keys(keys)
        if self.kind in _ARRAYS and len(wanted) * _WHOLE_ARRAY >= self.max_entries:
            return self._read_array(wanted)
        raw = self._room(len(wanted))
        found = np.zeros(len(wanted), np.bool_)
        for index, (key, value) in enumerate(self._addresses(wanted, raw)):
            error = self._element.call(MapCommand.LOOKUP, key, value)
            found[index] = error == 0
            if error not in {0, errno.ENOENT}:
                raise self._failed("read", error)
        return self._values(raw), found

    def _read_array(self, wanted: Array) -> tuple[Array, Array]:
        indices = wanted.view(np.uint32).reshape(-1)
        found = indices < self.max_entries
        _, values = self.items()
        read = np.zeros((len(wanted), *values.shape[1:]), self.value)
        read[found] = values[indices[found]]
        return read, found

    def get(self, key: Any) -> Any:
        """The value of one key, an array of shape (cpus,) in per-CPU maps; None when it is not there."""
        values, found = self.read(key)
        return values[0] if found[0] else None

    def write(self, keys: Any, values: Any) -> None:
        """Set values, whether they were there or not.

        Raises:
            MapMismatch: wrong types, or not one value for each key (and CPU).
            MapFull: no room; the message says how many were written.
        """
        wanted = self._keys(keys)
        given = as_array(values, self.value, f"value of {self.name}")
        shape = (len(wanted), self._cpus) if self.is_per_cpu else (len(wanted),)
        if self.is_per_cpu and given.shape == (self._cpus,) and len(wanted) == 1:
            given = given.reshape(shape)
        if given.shape != shape:
            raise MapMismatch(f"map {self.name}: values of shape {given.shape} for {shape}")
        raw = pad(given.reshape(len(wanted), self._cpus), self._stride)
        error, written = self._each(MapCommand.UPDATE_BATCH, MapCommand.UPDATE, wanted, raw)
        if error in {errno.E2BIG, errno.ENOMEM, errno.ENOSPC}:
            raise MapFull(
                f"map {self.name} is full: {written} of {len(wanted)} written, {self.max_entries} fit",
                hint="for an array: its keys are below that number" if self.kind in _ARRAYS else "",
            )
        if error:
            raise self._failed("write", error)

    def delete(self, keys: Any) -> int:
        """Remove keys, or of an array: set them to zero. Returns how many were there."""
        wanted = self._keys(keys)
        if self.kind in _ARRAYS:
            inside = wanted[wanted.view(np.uint32).reshape(-1) < self.max_entries]
            self.write(inside, np.zeros((len(inside), self._cpus)[: 1 + self.is_per_cpu], self.value))
            return len(inside)
        deleted = at = 0
        while at < len(wanted):
            error, done = self._each(MapCommand.DELETE_BATCH, MapCommand.DELETE, wanted[at:], None)
            if error not in {0, errno.ENOENT}:
                raise self._failed("delete from", error)
            deleted, at = deleted + done, at + done + (error == errno.ENOENT)
        return deleted

    def items(self) -> tuple[Array, Array]:
        """All keys and values. Of a hash that changes meanwhile: every key that was there all along, once."""
        return self._join(self._walk(MapCommand.LOOKUP_BATCH))

    def take(self) -> tuple[Array, Array]:
        """All keys and values, which are gone from the map then.

        What programs add meanwhile may be lost: see the module. In arrays, and on kernels that cannot take a batch,
        that is everything between reading an element and clearing it; in hashes, what is added to an element by a
        program that had found it before it was removed.
        """
        if self.kind in _HASHES:
            with suppress(_NoBatches):
                return self._join(self._walk(MapCommand.LOOKUP_AND_DELETE_BATCH))
        keys, values = self.items()
        self.delete(keys)
        return keys, values

    def count(self) -> int:
        """Keys that are there. Of a hash the kernel keeps no count: it is walked."""
        if self.kind in _ARRAYS:
            return self.max_entries
        if self.kind in _HASHES:
            return sum(len(keys) for keys, _ in self._walk(MapCommand.LOOKUP_BATCH))
        return sum(1 for _ in self._walk_keys())

    def usage(self) -> float:
        """How full it is, 0 to 1; arrays are always full."""
        return self.count() / self.max_entries

    def clear(self) -> None:
        """Remove everything, or of an array: set it to zero."""
        if self.kind in _HASHES:
            with suppress(_NoBatches):
                deque(self._walk(MapCommand.LOOKUP_AND_DELETE_BATCH), maxlen=0)
                return
        self.delete(self.items()[0])

    def _keys(self, keys: Any) -> Array:
        array = as_array(keys, self.key, f"key of {self.name}")
        if array.ndim != 1:
            raise MapMismatch(f"map {self.name}: keys of shape {array.shape}, not (n,)")
        return array

    def _room(self, count: int) -> Array:
        return np.zeros((count, self._cpus, self._stride), np.uint8)

    def _values(self, raw: Array) -> Array:
        values = unpad(raw, self.value)
        return values if self.is_per_cpu else values[:, 0]

    def _addresses(self, keys: Array, raw: Array | None) -> Iterator[tuple[int, int]]:
        """Where each key and its value are; 0 for no value."""
        key, value, size = keys.ctypes.data, 0, 0
        if raw is not None:
            value, size = raw.ctypes.data, self._cpus * self._stride
        for index in range(len(keys)):
            yield key + index * self.key.itemsize, value + index * size

    def _each(self, batch: MapCommand, single: MapCommand, keys: Array, raw: Array | None) -> tuple[int, int]:
        """Do something for every key, at once or one by one: errno of the first that failed, and how many before."""
        if not len(keys):
            return 0, 0
        if len(keys) > 1:
            error, done = Batch(self.fd, self.key.itemsize).call(
                batch, len(keys), keys.ctypes.data, 0 if raw is None else raw.ctypes.data
            )
            if error != ENOTSUPP:
                return error, done
        for index, (key, value) in enumerate(self._addresses(keys, raw)):
            error = self._element.call(single, key, value)
            if error:
                return error, index
        return 0, len(keys)

    def _walk(self, command: MapCommand) -> Iterator[tuple[Array, Array]]:
        """Keys and values of the whole map, batch by batch."""
        batch, size, tries = Batch(self.fd, self.key.itemsize), self._batch_size, 0
        while tries < _MOST_RETRIES:
            keys, raw = np.empty(size, self.key), np.empty((size, self._cpus, self._stride), np.uint8)
            error, done = batch.call(command, size, keys.ctypes.data, raw.ctypes.data)
            if error == ENOTSUPP:
                if command is not MapCommand.LOOKUP_BATCH:
                    raise _NoBatches
                yield from self._read_one_by_one()
                return
            yield keys[:done], self._values(raw[:done])
            if error == errno.ENOENT:
                return
            if error not in {0, errno.ENOSPC, *_AGAIN}:
                raise self._failed("read", error)
            # More keys share a bucket of the hash than fit a batch.
            size *= 1 + (error == errno.ENOSPC)
            tries = 0 if done else tries + 1
        raise self._failed("read", errno.EBUSY)

    def _walk_keys(self) -> Iterator[Array]:
        """Key by key, each an array of one, good until the next. When the one we stand on is removed, the kernel begins
        anew: so no key twice, and an end.
        """
        key, following = np.zeros(1, self.key), np.zeros(1, self.key)
        seen: set[bytes] = set()
        at = 0
        for _ in range(2 * self.max_entries):
            if self._element.call(MapCommand.NEXT_KEY, at, following.ctypes.data):
                return
            key[:] = following
            at = key.ctypes.data
            if key.tobytes() not in seen:
                seen.add(key.tobytes())
                yield key

    def _read_one_by_one(self) -> Iterator[tuple[Array, Array]]:
        for key in self._walk_keys():
            values, found = self.read(key)
            yield key[found].copy(), values[found]

    def _join(self, parts: Iterator[tuple[Array, Array]]) -> tuple[Array, Array]:
        nothing = (np.empty(0, self.key), self._values(self._room(0)))
        keys, values = zip(nothing, *parts, strict=True)
        return np.concatenate(keys), np.concatenate(values)

    def _failed(self, what: str, error: int) -> KernelError:
        return KernelError(f"cannot {what} map {self.name} ({self.kind}): {reason(error)}")


class Swapped:
    """Totals of one kind in two tables that take turns (bpf/swap.h): nothing is lost, nothing is taken twice.

    Made before the program's functions are attached: until then they find no table. It costs one wait for all running
    programs at each `take`, 8 ms on an idle machine.

    Args:
        selector_fd: descriptor of the array of maps.
        tables: the two.

    Raises:
        MapMismatch: as for `Map`, or tables that evict what they have no room for.
    """

    def __init__(self, selector_fd: int, tables: tuple[Map, Map]) -> None:
        for table in tables:
            if table.kind.startswith("lru"):
                raise MapMismatch(f"map {table.name}: type {table.kind} forgets without telling: totals would be wrong")
        self._selector = Map(selector_fd, np.dtype("<u4"), np.dtype("<u4"))
        self._tables = tables
        self._active = 0
        self._usage = 0.0
        self._select(0)

    @classmethod
    def of(cls, program: Program, name: str, key: np.dtype[Any], value: np.dtype[Any]) -> Self:
        """What SWAPPED(kind, key, value, name, entries) declares in a program."""
        tables = Map.of(program, f"{name}_0", key, value), Map.of(program, f"{name}_1", key, value)
        return cls(program.map(name).map_fd, tables)

    @property
    def is_per_cpu(self) -> bool:
        return self._tables[0].is_per_cpu

    def _select(self, index: int) -> None:
        # The kernel returns when no program runs that may have found the other one: maybe_wait_bpf_programs().
        self._selector.write(0, self._tables[index].fd)
        self._active = index

    def take(self) -> tuple[Array, Array]:
        """Everything since the last call: keys (n,), values (n,) or (n, cpus)."""
        filled = self._tables[self._active]
        self._select(1 - self._active)
        keys, values = filled.take()
        self._usage = len(keys) / filled.max_entries
        return keys, values

    def usage(self) -> float:
        """How full the table was that was taken last, 0 to 1."""
        return self._usage
