"""Who is behind a socket: turns the kernel's word of an opened connection into the batch's dictionary entries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np

from ebbflow.producing.batching import Dictionaries
from ebbflow.producing.process_dictionary import ProcessDictionary
from ebbflow.v1 import raw_pb2

_FAMILIES = {1: raw_pb2.FAMILY_UNIX, 2: raw_pb2.FAMILY_INET, 10: raw_pb2.FAMILY_INET6}
_INET, _INET6 = 2, 10
_MAPPED = bytes(10) + b"\xff\xff"


class SocketDictionary:
    """Fills `Dictionaries` from SOCKETS_OPEN rows."""

    def __init__(self, dictionaries: Dictionaries, processes: ProcessDictionary) -> None:
        self._dictionaries = dictionaries
        self._processes = processes
        self._generations: dict[int, set[int]] = {}

    def opened(self, pid: int, fd: int, generation: int, opened: np.void) -> None:
        """Note one connection, unless it belongs to ebbflow itself."""
        process = self._processes.describe(pid, int(opened["start_boottime_ns"]), bytes(opened["comm"]))
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
        self._processes.exited(pid)
        return generations


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
