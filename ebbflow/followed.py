"""Attaches probes to the allocators of single processes, and keeps that in step as processes come, load and go."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ebbflow.allocators import Candidate, Place, candidates, hooks_of
from ebbflow.errors import EbbflowError, KernelError, ProbeNotFound
from ebbflow.kernel.elf import Elf
from ebbflow.kernel.probes import Probe, Probes
from ebbflow.symbols.mappings import read_areas


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
        self._held: dict[int, dict[Place, list[Probe]]] = {}
        # Files that are no allocators, or cannot be probed: not tried again in that process.
        self._useless: dict[int, set[Place]] = {}
        self.beyond: set[int] = set()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, pid: int) -> bool:
        return bool(self._held.get(pid))

    def refresh(self, pids: Iterable[int]) -> None:
        """Follow these processes and no others; files that they have mapped since are probed, too."""
        wanted = set(pids)
        for pid in self._held.keys() - wanted:
            self.forget(pid)
        for pid in sorted(wanted):
            if pid in self._held or len(self._held) < self._most:
                self._look(pid)
            else:
                self.beyond.add(pid)

    def forget(self, pid: int) -> None:
        """A process ended, or began another program."""
        for probes in self._held.pop(pid, {}).values():
            for probe in probes:
                self._probes.detach(probe)
        self._useless.pop(pid, None)

    def _look(self, pid: int) -> None:
        areas = read_areas(self._proc / str(pid))
        if areas is None:
            return
        held, useless = self._held.setdefault(pid, {}), self._useless.setdefault(pid, set())
        for candidate in candidates(areas, self._executable(pid)):
            if candidate.place not in held and candidate.place not in useless:
                probes = self._attach(pid, candidate)
                if probes:
                    held[candidate.place] = probes
                else:
                    useless.add(candidate.place)

    def _executable(self, pid: int) -> str:
        with suppress(OSError):
            return str((self._proc / str(pid) / "exe").readlink()).removesuffix(" (deleted)")
        return ""

    def _attach(self, pid: int, candidate: Candidate) -> list[Probe]:
        for path in candidate.files(self._proc, pid):
            with suppress(EbbflowError, OSError):
                return self._attach_all(pid, path)
        return []

    def _attach_all(self, pid: int, path: Path) -> list[Probe]:
        """All or none.

        Raises:
            EbbflowError, OSError: the file cannot be read, or not probed.
        """
        attached: list[Probe] = []
        try:
            for hook in hooks_of(Elf(path).functions()):
                # The return first: whoever is followed at its entry is seen to the end.
                if hook.leave:
                    attached.append(self._probes.attach_uretprobe(path, hook.symbol, hook.leave, pid=pid))
                with suppress(ProbeNotFound):
                    attached.append(self._probes.attach_uprobe(path, hook.symbol, hook.entry, pid=pid))
        except (KernelError, OSError):
            for probe in attached:
                self._probes.detach(probe)
            raise
        return attached
