"""What watched processes do on every kernel. Each runs in a forked child of the guest's runner.

Where Python itself would do more of what is counted than was asked for, it is a program: work.c beside this file.
"""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import time
from pathlib import Path

SOURCE = Path(__file__).with_name("work.c")
PROGRAM = Path(__file__).parents[2] / ".cache/vm/work"
CONNECTIONS, COMMANDS, CALLS, WRITES = 23, 23, 1009, 23
ALLOCATIONS, ALLOCATION_BYTES = 1009, 10007  # as in work.c
REQUEST, RESPONSE = b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"
BUSY_S = 2.0
_LONGEST = 4096
_BLOCK_BYTES = 4096
_COMPILER_TIMEOUT_S = 60


def exchange() -> None:
    """Connections on loopback, both ends here, one request and one response each."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(CONNECTIONS):
            with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as server:
                client.sendall(REQUEST)
                server.recv(_LONGEST)
                server.sendall(RESPONSE)
                client.recv(_LONGEST)


def run_commands() -> None:
    """Children that run a command, one after the other."""
    for _ in range(COMMANDS):
        subprocess.run(["/bin/true"], check=True)


def call_kernel() -> None:
    """The cheapest system call."""
    for _ in range(CALLS):
        os.getppid()


def burn() -> None:
    """Nothing but work for the CPU."""
    end_s = time.monotonic() + BUSY_S
    while time.monotonic() < end_s:
        pass


def write_blocks() -> None:
    """Writes past the page cache: to the guest's disk, or to a file where there is no disk to spare."""
    path = os.environ.get("EBBFLOW_VM_DISK") or PROGRAM.with_name("blocks")
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o600)
    with mmap.mmap(-1, _BLOCK_BYTES) as block:  # aligned, as O_DIRECT wants it
        for number in range(WRITES):
            os.pwrite(descriptor, block, number * _BLOCK_BYTES)
    os.close(descriptor)


def build() -> None:
    """Compile work.c, unless that is done."""
    if PROGRAM.exists() and PROGRAM.stat().st_mtime >= SOURCE.stat().st_mtime:
        return
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    command = ["cc", "-O1", "-g", "-fno-omit-frame-pointer", "-o", str(PROGRAM), str(SOURCE)]
    subprocess.run(command, check=True, timeout=_COMPILER_TIMEOUT_S)
