r"""Executable mappings of a process, from /proc/PID/maps (proc_pid_maps(5)).

    7f1c8a428000-7f1c8a5bd000 r-xp 00028000 fd:01 1835117   /usr/lib/x86_64-linux-gnu/libc.so.6
    start        limit        perm offset   dev   inode     path, or [NAME], or nothing

The kernel writes a newline in a path as \\012, and " (deleted)" behind the path of a file that is no longer there.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

_LINE = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) ([0-9]+) *(.*)")
MAX_BYTES = 32 << 20
_DELETED = " (deleted)"
# Files only in name: memory that programs share or write code into.
_NAMELESS = ("/memfd:", "/dev/zero", "/SYSV", "anon_inode:", "/dev/shm/", "/anon_hugepage")  # noqa: S108


class Backing(Enum):
    """What is behind an executable mapping."""

    FILE = "file"
    VDSO = "vdso"
    ANONYMOUS = "anonymous"  # code made at run time
    KERNEL = "kernel"  # [vsyscall], [uprobes]


@dataclass(frozen=True, slots=True)
class Area:
    """One executable line of /proc/PID/maps.

    Attributes:
        path: without " (deleted)"; the kernel's [NAME]; "[anon]" for nothing.
        device, inode: as the kernel writes them; stat(2) can give another device for the same file (overlayfs, btrfs).
    """

    start: int
    limit: int
    offset: int
    path: str
    device: str
    inode: int
    deleted: bool

    @property
    def backing(self) -> Backing:
        if self.path == "[vdso]":
            return Backing.VDSO
        if self.path in {"[vsyscall]", "[uprobes]"}:
            return Backing.KERNEL
        if self.inode and not self.path.startswith(_NAMELESS):
            return Backing.FILE
        return Backing.ANONYMOUS


class Areas:
    """A process's executable mappings, rising and without overlap."""

    def __init__(self, areas: list[Area]) -> None:
        self._areas = sorted(areas, key=lambda area: area.start)
        self._starts = [area.start for area in self._areas]

    def __len__(self) -> int:
        return len(self._areas)

    def __iter__(self) -> Iterator[Area]:
        return iter(self._areas)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Areas) and self._areas == other._areas

    __hash__ = None  # type: ignore[assignment]

    def find(self, address: int) -> Area | None:
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self._areas[index].limit:
            return self._areas[index]
        return None

    def at_path(self, path: str) -> Area | None:
        return next((area for area in self._areas if area.path == path), None)


def read_areas(folder: Path) -> Areas | None:
    """Mappings of the process whose /proc directory is `folder`; None when they cannot be read or there are none."""
    try:
        with (folder / "maps").open("rb") as file:
            text = file.read(MAX_BYTES)
    except OSError:
        return None
    return parse_areas(text) if text else None


def parse_areas(text: bytes) -> Areas:
    """Read the text of /proc/PID/maps; lines of another form are passed over."""
    return Areas([area for line in text.split(b"\n") if (area := _parse_line(line)) is not None])


def _parse_line(line: bytes) -> Area | None:
    match = _LINE.fullmatch(line)
    if match is None or match[3][2:3] != b"x":
        return None
    path = match[7].decode("utf-8", "surrogateescape").replace("\\012", "\n") or "[anon]"
    return Area(
        start=int(match[1], 16),
        limit=int(match[2], 16),
        offset=int(match[4], 16),
        path=path.removesuffix(_DELETED),
        device=match[5].decode(),
        inode=int(match[6]),
        deleted=path.endswith(_DELETED),
    )
