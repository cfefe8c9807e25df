"""Stacks behind rows: how they are laid out, and what fills a batch's `frames` and `mappings` with their addresses.

    kind's head   kernel_frames, user_frames      or   frames (all of them the user's)
    behind it     u64 addresses, leaf first: the kernel's, then the user's

Any feature whose head has these members takes part; see bpf/stack.h for the flags.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ebbflow.kernel.layout import BPF_DIRECTORY, EventLayout, read_header
from ebbflow.producing.batching import Dictionary, Ends, Rows
from ebbflow.symbols import Frame, FrameKind, Mapping
from ebbflow.v1 import raw_pb2

_FLAGS = read_header(BPF_DIRECTORY / "stack.h").enums["stack_flags"]
ENDS_EARLY, TRUNCATED, LOST, UNRESOLVED = (
    _FLAGS[f"STACK_{name}"] for name in ("ENDS_EARLY", "TRUNCATED", "LOST", "UNRESOLVED")
)
_ADDRESS_BYTES = 8
# Processes and addresses of one process that are remembered until their batch is built.
_MOST_PROCESSES, _MOST_ADDRESSES = 4096, 65_536
KERNEL = (0, 0)
Upid = tuple[int, int]


class StackFormat:
    """Where the addresses are in the payload of a feature's rows.

    Args:
        layout: of the feature.
    """

    def __init__(self, layout: EventLayout) -> None:
        self._heads = {kind: _head(head) for kind, head in layout.heads.items() if _counts_frames(head)}
        self.kinds = frozenset(self._heads)

    def split(self, kind: int, payload: bytes) -> tuple[list[int], list[int]]:
        """Kernel and user addresses of a row of one of `kinds`, each leaf first; what is cut off is not there."""
        head = self._heads[kind]
        kernel, user = head.kernel.read(payload) if head.kernel else 0, head.user.read(payload)
        most = (len(payload) - head.size) // _ADDRESS_BYTES
        kernel, user = min(kernel, most), min(user, max(most - kernel, 0))
        end = head.size + _ADDRESS_BYTES * (kernel + user)
        addresses = memoryview(payload)[head.size : end].cast("Q").tolist()
        return addresses[:kernel], addresses[kernel:]

    def cut(self, kind: int, payload: bytes, kernel: slice, user: slice) -> bytes:
        """The payload with these of its kernel and user addresses only."""
        head, (in_kernel, in_user) = self._heads[kind], self.split(kind, payload)
        in_kernel, in_user = in_kernel[kernel], in_user[user]
        front = bytearray(payload[: head.size])
        if head.kernel:
            head.kernel.write(front, len(in_kernel))
        head.user.write(front, len(in_user))
        return bytes(front) + struct.pack(f"<{len(in_kernel) + len(in_user)}Q", *in_kernel, *in_user)


@dataclass(frozen=True, slots=True)
class _Count:
    """A number of frames in a head."""

    offset: int
    size: int

    def read(self, payload: bytes) -> int:
        return int.from_bytes(payload[self.offset : self.offset + self.size], "little")

    def write(self, front: bytearray, value: int) -> None:
        front[self.offset : self.offset + self.size] = value.to_bytes(self.size, "little")


@dataclass(frozen=True, slots=True)
class _Head:
    size: int
    user: _Count
    kernel: _Count | None


def _head(dtype: np.dtype[Any]) -> _Head:
    counts = {name: _Count(dtype.fields[name][1], dtype[name].itemsize) for name in dtype.fields or ()}  # type: ignore[index]
    return _Head(dtype.itemsize, counts.get("user_frames") or counts["frames"], counts.get("kernel_frames"))


def _counts_frames(head: np.dtype[Any]) -> bool:
    names = set(head.names or ())
    return "frames" in names or {"kernel_frames", "user_frames"} <= names


class FrameDictionary:
    """Fills processes, frames and mappings of batches; what an address is must have been said before (`learn`).

    `learn` may be called by another thread than `fill`.

    Args:
        processes: fills the processes.
        stacks: of the feature.
        names: whether functions are written; mappings always are.
    """

    def __init__(self, processes: Dictionary, stacks: StackFormat, *, names: bool = True) -> None:
        self._processes = processes
        self._stacks = stacks
        self._names = names
        self._known: OrderedDict[Upid, dict[int, Frame]] = OrderedDict()

    def learn(self, upid: Upid, frames: Iterable[Frame]) -> None:
        """What addresses of a process are, from now on; KERNEL for those of the kernel."""
        known = self._known.get(upid)
        if known is None or len(known) > _MOST_ADDRESSES:
            known = self._known[upid] = {}
        self._known.move_to_end(upid)
        while len(self._known) > _MOST_PROCESSES:
            self._known.popitem(last=False)
        for frame in frames:
            known[frame.address] = frame

    def fill(self, envelope: raw_pb2.RawBatch, rows: Rows, heap: bytes, ends: Ends) -> None:
        """Write the processes of these rows, and one frame for every address and process in their stacks."""
        self._processes.fill(envelope, rows, heap, ends)
        indices = {
            (process.pid, process.start_boottime_ns): index for index, process in enumerate(envelope.processes, 1)
        }
        writer = _Writer(envelope, names=self._names)
        kernel: set[int] = set()
        for upid, user in self._addresses(rows, heap, ends, kernel).items():
            if upid in indices:
                writer.write(indices[upid], sorted(user), self._known.get(upid, {}), FrameKind.UNKNOWN)
        writer.write(0, sorted(kernel), self._known.get(KERNEL, {}), FrameKind.KERNEL)

    def _addresses(self, rows: Rows, heap: bytes, ends: Ends, kernel: set[int]) -> dict[Upid, set[int]]:
        """User addresses by process; the kernel's go into `kernel`."""
        users: dict[Upid, set[int]] = {}
        columns = (rows[name].tolist() for name in ("kind", "pid", "start_boottime_ns"))
        begin = 0
        for kind, pid, start_ns, end in zip(*columns, ends.tolist(), strict=True):
            if kind in self._stacks.kinds:
                in_kernel, in_user = self._stacks.split(kind, heap[begin:end])
                kernel.update(in_kernel)
                users.setdefault((pid, start_ns), set()).update(in_user)
            begin = end
        return users


class _Writer:
    """Frames and mappings of one envelope."""

    def __init__(self, envelope: raw_pb2.RawBatch, *, names: bool) -> None:
        self._envelope = envelope
        self._names = names
        self._mappings: dict[int, int] = {}

    def write(self, process: int, addresses: Sequence[int], known: dict[int, Frame], unknown: FrameKind) -> None:
        for address in addresses:
            frame = known.get(address) or Frame(unknown, "", address)
            self._envelope.frames.add(
                address=address,
                process=process,
                kind=cast("raw_pb2.FrameKind", int(frame.kind)),
                function=_text(frame.function) if self._names else "",
                mapping=self._mapping(frame.mapping),
                file_address=frame.file_address,
                file=_text(frame.file) if self._names else "",
                line=frame.line if self._names else 0,
            )

    def _mapping(self, mapping: Mapping | None) -> int:
        """Its index plus 1; the objects are shared by frames, and live as long as these."""
        if mapping is None:
            return 0
        if id(mapping) not in self._mappings:
            self._envelope.mappings.add(
                path=_text(mapping.path),
                build_id=mapping.build_id,
                start=mapping.start,
                limit=mapping.limit,
                file_offset=mapping.offset,
            )
            self._mappings[id(mapping)] = len(self._envelope.mappings)
        return self._mappings[id(mapping)]


def _text(text: str) -> str:
    """What protobuf takes: names are bytes of somebody else's, and need not be UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
