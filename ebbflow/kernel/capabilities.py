"""Names of Linux capabilities, which of them a thread has, and giving them up. See capabilities(7).

After everything is attached, a producer needs few: descriptors that are held stay good without any. Dropping is final,
and for one thread: threads started later inherit what their maker has then, those started before keep what they had.
So it is done before there are others, or by each of them; `threads_with_more` tells of those that were missed. Numpy's
OpenBLAS starts threads when it is imported, unless OPENBLAS_NUM_THREADS=1 is in the environment by then.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ebbflow.errors import PermissionDenied

# linux/capability.h, by number.
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
# What draining needs, and why. Map and ring operations on descriptors that are held need none since 5.19; before, with
# kernel.unprivileged_bpf_disabled=1 or 2 (usual), bpf(2) asks for CAP_BPF at every call: see `kept_for_draining`.
KEPT_FOR_DRAINING: Mapping[str, str] = {
    "SYS_PTRACE": "reading /proc/PID/environ, exe, fd, maps and root of processes of other users",
    "DAC_READ_SEARCH": "reading files of other users: binaries for symbols and build ids, perf maps",
}
# Only for features that attach to binaries of processes that start later.
KEPT_FOR_ATTACHING: Mapping[str, str] = {
    "SYS_ADMIN": "perf_event_open(2) for uprobes, and /proc/PID/map_files: PERFMON, once enough, is refused by 6.18",
}
FIRST_KERNEL_WITH_FREE_MAPS = (5, 19)
_VERSION_3 = 0x20080522
_NR_CAPSET = 126  # x86-64
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 23, 24, 47, 4
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class CapabilitySets:
    """Names without CAP_; what this list does not know, by number."""

    effective: frozenset[str]
    permitted: frozenset[str]
    bounding: frozenset[str]


def names_of(mask: int) -> list[str]:
    """In the order of their numbers."""
    known = dict(enumerate(CAPABILITIES))
    return [known.get(bit, str(bit)) for bit in range(mask.bit_length()) if mask >> bit & 1]


def mask_of(names: Collection[str]) -> int:
    return sum(1 << (int(name) if name.isdecimal() else CAPABILITIES.index(name)) for name in set(names))


def mask_in(status: str, field: str = "CapEff") -> int:
    """One of CapEff, CapPrm, CapBnd in the text of /proc/PID/status; 0 where it is not there."""
    found = re.search(rf"^{field}:\s*([0-9a-f]+)", status, re.MULTILINE)
    return int(found[1], 16) if found else 0


def read_capabilities(pid: int | str = "self", proc: Path = Path("/proc")) -> CapabilitySets:
    """Of a process; of a thread as "PID/task/TID"."""
    status = (proc / str(pid) / "status").read_text("utf-8", "replace")
    return CapabilitySets(*(frozenset(names_of(mask_in(status, field))) for field in ("CapEff", "CapPrm", "CapBnd")))


def require_for_loading(effective: Collection[str]) -> None:
    """Say which capability is missing before the kernel says only EPERM.

    Raises:
        PermissionDenied: neither SYS_ADMIN nor BPF with PERFMON.
    """
    missing = [f"CAP_{name}" for name in ("BPF", "PERFMON") if name not in effective]
    if missing and "SYS_ADMIN" not in effective:
        raise PermissionDenied(
            f"loading BPF programs needs CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON: {' and '.join(missing)} missing",
            hint="run it as root: sudo ebbflow …",
        )


def kept_for_draining(release: str, *, attaches_later: bool = False) -> dict[str, str]:
    """What to keep on a kernel (`uname -r`), with the reasons."""
    kept = {**KEPT_FOR_DRAINING, **(KEPT_FOR_ATTACHING if attaches_later else {})}
    if tuple(int(number) for number in re.findall(r"\d+", release)[:2]) < FIRST_KERNEL_WITH_FREE_MAPS:
        kept["BPF"] = "bpf(2) on maps that are held: this kernel asks for it at every call"
    return kept


def drop_all_but(keep: Collection[str]) -> CapabilitySets:
    """Give up, for good, everything else: of this thread, and of what it starts. What is not there is not added.

    Inheritable and ambient sets are emptied and the bounding set is cut, so that exec(2) of root's programs gives
    nothing back.

    Args:
        keep: names without CAP_.

    Returns:
        What remains.

    Raises:
        PermissionDenied: the kernel refused.
    """
    kept = mask_of(keep)
    permitted = kept & mask_of(read_capabilities("thread-self").permitted)
    _drop_bounding(kept)
    _call(_LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    _set(permitted)
    return read_capabilities("thread-self")


def _drop_bounding(kept: int) -> None:
    """Needs SETPCAP: without it the set stays, which lets no one have more than before."""
    for bit in range(64):
        if not kept >> bit & 1 and _LIBC.prctl(_PR_CAPBSET_READ, bit, 0, 0, 0) == 1:
            _LIBC.prctl(_PR_CAPBSET_DROP, bit, 0, 0, 0)


def _set(mask: int) -> None:
    """Effective and permitted become `mask`, inheritable nothing: struct __user_cap_header, then two of _data."""
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _call(_LIBC.syscall(_NR_CAPSET, header, data))


def _call(result: int) -> None:
    if result != 0:
        raise PermissionDenied(f"capabilities cannot be dropped: {os.strerror(ctypes.get_errno())}")


def threads_with_more(
    allowed: Collection[str], pid: int | str = "self", proc: Path = Path("/proc")
) -> dict[int, list[str]]:
    """Threads that still hold, permitted or effective, what is not allowed: their ids, and what they hold."""
    found: dict[int, list[str]] = {}
    for task in (proc / str(pid) / "task").glob("[0-9]*"):
        sets = read_capabilities(f"{pid}/task/{task.name}", proc)
        more = (sets.effective | sets.permitted) - set(allowed)
        if more:
            found[int(task.name)] = names_of(mask_of(more))
    return found
