"""Which processes and connections are watched: `pid:N`, `exe:PATH`, `cgroup:PATH`, `port:N`, `all`, several at once.

The kernel program decides by maps that are filled from here: a process is watched for a reason (its pid or an
ancestor's, its executable, its cgroup) and stays while a reason holds; children inherit the reasons of their parent. A
port is a matter of the single connection. /proc is read at start for what runs already, and again from time to time
for what the kernel does not announce (processes born into a cgroup).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ebbflow.errors import ConfigError

WATCHED_PID, WATCHED_EXE, WATCHED_CGROUP, WATCHED_PORT = 1, 2, 4, 16
_CGROUP_ROOT = Path("/sys/fs/cgroup")
_MAX_PORT = 65535
_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Executable:
    path: Path
    inode: int
    device: int

    @classmethod
    def of(cls, path: Path) -> Executable:
        """`device` is in the kernel's own encoding, not that of stat(2)."""
        status = path.stat()
        device = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
        return cls(path, status.st_ino, device)


@dataclass(frozen=True, slots=True)
class Targets:
    everything: bool = False
    pids: tuple[int, ...] = ()
    executables: tuple[Executable, ...] = ()
    cgroups: tuple[Path, ...] = ()
    ports: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return self.everything or bool(self.pids or self.executables or self.cgroups or self.ports)


def parse_targets(texts: Iterable[str], proc: Path = Path("/proc")) -> Targets:
    """Read targets as the command line and the configuration write them.

    Raises:
        ConfigError: not a target, or nothing that exists.
    """
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    pids, executables, cgroups, ports = [], [], [], []
    for part in parts:
        kind, _, value = part.partition(":")
        if kind == "pid":
            pids.append(_pid(part, value, proc))
        elif kind == "exe" and value:
            executables.append(_executable(value, proc))
        elif kind == "cgroup" and value:
            cgroups.append(_cgroup(value))
        elif kind == "port":
            ports.append(_port(part, value))
        elif part != "all":
            raise ConfigError(f"{part!r} is not a target", hint="write pid:N, exe:PATH, cgroup:PATH, port:N, or all")
    return Targets("all" in parts, tuple(pids), tuple(executables), tuple(cgroups), tuple(ports))


def _pid(part: str, value: str, proc: Path) -> int:
    if not value.isdecimal():
        raise ConfigError(f"{part!r}: a pid is a number", hint="find it with `pgrep -a NAME`")
    if not (proc / value).exists():
        raise ConfigError(f"{part!r}: there is no such process", hint="find it with `pgrep -a NAME`")
    return int(value)


def _port(part: str, value: str) -> int:
    if not value.isdecimal() or not 0 < int(value) <= _MAX_PORT:
        raise ConfigError(f"{part!r}: a port is a number from 1 to 65535", hint="see `ss -ltn`")
    return int(value)


def _executable(value: str, proc: Path) -> Executable:
    """A path, a command on PATH, or the base name of something that runs."""
    path = Path(value) if "/" in value else Path(shutil.which(value) or value)
    if not path.exists():
        running = next((exe for _, exe in running_executables(proc) if exe.name == value), None)
        if running is None:
            raise ConfigError(
                f"exe:{value}: no such file, command or running program", hint="name the executable's path"
            )
        path = running
    return Executable.of(path.resolve())


def _cgroup(value: str) -> Path:
    """A path as /proc/PID/cgroup writes it, or a directory; on a v1 host the first controller that has it."""
    given = Path(value)
    relative = value.lstrip("/")
    candidates = [given, _CGROUP_ROOT / relative, *sorted(_CGROUP_ROOT.glob(f"*/{relative}"))]
    for candidate in candidates:
        if (candidate / "cgroup.procs").exists():
            return candidate
    raise ConfigError(f"cgroup:{value}: there is no such cgroup", hint="see `cat /proc/PID/cgroup`")


def running_executables(proc: Path = Path("/proc")) -> Iterator[tuple[int, Path]]:
    """Processes and the path of their executable, as far as it can be read."""
    for pid in running_pids(proc):
        try:
            yield pid, (proc / str(pid) / "exe").readlink()
        except OSError:
            continue


def running_pids(proc: Path = Path("/proc")) -> list[int]:
    return [int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal()]


def watched_now(targets: Targets, proc: Path = Path("/proc")) -> dict[int, int]:
    """Processes that run now and are watched, with the reasons as a bit mask."""
    reasons: dict[int, int] = {}

    def add(pid: int, reason: int) -> None:
        reasons[pid] = reasons.get(pid, 0) | reason

    for pid in _descendants(set(targets.pids), proc):
        add(pid, WATCHED_PID)
    if targets.executables:
        wanted = {(executable.inode, executable.device) for executable in targets.executables}
        for pid in running_pids(proc):
            if _identity(proc / str(pid) / "exe") in wanted:
                add(pid, WATCHED_EXE)
    for cgroup in targets.cgroups:
        for pid in cgroup_pids(cgroup):
            add(pid, WATCHED_CGROUP)
    if targets.ports:
        for pid in listening_pids(set(targets.ports), proc):
            add(pid, WATCHED_PORT)
    return reasons


def listening_pids(ports: set[int], proc: Path = Path("/proc")) -> set[int]:
    """Processes that hold a TCP socket listening on one of the ports, in this network namespace."""
    inodes = {
        f"socket:[{inode}]"
        for table in ("net/tcp", "net/tcp6")
        for port, inode in _listeners(proc / table)
        if port in ports
    }
    if not inodes:
        return set()
    return {pid for pid in running_pids(proc) if not inodes.isdisjoint(_open_files(proc / str(pid) / "fd"))}


def _listeners(table: Path) -> Iterator[tuple[int, str]]:
    """Port and inode of every listening socket in /proc/net/tcp; see proc_net_tcp in the kernel's documentation."""
    try:
        lines = table.read_text("ascii").splitlines()[1:]
    except OSError:
        return
    for fields in map(str.split, lines):
        if fields[3] == _LISTEN:
            yield int(fields[1].rpartition(":")[2], 16), fields[9]


def _open_files(folder: Path) -> Iterator[str]:
    try:
        for descriptor in folder.iterdir():
            with suppress(OSError):
                yield str(descriptor.readlink())
    except OSError:
        return


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        executable = Executable.of(path)
    except OSError:
        return None
    return executable.inode, executable.device


def _descendants(roots: set[int], proc: Path) -> set[int]:
    if not roots:
        return set()
    parents = {pid: parent for pid in running_pids(proc) if (parent := _parent(proc / str(pid) / "stat")) is not None}
    found = set(roots)
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def _parent(stat: Path) -> int | None:
    try:
        # The command may hold spaces and parentheses: fields count from the last one.
        return int(stat.read_text("utf-8", "replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def cgroup_pids(cgroup: Path) -> set[int]:
    """Processes of a cgroup and of those below it."""
    pids: set[int] = set()
    for procs in [cgroup / "cgroup.procs", *cgroup.glob("**/cgroup.procs")]:
        try:
            pids.update(int(line) for line in procs.read_text("ascii").split())
        except OSError:
            continue
    return pids


def cgroup_ids(cgroup: Path) -> set[int]:
    """Kernel ids (inode numbers) of a cgroup and of those below it."""
    return {directory.stat().st_ino for directory in [cgroup, *(p for p in cgroup.glob("**/") if p.is_dir())]}
