"""What this machine offers to attach to, from /sys and /proc; and what is near to a name that is not there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from ebbflow.errors import KernelError, PermissionDenied, ProbeNotFound

TRACEFS = Path("/sys/kernel/tracing")
SOURCES = Path("/sys/bus/event_source/devices")
_NEARBY = 3


def tracepoints(tracefs: Path = TRACEFS) -> list[str]:
    """All of category:name; empty where tracefs cannot be read."""
    return [f"{path.parent.parent.name}:{path.parent.name}" for path in sorted(tracefs.glob("events/*/*/id"))]


def tracepoint_number(tracepoint: str, tracefs: Path = TRACEFS) -> int:
    """The number by which perf knows category:name.

    Raises:
        ProbeNotFound: this kernel has none of that name.
        PermissionDenied: tracefs is not for this user.
        KernelError: tracefs is not mounted.
    """
    category, _, name = tracepoint.partition(":")
    try:
        return int((tracefs / "events" / category / name / "id").read_text("ascii"))
    except PermissionError:
        raise PermissionDenied(f"{tracefs} cannot be read", hint="run it as root: sudo ebbflow …") from None
    except (OSError, ValueError):
        if not (tracefs / "events").is_dir():
            raise KernelError("tracefs is not mounted", hint=f"mount -t tracefs tracefs {tracefs}") from None
        raise ProbeNotFound(
            f"no tracepoint {tracepoint} in this kernel", hint=nearby(tracepoint, tracepoints(tracefs))
        ) from None


def perf_source(name: str, sources: Path = SOURCES) -> int:
    """`type` of perf events for kprobes or uprobes.

    Raises:
        KernelError: this kernel was built without.
    """
    try:
        return int((sources / name / "type").read_text("ascii"))
    except OSError:
        raise KernelError(
            f"this kernel has no {name}s",
            hint=f"a kernel built with CONFIG_{name.upper()}S=y has them (CONFIG_UPROBE_EVENTS, CONFIG_KPROBE_EVENTS)",
        ) from None


def retprobe_bit(name: str, sources: Path = SOURCES) -> int:
    """The bit of `config` that means at the return: `config:0` in format/retprobe."""
    text = (sources / name / "format" / "retprobe").read_text("ascii") if (sources / name).is_dir() else "config:0"
    return 1 << int(text.strip().rpartition(":")[2])


def kernel_functions(kallsyms: Path = Path("/proc/kallsyms")) -> list[str]:
    return re.findall(r"^[0-9a-f]+ [tTwW] (\S+)$", kallsyms.read_text("utf-8", "replace"), re.MULTILINE)


def cpus_online(path: Path = Path("/sys/devices/system/cpu/online")) -> list[int]:
    """Numbers from a list like 0-3,6."""
    cpus: list[int] = []
    for part in path.read_text("ascii").strip().split(","):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return cpus


def threads_of(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """Thread ids of a process.

    Raises:
        ProbeNotFound: it is no more.
    """
    threads = [int(path.name) for path in (proc / str(pid) / "task").glob("[0-9]*")]
    if not threads:
        raise ProbeNotFound(f"no process {pid}", hint="it has ended: look again with `ps`")
    return threads


def nearby(name: str, names: Iterable[str]) -> str:
    """A hint: names that are alike, then those that contain it."""
    known = sorted(set(names))
    alike = difflib.get_close_matches(name, known, _NEARBY)
    word = name.rpartition(":")[2].lower()
    alike += [other for other in known if word and word in other.lower() and other not in alike]
    if not alike:
        return f"nothing here has a name like {name}" if known else "there is none at all"
    return f"nearby: {', '.join(alike[:_NEARBY])}"
