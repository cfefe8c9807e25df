"""One process's memory: its mappings, files and perf map, read when needed and again when they may have changed."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ebbflow.identity import parse_stat
from ebbflow.symbols.binaries import NOT_ELF, Binaries, Binary
from ebbflow.symbols.files import FileSource, open_file, open_in_root
from ebbflow.symbols.frames import Mapping
from ebbflow.symbols.mappings import Area, Areas, Backing, read_areas
from ebbflow.symbols.pace import Pace
from ebbflow.symbols.perf_map import PerfMap

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_OTHERS_MAY_WRITE = 0o002
_STATUS = re.compile(rb"^(Uid|NSpid):\s*(.*)$", re.MULTILINE)


class Process:
    """A process as /proc shows it; after its end, as it was last seen.

    Args:
        start_boottime_ns: its start, 0 when not known: a process that follows with the same pid is never read.
        binaries: files, shared with all processes.
        pace: makes the two paces, of mappings and perf map.
    """

    def __init__(
        self,
        proc: Path,
        pid: int,
        start_boottime_ns: int,
        *,
        binaries: Binaries,
        troubles: Counter[str],
        pace: Callable[[], Pace],
    ) -> None:
        self.start_boottime_ns = start_boottime_ns
        self.exited = False
        self._folder, self._root = proc / str(pid), proc / str(pid) / "root"
        self._pid = pid
        self._binaries, self._troubles = binaries, troubles
        self._areas: Areas | None = None
        self._areas_pace, self._perf_map_pace = pace(), pace()
        self._perf_map: PerfMap | None = None
        self._files: dict[Area, tuple[Mapping, Binary]] = {}

    @property
    def was_read(self) -> bool:
        return self._areas is not None

    @property
    def perf_map(self) -> PerfMap | None:
        return self._perf_map

    def area(self, address: int) -> Area | None:
        return self._areas.find(address) if self._areas is not None else None

    def mapped(self, area: Area) -> tuple[Mapping, Binary]:
        """The mapping as frames show it, and the file behind it."""
        if area not in self._files:
            binary = self._read_file(area) if area.backing is Backing.FILE else NOT_ELF
            self._files[area] = (Mapping(area.path, binary.build_id, area.start, area.limit, area.offset), binary)
        return self._files[area]

    def refresh_areas(self, *, older_than_s: float = 0.0) -> bool:
        """Read the mappings again when that is due and the last time is that long ago; True when they changed."""
        if self.exited or not self._areas_pace.is_due() or self._areas_pace.age_s < older_than_s:
            return False
        areas = read_areas(self._folder) if self._is_same() else None
        changed = areas is not None and areas != self._areas
        self._areas_pace.done(new=changed)
        if changed:
            self._areas = areas
            self._files.clear()
        return changed

    def refresh_perf_map(self) -> bool:
        """Read on in the perf map when that is due; True when it has new entries."""
        if self.exited or not self._perf_map_pace.is_due():
            return False
        new = False
        file = self._open_perf_map() if self._is_same() else None
        if file is not None:
            with file:
                self._perf_map = self._perf_map or PerfMap(self._troubles)
                new = self._perf_map.read(file)
        self._perf_map_pace.done(new=new)
        return new

    def _is_same(self) -> bool:
        """Whether what /proc shows under this pid is still this process."""
        if not self.start_boottime_ns:
            return True
        stat = parse_stat(_read(self._folder / "stat"))
        return stat is not None and stat[1] == self.start_boottime_ns // _TICK_NS

    def _read_file(self, area: Area) -> Binary:
        file = open_mapped(self._folder, area) if not self.exited and self._is_same() else None
        if file is None:
            self._troubles["files_not_opened"] += 1
            return NOT_ELF
        with file:
            return self._binaries.read(file, (self._root, Path("/")))

    def _open_perf_map(self) -> FileSource | None:
        """The perf map, if it is a regular file of the process's user or of root that nobody else may write."""
        status = dict(_STATUS.findall(_read(self._folder / "status")))
        with suppress(KeyError, IndexError, ValueError):
            own_pid, uid = int(status[b"NSpid"].split()[-1]), int(status[b"Uid"].split()[1])
            file = open_in_root(self._root, f"/tmp/perf-{own_pid}.map", follow_last=False)  # noqa: S108
            if file is None or (file.uid in {0, uid} and not file.mode & _OTHERS_MAY_WRITE):
                return file
            file.close()
            self._troubles["perf_maps_refused"] += 1
        return None


def open_mapped(folder: Path, area: Area) -> FileSource | None:
    """The very file that is mapped, deleted or replaced though it may be; else what is at its path now.

    Args:
        folder: the process's /proc directory.
        area: one that a file backs.

    map_files needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE. Without, of the deleted only the program itself (exe) is
    within reach, and another file may have taken a path: then the inode number differs.
    """
    if file := open_file(folder / "map_files" / f"{area.start:x}-{area.limit:x}"):
        return file
    file = open_file(folder / "exe") if area.deleted else open_in_root(folder / "root", area.path)
    if file is not None and file.identity[1] != area.inode:
        file.close()
        return None
    return file


def _read(path: Path) -> bytes:
    """Up to 64 KiB of a file; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(1 << 16)
    except OSError:
        return b""
