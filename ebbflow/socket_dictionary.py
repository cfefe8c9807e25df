"""Who is behind a socket: turns the kernel's word of an opened connection into the batch's dictionary entries.

The kernel says what only it knows in time (start of the process, addresses, command); /proc adds the rest while the
process lives: executable, command line, cgroup, container, service name. A process that is gone before it could be read
keeps what the kernel said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np

from ebbflow.batching import Dictionaries
from ebbflow.identity import Processes, ProcessInfo
from ebbflow.redaction import mask_arguments
from ebbflow.v1 import raw_pb2

_FAMILIES = {1: raw_pb2.FAMILY_UNIX, 2: raw_pb2.FAMILY_INET, 10: raw_pb2.FAMILY_INET6}
_INET, _INET6 = 2, 10
_MAPPED = bytes(10) + b"\xff\xff"
# A program may replace itself (exec): what is known of it is read again with a connection that opens later than this.
_FRESH_S = 2.0


@dataclass(slots=True)
class _Known:
    process: raw_pb2.Process
    read_s: float


class SocketDictionary:
    """Fills `Dictionaries` from SOCKETS_OPEN rows.

    Args:
        on_ours: called with the pid of a process of ebbflow itself, which must not be watched.
    """

    def __init__(
        self,
        dictionaries: Dictionaries,
        processes: Processes,
        on_ours: Callable[[int], None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dictionaries = dictionaries
        self._processes = processes
        self._on_ours = on_ours
        self._now_s = now_s
        self._known: dict[tuple[int, int], _Known] = {}
        self._generations: dict[int, set[int]] = {}

    def opened(self, pid: int, fd: int, generation: int, opened: np.void) -> None:
        """Note one connection, unless it belongs to ebbflow itself."""
        process = self._process(pid, opened)
        if process is not None:
            self._dictionaries.put(connection_of(fd, generation, opened), process)
            self._generations.setdefault(pid, set()).add(generation)

    def closed(self, pid: int, generation: int) -> None:
        self._generations.get(pid, set()).discard(generation)
        self._dictionaries.forget([generation])

    def exited(self, pid: int) -> Iterable[int]:
        """A process ended. Returns the generations that ended with it."""
        generations = self._generations.pop(pid, set())
        self._dictionaries.forget(generations)
        for key in [key for key in self._known if key[0] == pid]:
            del self._known[key]
        return generations

    def _process(self, pid: int, opened: np.void) -> raw_pb2.Process | None:
        start = int(opened["start_boottime_ns"])
        known = self._known.get((pid, start))
        if known is not None and self._now_s() - known.read_s < _FRESH_S:
            return known.process
        info = self._processes.read_process(pid)
        if info is not None and info.is_ours:
            self._on_ours(pid)
            return None
        if info is not None and info.started_at(start):
            process = process_of(info, start)
        else:
            process = known.process if known is not None else _bare_process(pid, start, opened)
        self._known[pid, start] = _Known(process, self._now_s())
        return process


def process_of(info: ProcessInfo, start_boottime_ns: int) -> raw_pb2.Process:
    return raw_pb2.Process(
        pid=info.pid,
        start_boottime_ns=start_boottime_ns,
        comm=info.comm,
        exe=info.exe,
        cgroup=info.cgroups.path,
        container_id=info.container_id,
        service_name=info.service.name,
        service_name_source=cast("raw_pb2.ServiceNameSource", int(info.service.source)),
        command_line=" ".join(mask_arguments(info.argv))[:4096],
    )


def _bare_process(pid: int, start_boottime_ns: int, opened: np.void) -> raw_pb2.Process:
    comm = bytes(opened["comm"]).decode("utf-8", "replace")
    return raw_pb2.Process(
        pid=pid,
        start_boottime_ns=start_boottime_ns,
        comm=comm,
        service_name=comm,
        service_name_source=raw_pb2.SERVICE_NAME_SOURCE_COMM,
    )


def connection_of(fd: int, generation: int, opened: np.void) -> raw_pb2.Connection:
    """The dictionary entry of one `struct sockets_open`; IPv4 in IPv6 is written as IPv4."""
    family = int(opened["family"])
    local, remote = bytes(opened["local_address"]), bytes(opened["remote_address"])
    if family == _INET6 and local.startswith(_MAPPED):
        family, local, remote = _INET, local[12:], remote[12:]
    length = {_INET: 4, _INET6: 16}.get(family, 0)
    return raw_pb2.Connection(
        generation=generation,
        fd=fd,
        family=_FAMILIES.get(family, raw_pb2.FAMILY_UNSPECIFIED),
        socket_type=int(opened["socket_type"]),
        local_address=local[:length],
        local_port=int(opened["local_port"]),
        remote_address=remote[:length],
        remote_port=int(opened["remote_port"]),
        unix_path=bytes(opened["unix_path"]).decode("utf-8", "replace"),
        role=cast("raw_pb2.Role", int(opened["role"])),
        origin=raw_pb2.ORIGIN_BEFORE if opened["before"] else raw_pb2.ORIGIN_SEEN,
        inode=int(opened["inode"]),
    )
