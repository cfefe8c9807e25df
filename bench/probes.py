"""What it takes to attach and to detach, by type of probe: microseconds, the median of REPETITIONS in each round.

    python -m bench.run probes

One program file is compiled once and its functions are verified before the clock starts: what is measured is finding
the place and putting the program there, as ebbflow/kernel/probes.py does it. Needs root.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from bench.figures import Figure
from ebbflow.kernel.libraries import library_of
from ebbflow.kernel.loader import Program
from ebbflow.kernel.probes import Probe, Probes

SOURCE = Path(__file__).parents[1] / "tests" / "kernel" / "probed.c"
REPETITIONS = 31
PYTHON = Path("/proc/self/exe").resolve()
Attach = Callable[[Probes], Probe]


def ways() -> dict[str, Attach]:
    libc = library_of(os.getpid(), "libc.so").path
    return {
        "tracepoint": lambda probes: probes.attach_tracepoint("syscalls:sys_enter_getppid", "on_tracepoint"),
        "raw_tracepoint": lambda probes: probes.attach_raw_tracepoint("sched_process_exec", "on_raw"),
        "uprobe": lambda probes: probes.attach_uprobe(libc, "getppid", "on_call"),
        "uretprobe": lambda probes: probes.attach_uretprobe(libc, "getppid", "on_return"),
        "usdt": lambda probes: probes.attach_usdt(PYTHON, "python", "gc__start", "on_usdt")[0],
        "perf_event": lambda probes: probes.attach_perf_event("on_sample", frequency_hz=49),
    }


def take(probes: Probes, attach: Attach) -> tuple[float, float]:
    """Microseconds for one to be attached, and to be detached."""
    begin = time.perf_counter_ns()
    probe = attach(probes)
    middle = time.perf_counter_ns()
    probes.detach(probe)
    return (middle - begin) / 1e3, (time.perf_counter_ns() - middle) / 1e3


def take_round(probes: Probes, attach: Attach) -> tuple[float, float]:
    taken = [take(probes, attach) for _ in range(REPETITIONS)]
    return median(pair[0] for pair in taken), median(pair[1] for pair in taken)


def figures(rounds: int) -> Iterator[Figure]:
    begin = time.perf_counter()
    program = Program(SOURCE, {"PID": os.getpid()})
    yield Figure("program compiled and first loaded", [(time.perf_counter() - begin) * 1e3], "ms")
    try:
        program.detach()
        for name, attach in ways().items():
            take(program.probes, attach)  # the verifier, once
            taken = [take_round(program.probes, attach) for _ in range(rounds)]
            yield Figure(f"attach {name}", [pair[0] for pair in taken], "us")
            yield Figure(f"detach {name}", [pair[1] for pair in taken], "us")
    finally:
        program.close()
