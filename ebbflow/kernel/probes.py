"""Attaches and detaches the functions of a program: every kind of probe, each held by descriptors of this process.

kind              target                                  needs
tracepoint        category:name                           tracefs
raw_tracepoint    name                                    -
kprobe, kretprobe function of the kernel                  CONFIG_KPROBES
uprobe, uretprobe file:function                           -
usdt              file:provider:name                      -
perf_event        cpu-clock at a frequency, per CPU       -

The kernel takes a probe off when its last descriptor is closed, so kill -9 leaves nothing. BCC's own attach functions
are not used: they forget the first of two functions on one tracepoint, and they say only that it did not work.

Attaching the same function to the same place again does nothing and returns the probe that is there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ebbflow.errors import EbbflowError, KernelError, PermissionDenied, ProbeNotFound
from ebbflow.kernel import system_calls as calls
from ebbflow.kernel.attach_points import (
    cpus_online,
    kernel_functions,
    nearby,
    perf_source,
    retprobe_bit,
    threads_of,
    tracepoint_number,
    tracepoints,
)
from ebbflow.kernel.elf import Elf, Usdt
from ebbflow.kernel.perf_events import close_all, open_cpu_samples, open_thread_samples, open_user_probe
from ebbflow.kernel.system_calls import PerfType, ProgramType

SEMAPHORE_SHIFT = 32
_DOCTOR = "run `ebbflow doctor` to see what this kernel allows"
# How BCC names what is attached as soon as it is loaded: TRACEPOINT_PROBE and its likes.
FOUND_PREFIXES = {
    "tracepoint__": "tracepoint",
    "raw_tracepoint__": "raw_tracepoint",
    "kprobe__": "kprobe",
    "kretprobe__": "kretprobe",
}


class Functions(Protocol):
    """What attaches needs of a program."""

    def load(self, function: str, kind: ProgramType) -> int:
        """Verify a function, once: its descriptor."""

    def functions(self) -> list[str]:
        """Names of all functions."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One function at one place; `pid` -1 is everywhere."""

    kind: str
    target: str
    function: str
    pid: int = -1


@dataclass(frozen=True, slots=True)
class UsdtProbe:
    """A USDT probe for a program that reads its arguments; see Program.

    Attributes:
        provider, name: of the probe.
        function: to run.
        binary: the file with the probe; None: wherever the process has it.
        pid: process to watch; -1 for every process that maps the file.
    """

    provider: str
    name: str
    function: str
    binary: Path | None = None
    pid: int = -1


_Key = tuple[object, ...]


class Probes:
    """What is attached of one program.

    Every attach raises ProbeNotFound for a place or a function that is not there, ProgramRefused when the verifier
    refuses the function, PermissionDenied without the rights, and KernelError for what the kernel cannot do.
    """

    def __init__(self, program: Functions) -> None:
        self._program = program
        self._held: dict[_Key, tuple[Probe, list[int]]] = {}

    def attached(self) -> list[Probe]:
        return [probe for probe, _ in self._held.values()]

    def attach_tracepoint(self, tracepoint: str, function: str) -> Probe:
        """`tracepoint` is category:name."""
        probe = Probe("tracepoint", tracepoint, function)

        def attach() -> list[int]:
            number = tracepoint_number(tracepoint)
            return [calls.open_perf_event(PerfType.TRACEPOINT, self._load(probe), config=number, cpu=0)]

        return self._attach(probe, (tracepoint,), attach)

    def attach_raw_tracepoint(self, tracepoint: str, function: str) -> Probe:
        probe = Probe("raw_tracepoint", tracepoint, function)

        def attach() -> list[int]:
            program = self._load(probe)
            try:
                return [calls.open_raw_tracepoint(tracepoint, program)]
            except FileNotFoundError:
                names = [name.partition(":")[2] for name in tracepoints()]
                raise ProbeNotFound(
                    f"no raw tracepoint {tracepoint} in this kernel", hint=nearby(tracepoint, names)
                ) from None

        return self._attach(probe, (tracepoint,), attach)

    def attach_kprobe(self, symbol: str, function: str) -> Probe:
        return self._kernel_function(Probe("kprobe", symbol, function))

    def attach_kretprobe(self, symbol: str, function: str) -> Probe:
        return self._kernel_function(Probe("kretprobe", symbol, function))

    def _kernel_function(self, probe: Probe) -> Probe:
        def attach() -> list[int]:
            kind = perf_source("kprobe")
            config = retprobe_bit("kprobe") if probe.kind == "kretprobe" else 0
            program = self._load(probe)
            try:
                return [calls.open_perf_event(kind, program, config=config, name=probe.target, cpu=0)]
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.EINVAL, errno.EADDRNOTAVAIL}:
                    raise
                raise ProbeNotFound(
                    f"{probe.kind} {probe.target}: no such function, or none that can be traced",
                    hint=nearby(probe.target, kernel_functions()),
                ) from None

        return self._attach(probe, (probe.target,), attach)

    def attach_uprobe(self, binary: Path, symbol: str, function: str, *, pid: int = -1, offset: int = 0) -> Probe:
        """At a function of a file, `offset` bytes into it; seen in every process that maps the file, or in one."""
        return self._user_function("uprobe", binary, symbol, function, pid, offset)

    def attach_uretprobe(self, binary: Path, symbol: str, function: str, *, pid: int = -1) -> Probe:
        return self._user_function("uretprobe", binary, symbol, function, pid, 0)

    def _user_function(self, kind: str, binary: Path, symbol: str, function: str, pid: int, offset: int) -> Probe:
        file = Elf(binary)
        place = None if file.is_indirect(symbol) else file.function(symbol)
        if place is None:
            raise _no_symbol(file, symbol)
        name = f"{symbol}+{offset:#x}" if offset else symbol
        probe = Probe(kind, f"{binary}:{name}", function, pid)
        config = retprobe_bit("uprobe") if kind == "uretprobe" else 0
        return self._user_place(probe, binary, place + offset, config)

    def _user_place(self, probe: Probe, binary: Path, offset: int, config: int) -> Probe:
        """The place is told by the file itself: two names of one file are one place."""
        status = binary.stat()

        def attach() -> list[int]:
            kind, program = perf_source("uprobe"), self._load(probe)
            cpu = 0 if probe.pid < 0 else -1
            return [open_user_probe(kind, program, str(binary), config, offset, pid=probe.pid, cpu=cpu)]

        return self._attach(probe, (status.st_dev, status.st_ino, offset), attach)

    def attach_usdt(self, binary: Path, provider: str, name: str, function: str, *, pid: int = -1) -> list[Probe]:
        """At every place that the compiler made of a probe. Its semaphore, if it has one, is raised by the kernel."""
        every = Elf(binary).usdt()
        places = [place for place in every if (place.provider, place.name) == (provider, name)]
        if not places:
            names = [f"{place.provider}:{place.name}" for place in every]
            raise ProbeNotFound(
                f"{binary} has no USDT probe {provider}:{name}", hint=nearby(f"{provider}:{name}", names)
            )
        return [self._usdt_place(binary, place, function, pid) for place in places]

    def _usdt_place(self, binary: Path, place: Usdt, function: str, pid: int) -> Probe:
        probe = Probe("usdt", f"{binary}:{place.provider}:{place.name}@{place.location:#x}", function, pid)
        return self._user_place(probe, binary, place.location, place.semaphore << SEMAPHORE_SHIFT)

    def attach_perf_event(self, function: str, *, frequency_hz: int, pid: int = -1, cpu: int = -1) -> Probe:
        """Run at every tick of the CPU clock: on one CPU or all that are online, or while threads of a process run.

        With `pid`, every thread that it has now and their later threads are sampled; CPUs are not told apart.
        """
        place = f"cpu-clock {frequency_hz} Hz" + (f" cpu {cpu}" if cpu >= 0 else "")
        probe = Probe("perf_event", place, function, pid)

        def attach() -> list[int]:
            program = self._load(probe)
            if pid < 0:
                return open_cpu_samples(program, frequency_hz, [cpu] if cpu >= 0 else cpus_online())
            return open_thread_samples(program, frequency_hz, threads_of(pid), cpu)

        return self._attach(probe, (frequency_hz, pid, cpu), attach)

    def attach_found(self) -> list[Probe]:
        """Attach what says by its name where it belongs: TRACEPOINT_PROBE, RAW_TRACEPOINT_PROBE, kprobe__NAME."""
        found = []
        for function in self._program.functions():
            for prefix, kind in FOUND_PREFIXES.items():
                if function.startswith(prefix):
                    target = function.removeprefix(prefix)
                    if kind == "tracepoint":
                        target = target.replace("__", ":", 1)
                    found.append(getattr(self, f"attach_{kind}")(target, function))
        return found

    def detach(self, probe: Probe) -> None:
        """Take one off; nothing happens when it is not attached."""
        for key in [key for key, (held, _) in self._held.items() if held == probe]:
            close_all(self._held.pop(key)[1])

    def detach_all(self) -> None:
        for probe in self.attached():
            self.detach(probe)

    def _load(self, probe: Probe) -> int:
        return self._program.load(probe.function, _TYPES[probe.kind])

    def _attach(self, probe: Probe, place: _Key, attach: Callable[[], list[int]]) -> Probe:
        key = (probe.kind, *place, probe.function, probe.pid)
        if key not in self._held:
            try:
                self._held[key] = probe, attach()
            except OSError as error:
                raise _not_attached(probe, error) from None
        return self._held[key][0]


_TYPES = {
    "tracepoint": ProgramType.TRACEPOINT,
    "raw_tracepoint": ProgramType.RAW_TRACEPOINT,
    "kprobe": ProgramType.KPROBE,
    "kretprobe": ProgramType.KPROBE,
    "uprobe": ProgramType.KPROBE,
    "uretprobe": ProgramType.KPROBE,
    "usdt": ProgramType.KPROBE,
    "perf_event": ProgramType.PERF_EVENT,
}
_FOR_PERFMON = frozenset({"tracepoint", "raw_tracepoint", "perf_event"})


def _no_symbol(file: Elf, symbol: str) -> ProbeNotFound:
    functions = file.functions()
    if file.is_indirect(symbol):
        return ProbeNotFound(
            f"{file.path}: {symbol} is chosen when the library is loaded (IFUNC): a probe there sees no call",
            hint=nearby(symbol, [name for name in functions if symbol in name] or functions),
        )
    return ProbeNotFound(f"{file.path} has no function {symbol}", hint=nearby(symbol, functions))


def _not_attached(probe: Probe, error: OSError) -> EbbflowError:
    what = f"{probe.kind} {probe.target}"
    if error.errno in {errno.EPERM, errno.EACCES}:
        needed = "CAP_PERFMON" if probe.kind in _FOR_PERFMON else "CAP_SYS_ADMIN (CAP_PERFMON on older kernels)"
        return PermissionDenied(
            f"{what}: attaching needs {needed}: {error.strerror}",
            hint="run it as root: sudo ebbflow …",
        )
    if error.errno == errno.ESRCH:
        return ProbeNotFound(f"{what}: no process {probe.pid}", hint="it has ended: look again with `ps`")
    return KernelError(f"{what}: cannot be attached: {error.strerror}", hint=_DOCTOR)
