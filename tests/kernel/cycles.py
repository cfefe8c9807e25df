"""Load, attach every kind of probe, count, close, again and again; run as a program: `cycles.py NUMBER`.

Prints what was there and what is left as JSON: ids of all programs and maps that there were, this process's descriptors
and resident memory before and after.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

from ebbflow.kernel.loader import Program
from ebbflow.kernel.probes import UsdtProbe
from ebbflow.kernel.system_calls import ProgramType

PROBED = Path(__file__).with_name("probed.c")
LIBC = next(Path(line.split()[5]) for line in Path("/proc/self/maps").read_text().splitlines() if "/libc.so" in line)
PYTHON = Path("/proc/self/exe").resolve()
RAW, CALLS, WARM_UP = 2, 23, 5


def state() -> dict[str, object]:
    """What this process holds: descriptors, and resident KiB."""
    files = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024
    anonymous = sorted(name for name in files if name.startswith("anon_inode"))
    return {"anonymous": anonymous, "files": len(files), "resident_kib": resident}


def cycle(usdt: list[UsdtProbe]) -> tuple[set[str], set[str]]:
    """Every kind of probe once, counted; ids of the programs and maps that there were."""
    program = Program(PROBED, {"PID": os.getpid(), "WITH_ARGUMENT": 1}, usdt=usdt)
    probes = program.probes
    probes.attach_tracepoint("syscalls:sys_enter_getppid", "on_tracepoint")
    probes.attach_raw_tracepoint("sys_enter", "on_raw")
    probes.attach_uprobe(LIBC, "getppid", "on_call")
    probes.attach_uprobe(LIBC, "getppid", "on_call", pid=os.getpid())
    probes.attach_uretprobe(LIBC, "getppid", "on_return")
    probes.attach_usdt(PYTHON, "python", "gc__done", "on_usdt")
    probes.attach_perf_event("on_sample", frequency_hz=99)
    probes.attach_perf_event("on_sample", frequency_hz=97, pid=os.getpid())
    for _ in range(CALLS):
        os.getppid()
    assert program.map("hits")[RAW].value == CALLS
    ids = {str(one.id) for one in program.programs()}, {str(one.id) for one in program.maps()}
    assert program.load("on_call", ProgramType.KPROBE) > 0
    program.close()
    return ids


def main(number: int) -> None:
    usdt = [UsdtProbe("python", "gc__start", "on_argument", pid=os.getpid())]
    for _ in range(WARM_UP):  # clang and the allocator take what they keep
        cycle(usdt)
    gc.collect()
    before = state()
    programs: set[str] = set()
    maps: set[str] = set()
    for _ in range(number):
        more = cycle(usdt)
        programs |= more[0]
        maps |= more[1]
    told = {"programs": sorted(programs), "maps": sorted(maps), "before": before, "after": state()}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
