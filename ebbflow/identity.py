"""Who a process is, and which host this is, from /proc and /etc.

A process can end between any two reads, and some cannot be read even by root (pid 1 of a virtual machine, another
user's process): what cannot be read stays empty. A process is named by (pid, start time); the kernel program knows the
start in nanoseconds, /proc only in clock ticks of 10 ms, and `ProcessInfo.started_at` compares the two.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from uuid import UUID

from ebbflow import service_names
from ebbflow.containers import Cgroups, parse_cgroups
from ebbflow.errors import KernelError
from ebbflow.service_names import ServiceName

OURS = "EBBFLOW_COMPONENT"
COMMAND_LINE_BYTES = 4096
_READ_LIMIT_BYTES = 1 << 20
_NS = 1_000_000_000
# Fields of /proc/PID/stat after the command's closing bracket (proc(5)): starttime is number 22, state is number 3.
_START_FIELD = 22 - 3
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """One process as /proc shows it; strings that could not be read are empty.

    Attributes:
        start_boottime_ns: start in the boot clock, rounded down to `tick_ns`.
        exe: path of the executable in the process's own file system.
        argv: the command line's words; secrets included.
        is_ours: started by ebbflow's process manager, never to be captured.
    """

    pid: int
    start_boottime_ns: int
    tick_ns: int
    comm: str
    exe: str
    argv: tuple[str, ...]
    cgroups: Cgroups
    service: ServiceName
    is_ours: bool

    @property
    def command_line(self) -> str:
        """Words joined by a space, cut at 4096 characters; secrets included: redact before it leaves the process."""
        return " ".join(self.argv)[:COMMAND_LINE_BYTES]

    @property
    def container_id(self) -> str:
        return self.cgroups.container_id

    def started_at(self, start_boottime_ns: int) -> bool:
        """Whether a start time in nanoseconds, as the kernel gives it, is this process's."""
        return start_boottime_ns // self.tick_ns == self.start_boottime_ns // self.tick_ns


class Processes:
    """Reads processes from a /proc file system."""

    def __init__(self, proc: Path = Path("/proc"), *, ticks_per_s: int | None = None) -> None:
        self._proc = proc
        self._tick_ns = _NS // (ticks_per_s or os.sysconf("SC_CLK_TCK"))

    def pids(self) -> list[int]:
        """Pids there are now, rising."""
        return sorted(int(entry.name) for entry in self._proc.iterdir() if entry.name.isdecimal())

    def read_process(self, pid: int) -> ProcessInfo | None:
        """Read one process; None when it is gone, or was replaced by another of the same pid while being read."""
        folder = self._proc / str(pid)
        stat = parse_stat(_read(folder / "stat"))
        if stat is None:
            return None
        comm, ticks = stat
        environ = parse_environ(_read(folder / "environ"))
        exe, argv = _read_exe(folder / "exe"), parse_argv(_read(folder / "cmdline"))
        cgroups = parse_cgroups(_text(_read(folder / "cgroup")))
        after = parse_stat(_read(folder / "stat"))
        if after is None or after[1] != ticks:
            return None
        return ProcessInfo(
            pid=pid,
            start_boottime_ns=ticks * self._tick_ns,
            tick_ns=self._tick_ns,
            comm=comm,
            exe=exe,
            argv=argv,
            cgroups=cgroups,
            service=service_names.choose(
                environ=environ, container_id=cgroups.container_id, exe=exe, argv=argv, comm=comm
            ),
            is_ours=OURS in environ,
        )


@dataclass(frozen=True, slots=True)
class Host:
    """This host and this boot.

    Attributes:
        host_id: 32 hex digits, the same after a restart.
        boot_id: 16 bytes, another one after each restart.
    """

    host_id: str
    host_name: str
    boot_id: bytes


def read_host(root: Path = Path("/")) -> Host:
    """Identify this host and boot.

    Raises:
        KernelError: /proc gives no boot id.
    """
    name = _text(_read(root / "proc/sys/kernel/hostname")).strip() or socket.gethostname()
    boot_id = _text(_read(root / "proc/sys/kernel/random/boot_id")).strip()
    try:
        return Host(_machine_id(root) or _derived_id(root, name), name, UUID(boot_id).bytes)
    except ValueError:
        raise KernelError(f"no boot id in /proc: {boot_id!r}", hint="mount -t proc proc /proc") from None


def parse_stat(data: bytes) -> tuple[str, int] | None:
    """Comm and start time in clock ticks since boot from the text of /proc/PID/stat; None when it is not that.

    A comm can hold spaces and brackets: it ends at the last closing one.
    """
    head, _, tail = data.rpartition(b")")
    fields = tail.split()
    if len(fields) <= _START_FIELD or not fields[_START_FIELD].isdigit():
        return None
    return _text(head.partition(b"(")[2]), int(fields[_START_FIELD])


def parse_environ(data: bytes) -> dict[str, str]:
    """Variables from /proc/PID/environ; the first of a name counts, as for getenv(3)."""
    environ: dict[str, str] = {}
    for entry in data.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals:
            environ.setdefault(_text(name), _text(value))
    return environ


def parse_argv(data: bytes) -> tuple[str, ...]:
    """Words of /proc/PID/cmdline; a program that rewrote its title has one word, a kernel thread none."""
    return tuple(_text(word) for word in data.rstrip(b"\0 ").split(b"\0")) if data.rstrip(b"\0 ") else ()


def _read_exe(path: Path) -> str:
    try:
        target = os.fsencode(path.readlink())
    except OSError:
        return ""
    return _text(target).removesuffix(" (deleted)")


def _read(path: Path) -> bytes:
    """Up to 1 MiB of a file; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_READ_LIMIT_BYTES)
    except OSError:
        return b""


def _text(data: bytes) -> str:
    """For people and for protobuf, whose strings must be UTF-8."""
    return data.decode("utf-8", "replace")


def _machine_id(root: Path) -> str:
    for path in ("etc/machine-id", "var/lib/dbus/machine-id"):
        text = _text(_read(root / path)).strip().lower()
        if _MACHINE_ID.fullmatch(text):
            return text
    return ""


def _derived_id(root: Path, host_name: str) -> str:
    """For hosts without a machine id (images, small systems): from the firmware's id, else from name and cards."""
    firmware = _text(_read(root / "sys/class/dmi/id/product_uuid")).strip()
    cards = sorted(_text(_read(path)).strip() for path in (root / "sys/class/net").glob("*/address"))
    seed = firmware or "|".join([host_name, *cards])
    return blake2b(seed.encode(), digest_size=16, person=b"ebbflow host").hexdigest()
