"""Checks of the kernel and of this process's rights. `root` is the file system they are read from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ebbflow.doctor.check import Check, fail, note, ok
from ebbflow.doctor.text import read
from ebbflow.errors import EbbflowError
from ebbflow.kernel.btf import VMLINUX, Btf
from ebbflow.kernel.capabilities import CAPABILITIES, mask_in, names_of
from ebbflow.kernel.check import Attempt
from ebbflow.kernel.offsets import offset_flags

# Ring buffers came with 5.8.
OLDEST_KERNEL = (5, 8)
MACHINES = frozenset({"x86_64"})
AS_ROOT = "run it as root: sudo make run"
SETUP = "make setup"
TRACEFS_PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
MOUNT_TRACEFS = "mount -t tracefs tracefs /sys/kernel/tracing"
_ALLOWED_GAPS = 6
NEEDED_PROGRAMS = frozenset({"raw_tracepoint", "tracepoint", "ring_buffer"})
_PARANOID_FOR_ALL = 2


def kernel_version(release: str) -> Check:
    numbers = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    if numbers >= OLDEST_KERNEL:
        return ok("kernel", release, needed=True)
    oldest = ".".join(map(str, OLDEST_KERNEL))
    return fail("kernel", f"{release} has no BPF ring buffer", needed=True, hint=f"boot a kernel of {oldest} or later")


def architecture(machine: str) -> Check:
    if machine in MACHINES:
        return ok("architecture", machine, needed=True)
    return fail("architecture", f"{machine} is not supported", needed=True, hint="run it on an x86_64 machine")


def btf(path: Path = VMLINUX) -> Check:
    """BTF is there, and every struct member that programs read is in it."""
    try:
        types = Btf.load(path)
        offsets = offset_flags(types, {})
    except EbbflowError as error:
        return fail("btf", str(error), needed=True, hint=error.hint)
    count = len(types.starts) - 1
    return ok("btf", f"{count:,} types, all {len(offsets)} offsets found", needed=True, types=count, offsets=offsets)


def tracefs(root: Path) -> Check:
    """Mounted where BCC looks for it; elsewhere it is of no use."""
    places = [fields[1] for fields in _mounts(root) if fields[2] == "tracefs"]
    for place in TRACEFS_PLACES:
        if place in places:
            return ok("tracefs", f"mounted at {place}", needed=True)
    value = f"mounted at {places[0]} only" if places else "not mounted"
    return fail("tracefs", value, needed=True, hint=MOUNT_TRACEFS)


def lockdown(root: Path) -> Check:
    """Of its two levels only confidentiality matters: it forbids programs to read kernel memory."""
    try:
        text = (root / "sys/kernel/security/lockdown").read_text("ascii")
    except OSError:
        return _lockdown_unseen(root)
    level = re.search(r"\[(\w+)\]", text)
    name = level[1] if level else text.strip()
    if name == "confidentiality":
        hint = "boot without lockdown=confidentiality on the kernel's command line"
        return fail("lockdown", f"{name}: programs may not read kernel memory", needed=True, hint=hint)
    return ok("lockdown", name, needed=True)


def _lockdown_unseen(root: Path) -> Check:
    if any(fields[2] == "securityfs" for fields in _mounts(root)):
        return ok("lockdown", "not built into this kernel", needed=True)
    hint = "mount -t securityfs securityfs /sys/kernel/security"
    return note("lockdown", "unknown: securityfs is not mounted", needed=True, hint=hint)


def effective_capabilities(root: Path) -> list[str]:
    """Names without CAP_, from /proc/self/status."""
    return names_of(mask_in(read(root / "proc/self/status")))


def capabilities(effective: Iterable[str]) -> Check:
    have = list(effective)
    value = _capability_text(have)
    if "SYS_ADMIN" in have or {"BPF", "PERFMON"} <= set(have):
        return ok("capabilities", value, needed=True, effective=have)
    return fail(
        "capabilities", f"{value}; needs SYS_ADMIN, or BPF and PERFMON", needed=True, hint=AS_ROOT, effective=have
    )


def _capability_text(have: list[str]) -> str:
    gaps = [name for name in CAPABILITIES if name not in have]
    if not have:
        return "none"
    if not gaps:
        return "all"
    if len(gaps) <= _ALLOWED_GAPS:
        return f"all but {', '.join(gaps)}"
    return ", ".join(have)


def perf_event_paranoid(root: Path, effective: Iterable[str]) -> Check:
    name, text = "perf_event_paranoid", read(root / "proc/sys/kernel/perf_event_paranoid").strip()
    if not text:
        return note(name, "not readable")
    if int(text) > _PARANOID_FOR_ALL and not {"SYS_ADMIN", "PERFMON"} & set(effective):
        hint = f"{AS_ROOT}, or sysctl -w kernel.perf_event_paranoid={_PARANOID_FOR_ALL}"
        return note(name, f"{text}: no profiling without CAP_PERFMON", hint=hint, level=int(text))
    return ok(name, text, level=int(text))


def unprivileged_bpf(root: Path) -> Check:
    name, text = "unprivileged_bpf_disabled", read(root / "proc/sys/kernel/unprivileged_bpf_disabled").strip()
    if text == "0":
        return note(
            name, "0: every user may load programs", hint="sysctl -w kernel.unprivileged_bpf_disabled=2", level=0
        )
    return ok(name, text, level=int(text)) if text else note(name, "not readable")


def headers(root: Path, release: str) -> Check:
    """The headers that BCC compiles with: of this release, those of another linked in their place, or none."""
    if os.environ.get("BCC_KERNEL_SOURCE"):
        return ok("headers", f"{os.environ['BCC_KERNEL_SOURCE']} (BCC_KERNEL_SOURCE)", needed=True)
    build = root / "lib/modules" / release / "build"
    if not (build / "include").exists():
        if (root / "sys/kernel/kheaders.tar.xz").exists():
            return ok("headers", "in the kernel (kheaders)", needed=True, release=release)
        return fail("headers", f"none for {release}", needed=True, hint=SETUP)
    found = _headers_release(build)
    if found in {release, ""}:
        return ok("headers", f"of {release}", needed=True, release=release)
    value = f"of {found}, linked in place of this kernel's: struct offsets come from BTF"
    return note("headers", value, needed=True, release=found)


def _headers_release(build: Path) -> str:
    """What utsrelease.h says; empty where there is none (Debian's own trees always have it)."""
    match = re.search(r'UTS_RELEASE "(.*)"', read(build / "include/generated/utsrelease.h"))
    return match[1] if match else ""


def program(attempt: Attempt, effective: Iterable[str]) -> Check:
    """What became of one kind of program."""
    name, needed = f"program.{attempt.name}", attempt.name in NEEDED_PROGRAMS
    if attempt.ok:
        return ok(name, f"loads and runs ({attempt.detail})", needed=needed)
    hint = _program_hint(attempt, set(effective))
    if needed:
        return fail(name, attempt.detail, needed=True, hint=hint)
    return note(name, f"not available: {attempt.detail}", hint=hint)


def _program_hint(attempt: Attempt, effective: set[str]) -> str:
    if "No module" in attempt.detail or "headers" in attempt.detail:
        return SETUP
    if "SYS_ADMIN" not in effective and not {"BPF", "PERFMON"} <= effective:
        return AS_ROOT
    if attempt.name == "kprobe":
        return "a kernel built with CONFIG_KPROBES=y has them; no part of ebbflow needs them"
    if "/tracing/" in attempt.detail:
        return MOUNT_TRACEFS
    return "see the reason above and docs/doctor.md"


def _mounts(root: Path) -> list[list[str]]:
    lines = read(root / "proc/self/mounts").splitlines()
    return [fields for line in lines if len(fields := line.split()) > 2]  # noqa: PLR2004 - device, place, type
