"""Files that processes have mapped: where to find them from here, and which of them are the same.

A path in /proc/PID/maps is the process's own: in a container it names a file of another mount namespace, after
chroot(2) one below another root, after an upgrade one that is gone. Tried in order, and taken when it is the very file:

    /proc/PID/root/PATH           another mount namespace
    PATH                          chroot: maps shows paths as seen from here
    /proc/PID/map_files/RANGE     deleted or replaced; needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE

A file is identified by device and inode. A uprobe belongs to the inode: one probe serves every process that maps the
file, also those that start later. A library that is linked statically has no file: then it is the executable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ebbflow.errors import EbbflowError, ProbeNotFound
from ebbflow.kernel.attach_points import nearby

PROC = Path("/proc")
_MAPPING = re.compile(r"^(\S+) \S{2}x\S \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) +(/.*)$", re.MULTILINE)
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A file that a process executes from, as /proc/PID/maps tells it."""

    range: str
    device: int
    inode: int
    path: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class Binary:
    """A file with code. Two are equal when they are the same file.

    Attributes:
        device, inode: identity.
        path: where it can be opened from here, while the process that was looked at lives.
        name: its path as that process sees it.
    """

    device: int
    inode: int
    path: Path = field(compare=False)
    name: str = field(compare=False)


def mapped_files(pid: int, proc: Path = PROC) -> list[MappedFile]:
    """Every file that a process executes from, once; none for a process that is gone or is a kernel thread."""
    try:
        text = os.fsdecode((proc / str(pid) / "maps").read_bytes())
    except OSError:
        return []
    files: dict[tuple[int, int], MappedFile] = {}
    for place, major, minor, inode, path in _MAPPING.findall(text):
        device = os.makedev(int(major, 16), int(minor, 16))
        deleted = path.endswith(_DELETED)
        files.setdefault(
            (device, int(inode)), MappedFile(place, device, int(inode), path.removesuffix(_DELETED), deleted)
        )
    return list(files.values())


def locate(pid: int, file: MappedFile, proc: Path = PROC) -> Binary | None:
    """A path from here to a mapped file; None when there is none, or the process has ended."""
    root = proc / str(pid)
    link = root / "map_files" / file.range
    real = _identity(link)
    wanted = {(file.device, file.inode), real} - {None}  # overlayfs, btrfs: stat and maps can differ in the device
    for path in (root / f"root{file.path}", Path(file.path)):
        found = None if file.deleted else _identity(path)
        if found in wanted and found is not None:
            return Binary(*found, path, file.path)
    return Binary(*real, link, file.path) if real else None


def _identity(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def library_of(pid: int, name: str, proc: Path = PROC) -> Binary:
    """The library that a process has mapped.

    Args:
        pid: process.
        name: as in "libc.so": matches libc.so.6, libc.so and libc-2.31.so, not libcrypt.so.1.
        proc: where procfs is.

    Raises:
        ProbeNotFound: it has none of that name (statically linked, or not loaded yet), or none that can be opened.
    """
    files = mapped_files(pid, proc)
    for file in files:
        if is_library(Path(file.path).name, name) and (binary := locate(pid, file, proc)):
            return binary
    names = [Path(file.path).name for file in files]
    if any(is_library(other, name) for other in names):
        raise ProbeNotFound(f"{name} of process {pid} cannot be opened", hint="run it as root: sudo ebbflow …")
    raise ProbeNotFound(
        f"process {pid} has no {name} mapped",
        hint=f"it may be linked statically: {nearby(name, names)}" if names else "it has ended: look again with `ps`",
    )


def is_library(file: str, name: str) -> bool:
    """Whether a file name is that of a library, of any version."""
    stem, _, rest = name.partition(".so")
    return bool(re.match(rf"{re.escape(stem)}(-[\d.]+)?\.so{re.escape(rest)}(\.|$)", file))


def executable_of(pid: int, proc: Path = PROC) -> Binary:
    """The program that a process runs.

    Raises:
        ProbeNotFound: it has ended, is a kernel thread, or may not be looked at.
    """
    link = proc / str(pid) / "exe"
    with suppress(OSError):
        name, status = link.readlink(), link.stat()
        return Binary(status.st_dev, status.st_ino, link, str(name).removesuffix(_DELETED))
    raise ProbeNotFound(f"the executable of process {pid} cannot be found", hint="it has ended: look again with `ps`")


Find = Callable[[int], Iterable[Binary]]


class LaterProcesses:
    """Keeps binaries attached that the watched processes have mapped, whenever those start, load or end.

    Args:
        find: the binaries of a process that matter; ProbeNotFound stands for none.
        attach: called once for each new binary.
        detach: called for a binary that no watched process has mapped any more.
    """

    def __init__(self, find: Find, attach: Callable[[Binary], object], detach: Callable[[Binary], object]) -> None:
        self._find = find
        self._attach = attach
        self._detach = detach
        self._known: set[Binary] = set()
        self.failed: dict[Binary, EbbflowError] = {}

    @property
    def known(self) -> frozenset[Binary]:
        """What is attached."""
        return frozenset(self._known)

    def add(self, pids: Iterable[int]) -> list[Binary]:
        """Look at some processes, as after an exec: the binaries that were attached for them.

        What cannot be attached is in `failed`, and is not tried again while a process has it mapped.
        """
        return [binary for binary in dict.fromkeys(self._found(pids)) if self._is_new(binary)]

    def refresh(self, pids: Iterable[int]) -> list[Binary]:
        """Look at every watched process: attach what is new, and detach what none of them has mapped any more."""
        found = dict.fromkeys(self._found(pids))
        for binary in self._known - found.keys():
            self._known.remove(binary)
            self._detach(binary)
        for binary in self.failed.keys() - found.keys():
            del self.failed[binary]
        return [binary for binary in found if self._is_new(binary)]

    def _found(self, pids: Iterable[int]) -> Iterator[Binary]:
        for pid in pids:
            with suppress(ProbeNotFound):
                yield from self._find(pid)

    def _is_new(self, binary: Binary) -> bool:
        if binary in self._known or binary in self.failed:
            return False
        try:
            self._attach(binary)
        except EbbflowError as error:
            self.failed[binary] = error
            return False
        self._known.add(binary)
        return True
