"""Addresses of sampled stacks to frames: what the producers `cpu` and `memory` call.

One thread uses it. Calls read files when a process, a file or an address is new, and answer from caches otherwise;
nothing waits, but a file system that hangs (a dead NFS server) holds the call up. It needs the rights to read
/proc/PID/maps, root and map_files of the watched (CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_CHECKPOINT_RESTORE or
CAP_SYS_ADMIN); without the last, files that were deleted since they were mapped stay without names.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ebbflow.symbols.binaries import Binaries
from ebbflow.symbols.demangle import Demangler
from ebbflow.symbols.frames import Frame
from ebbflow.symbols.kernel import Kernel
from ebbflow.symbols.pace import Pace
from ebbflow.symbols.processes import Process
from ebbflow.symbols.stacks import is_start
from ebbflow.symbols.user_frames import FramePointers, UserFrames

STALE_S = 30.0


@dataclass(frozen=True, slots=True)
class Stats:
    """What was done so far, and what is held.

    Attributes:
        symbolized: frames with a function, by kind.
        unsymbolized: frames without, by reason:
            `process_gone`            its mappings could never be read
            `unmapped`                in no executable mapping; most often for want of frame pointers
            `file_unreadable`         the file could not be opened, is no ELF file, or is damaged
            `stripped`                in a gap of a file that has exported functions' names at most
            `no_symbol`               in a gap of a file that has all names
            `jit_without_perf_map`, `jit_not_in_perf_map`    code made at run time
            `kernel_restricted`, `kernel_unknown`            addresses hidden; no function there
        troubles: damaged files and lines, refused perf maps, failures of the demangler, by kind.
        memory_bytes: of symbol tables, perf maps and kernel symbols, estimated.
    """

    symbolized: dict[str, int]
    unsymbolized: dict[str, int]
    troubles: dict[str, int]
    processes: int
    binaries: int
    memory_bytes: int


class Symbolizer:
    """Functions of processes and of the kernel.

    Args:
        proc: a /proc file system, of the pid namespace that the pids count in.
        max_processes, max_binaries, max_bytes: what is kept, the least recently used out first.
        names: False: only mappings, build ids and addresses in files; no symbol table is read.
        refresh_s: least time between two reads of one process's mappings, or perf map; waits grow to `STALE_S` while
            nothing is new.
        now: monotonic seconds.
    """

    def __init__(
        self,
        proc: Path = Path("/proc"),
        *,
        max_processes: int = 512,
        max_binaries: int = 256,
        max_bytes: int = 256 << 20,
        names: bool = True,
        refresh_s: float = 1.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proc, self._now, self._refresh_s = proc, now, refresh_s
        self._max_processes = max_processes
        self._troubles: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._binaries = Binaries(max_binaries=max_binaries, max_bytes=max_bytes, troubles=self._troubles, names=names)
        self._demangler = Demangler(self._troubles)
        self._kernel = Kernel(proc, now)
        self._processes: OrderedDict[int, UserFrames] = OrderedDict()
        self._frame_pointers = FramePointers()

    def user(self, pid: int, start_boottime_ns: int, addresses: Sequence[int], *, whole: bool = True) -> list[Frame]:
        """Frames of one user stack, leaf first, one for every address.

        Args:
            pid: as `proc` counts it.
            start_boottime_ns: when the process began, in the boot clock: guards against pids used again. 0: any.
            addresses: the leaf's instruction, then where each caller is returned to.
            whole: False: nothing from the first caller on that is in no executable mapping. What follows in a broken
                chain of frame pointers is no caller.
        """
        frames = self._frames_of(pid, start_boottime_ns)
        frames.refresh(older_than_s=STALE_S)
        found: list[Frame] = []
        for index, address in enumerate(addresses):
            frame, reason = frames.frame(address, is_leaf=index == 0)
            if not whole and index and reason == "unmapped":
                break
            found.append(self._counted(frame, reason))
        return found

    def kernel(self, addresses: Sequence[int]) -> list[Frame]:
        """Frames of one kernel stack, leaf first."""
        return [self._counted(*self._kernel.frame(a, is_leaf=index == 0)) for index, a in enumerate(addresses)]

    def exited(self, pid: int) -> None:
        """Say that a process is gone: what is known of it still serves late samples, /proc is not asked again."""
        if (known := self._processes.get(pid)) is not None:
            known.process.exited = True

    def refresh(self, pid: int) -> None:
        """Forget what is known of a process, as after execve(2). Other changes are found without this."""
        self._processes.pop(pid, None)

    def skips_callers(self, frames: Sequence[Frame]) -> bool:
        """Whether a frame lies in a file whose functions mostly set up no frame pointer: its caller may be missing.

        Frames where threads start have no caller and do not count.
        """
        return any(
            frame.mapping is not None and self._frame_pointers.lacks(frame.mapping) and not is_start(frame)
            for frame in frames
        )

    def _frames_of(self, pid: int, start_boottime_ns: int) -> UserFrames:
        known = self._processes.get(pid)
        if known is None or known.process.start_boottime_ns != start_boottime_ns:
            known = self._processes[pid] = UserFrames(
                Process(
                    self._proc,
                    pid,
                    start_boottime_ns,
                    binaries=self._binaries,
                    troubles=self._troubles,
                    pace=lambda: Pace(self._refresh_s, STALE_S, self._now),
                ),
                self._demangler,
                self._frame_pointers,
            )
        self._processes.move_to_end(pid)
        while len(self._processes) > self._max_processes:
            self._processes.popitem(last=False)
        return known

    def _counted(self, frame: Frame, reason: str) -> Frame:
        if reason:
            self._reasons[reason] += 1
        else:
            self._kinds[frame.kind.name.lower()] += 1
        return frame

    def close(self) -> None:
        """End the helper process, if there is one."""
        self._demangler.close()

    @property
    def stats(self) -> Stats:
        maps = [known.process.perf_map for known in self._processes.values()]
        return Stats(
            symbolized=dict(self._kinds),
            unsymbolized=dict(self._reasons),
            troubles=dict(self._troubles + self._kernel.troubles),
            processes=len(self._processes),
            binaries=len(self._binaries),
            memory_bytes=self._binaries.memory_bytes
            + self._kernel.memory_bytes
            + sum(found.memory_bytes for found in maps if found is not None),
        )
