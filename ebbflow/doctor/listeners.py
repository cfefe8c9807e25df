"""Who listens on a TCP port of this machine, from /proc/net and the descriptors of processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ebbflow.identity import Processes, ProcessInfo

_LISTEN = "0A"


def find_listener(port: int, proc: Path = Path("/proc")) -> ProcessInfo | None:
    """The process that listens on a port; None where nobody does, or its descriptors may not be read."""
    wanted = {f"socket:[{inode}]" for inode in listening_inodes(port, proc)}
    processes = Processes(proc)
    for pid in processes.pids() if wanted else ():
        if not wanted.isdisjoint(_descriptors(proc / str(pid) / "fd")):
            return processes.read_process(pid)
    return None


def listening_inodes(port: int, proc: Path) -> set[int]:
    """Inodes of the listening sockets of a port, of either IP version (proc_net_tcp.rst)."""
    found = set()
    for table in ("tcp", "tcp6"):
        for fields in _rows(proc / "net" / table):
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(int(fields[9]))
    return found


def _rows(path: Path) -> Iterator[list[str]]:
    try:
        lines = path.read_text("ascii").splitlines()[1:]
    except OSError:
        return
    yield from (fields for line in lines if len(fields := line.split()) > 9)  # noqa: PLR2004 - the inode is field 9


def _descriptors(folder: Path) -> Iterator[str]:
    try:
        entries = list(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        try:
            yield os.fspath(entry.readlink())
        except OSError:
            continue
