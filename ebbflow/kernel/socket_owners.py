"""Which process has which socket, from /proc: for sockets that were there before anything was attached."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_SOCKET = re.compile(r"socket:\[(\d+)\]")


def socket_owners(pids: Iterable[int], proc: Path = Path("/proc")) -> dict[int, int]:
    """Inode numbers of open sockets of these processes, to the first of them that has it open.

    A process that is gone, or that may not be looked into, has none.
    """
    owners: dict[int, int] = {}
    for pid in pids:
        for inode in _inodes(proc / str(pid) / "fd"):
            owners.setdefault(inode, pid)
    return owners


def _inodes(directory: Path) -> Iterable[int]:
    try:
        links = [*directory.iterdir()]
    except OSError:
        return
    for link in links:
        try:
            found = _SOCKET.fullmatch(str(link.readlink()))
        except OSError:  # closed meanwhile
            continue
        if found:
            yield int(found[1])
