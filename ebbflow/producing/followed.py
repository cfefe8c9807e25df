"""Attaches probes to the allocators of single processes, and keeps that in step as processes come, load and go."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ebbflow.errors import EbbflowError
from ebbflow.kernel.elf import Elf
from ebbflow.kernel.libraries import Binary, executable_of, locate, mapped_files
from ebbflow.kernel.probes import Probe, Probes
from ebbflow.producing.allocators import candidates, hooks_of
from ebbflow.telemetry import logger

_HINT = "it may have ended; or another tool holds probes there in its own way: see `dmesg`, `ebbflow probes`"

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """A process that is followed.

    Attributes:
        probes: how many are attached in it.
        addresses: one in each file that it executes from.
    """

    probes: int
    addresses: tuple[int, ...]


class Followed:
    """The processes whose allocations are followed.

    Args:
        probes: of the loaded program.
        most: processes followed at the same time.
        proc: a /proc file system.
    """

    def __init__(self, probes: Probes, most: int, proc: Path = Path("/proc")) -> None:
        self._probes = probes
        self._most = most
        self._proc = proc
        # What is probed in each process; a file that is no allocator, or cannot be probed, has no probes.
        self._held: dict[int, dict[Binary, list[Probe]]] = {}
        # Processes that are watched and not followed: too many, or no probe can be attached.
        self.unfollowed: set[int] = set()
        # Begun since somebody took them from here.
        self.fresh: dict[int, Begun] = {}

    def __len__(self) -> int:
        return len(self._held)

    def refresh(self, pids: Iterable[int]) -> None:
        """Follow these processes and no others; files that they have mapped since are probed, too."""
        wanted = set(pids)
        for pid in self._held.keys() - wanted:
            self.forget(pid)
        for pid in sorted(wanted):
            if pid in self._held or len(self._held) < self._most:
                self._look(pid)
            else:
                self.unfollowed.add(pid)

    def forget(self, pid: int) -> None:
        """A process ended, or began another program."""
        for probes in self._held.pop(pid, {}).values():
            self._detach(probes)
        self.fresh.pop(pid, None)

    def _look(self, pid: int) -> None:
        try:
            executable = executable_of(pid, self._proc).name
        except EbbflowError:
            return
        held, files = self._held.setdefault(pid, {}), mapped_files(pid, self._proc)
        found = [locate(pid, file, self._proc) for file in candidates(files, executable)]
        for binary in found:
            if binary is not None and binary not in held:
                held[binary] = self._attach(pid, binary.path)
                addresses = tuple(int(file.range.partition("-")[0], 16) for file in files)
                self.fresh[pid] = Begun(sum(map(len, held.values())), addresses)

    def _attach(self, pid: int, path: Path) -> list[Probe]:
        """All hooks of a file, or none where one cannot be attached."""
        attached: list[Probe] = []
        try:
            for hook in hooks_of(Elf(path).functions()):
                # The return first: whoever is followed at its entry is seen to the end.
                if hook.leave:
                    attached.append(self._probes.attach_uretprobe(path, hook.symbol, hook.leave, pid=pid))
                attached.append(self._probes.attach_uprobe(path, hook.symbol, hook.entry, pid=pid))
        except (EbbflowError, OSError) as error:
            self._detach(attached)
            self.unfollowed.add(pid)
            log.warning("allocations are not followed", pid=pid, file=str(path), error=str(error), hint=_HINT)
            return []
        return attached

    def _detach(self, probes: Iterable[Probe]) -> None:
        for probe in probes:
            with suppress(OSError):
                self._probes.detach(probe)
