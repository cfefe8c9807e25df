"""Proves the struct offsets on sockets of our own before anything is believed.

BTF says where the kernel keeps things; a wrong offset would not fail, it would give wrong addresses, inode numbers and
start times. So the loaded program watches this process for a moment while it talks to itself over IPv4, IPv6 and a
Unix socket, and what the program reports must be what the system calls say.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ebbflow.errors import LayoutMismatch

PROBE = b"ebbflow self-test"
_TICK_NS = 10_000_000


@dataclass(frozen=True, slots=True)
class Expected:
    """What the program must say of one socket."""

    what: str
    inode: int
    family: int
    local_port: int
    remote_port: int
    local_address: bytes


def talk() -> Iterator[tuple[list[Expected], list[socket.socket]]]:
    """Connections of every family, one after the other, each used once; sockets stay open while the caller looks."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            pair = _tcp_pair(family, host)
        except OSError:  # a host without IPv6
            continue
        yield _use(f"{'IPv4' if family == socket.AF_INET else 'IPv6'} socket", pair)
    yield _use("Unix socket", socket.socketpair(socket.AF_UNIX))


def _tcp_pair(family: int, host: str) -> tuple[socket.socket, socket.socket]:
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen(1)
        client = socket.socket(family)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        return client, server


def _use(what: str, pair: tuple[socket.socket, socket.socket]) -> tuple[list[Expected], list[socket.socket]]:
    os.write(pair[0].fileno(), PROBE)
    os.read(pair[1].fileno(), len(PROBE))
    return [_expected(what, end) for end in pair], list(pair)


def _expected(what: str, end: socket.socket) -> Expected:
    inode = os.fstat(end.fileno()).st_ino
    if end.family == socket.AF_UNIX:
        return Expected(what, inode, end.family, 0, 0, bytes(16))
    name, peer = end.getsockname(), end.getpeername()
    address = socket.inet_pton(end.family, name[0])
    return Expected(what, inode, end.family, name[1], peer[1], address.ljust(16, b"\0"))


def check(expected: list[Expected], opened: list[np.void], start_boottime_ns: int) -> None:
    """Compare with the `struct sockets_open` values that the program wrote.

    Raises:
        LayoutMismatch: says which fact of which socket came out wrong.
    """
    by_inode = {int(entry["inode"]): entry for entry in opened}
    for want in expected:
        got = by_inode.get(want.inode)
        if got is None:
            raise _mismatch(f"the {want.what} was not seen (inodes seen: {sorted(by_inode)})")
        facts = {
            "family": (want.family, int(got["family"])),
            "local port": (want.local_port, int(got["local_port"])),
            "remote port": (want.remote_port, int(got["remote_port"])),
            "local address": (want.local_address, bytes(got["local_address"])),
            "process start": (start_boottime_ns // _TICK_NS, int(got["start_boottime_ns"]) // _TICK_NS),
            "command": (_comm(), bytes(got["comm"])),
        }
        for fact, (right, seen) in facts.items():
            if right != seen:
                raise _mismatch(f"{fact} of the {want.what} is {right!r}, the program read {seen!r}")


def _comm() -> bytes:
    return Path("/proc/self/comm").read_bytes().rstrip(b"\n")


def own_start_boottime_ns() -> int:
    """Start of this process in the boot clock, to the clock tick."""
    fields = Path("/proc/self/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return int(fields[19]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def run(collect: Callable[[], list[np.void]]) -> None:
    """Talk and check; `collect` returns what the program has said since the last call.

    Raises:
        LayoutMismatch
    """
    start = own_start_boottime_ns()
    for expected, sockets in talk():
        try:
            check(expected, collect(), start)
        finally:
            for end in sockets:
                end.close()
    collect()


def _mismatch(text: str) -> LayoutMismatch:
    return LayoutMismatch(
        f"self-test of kernel offsets failed: {text}",
        hint="nothing was captured; report it with the output of `ebbflow doctor --json`",
    )
