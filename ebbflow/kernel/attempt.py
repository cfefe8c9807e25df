"""The child process of `ebbflow.kernel.check`: loads and fires one tiny program of each kind that it is told to.

BCC is C++ in this very process: it writes to file descriptor 2, may call exit() and may crash. So it is tried here,
where only this process ends. Run by path, with bcc and the standard library only.

    attempt.py PROGRAM_FILE LOG NAME...      stdout, a line each: {"name", "ok", "detail", "log"}

What BCC and clang write goes to LOG, which holds the present attempt's words only: they are what is left of a crash.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

CALLS = 50
_BURN_NS = 50_000_000
_RING_POLL_MS = 100


class Attempts:
    """Everything that can be tried, one method each; each returns how often its program ran."""

    def __init__(self, source: Path, bcc: Any) -> None:
        self._source = source
        self._bcc = bcc
        self._plain: Any = None

    def raw_tracepoint(self) -> int:
        bpf = self._common()
        bpf.attach_raw_tracepoint(tp="sys_enter", fn_name="on_raw_tracepoint")
        try:
            return self._count(bpf)
        finally:
            bpf.detach_raw_tracepoint(tp="sys_enter")

    def tracepoint(self) -> int:
        return self._count(self._compile("-DCHECK_TRACEPOINT"))

    def ring_buffer(self) -> int:
        bpf = self._compile("-DCHECK_RING_BUFFER")
        received = []
        bpf["ring"].open_ring_buffer(lambda _context, data, _size: received.append(data))
        bpf.attach_raw_tracepoint(tp="sys_enter", fn_name="to_ring")
        try:
            _make_calls()
            bpf.ring_buffer_poll(_RING_POLL_MS)
        finally:
            bpf.detach_raw_tracepoint(tp="sys_enter")
        return len(received)

    def uprobe(self) -> int:
        bpf, libc = self._common(), _libc()
        bpf.attach_uprobe(name=libc, sym="getppid", fn_name="on_probe", pid=os.getpid())
        try:
            return self._count(bpf)
        finally:
            bpf.detach_uprobe(name=libc, sym="getppid", pid=os.getpid())

    def usdt(self) -> int:
        probes = self._bcc.USDT(pid=os.getpid())
        probes.enable_probe(probe="python:gc__start", fn_name="on_probe")
        bpf = self._compile(usdt_contexts=[probes])
        return self._count(bpf, gc.collect)

    def perf_event(self) -> int:
        bpf, kind, event = self._common(), self._bcc.PerfType.SOFTWARE, self._bcc.PerfSWConfig.CPU_CLOCK
        bpf.attach_perf_event(ev_type=kind, ev_config=event, fn_name="on_sample", sample_freq=999, pid=os.getpid())
        try:
            return self._count(bpf, _burn)
        finally:
            bpf.detach_perf_event(ev_type=kind, ev_config=event)

    def kprobe(self) -> int:
        bpf = self._common()
        event = bpf.get_syscall_fnname("getppid")
        bpf.attach_kprobe(event=event, fn_name="on_probe")
        try:
            return self._count(bpf)
        finally:
            bpf.detach_kprobe(event=event, fn_name="on_probe")

    def _common(self) -> Any:
        """The one program file that several attempts share: compiling is what takes time."""
        self._plain = self._plain or self._compile()
        return self._plain

    def _compile(self, *flags: str, **options: Any) -> Any:
        cflags = [f"-DCHECK_PID={os.getpid()}", "-Wno-everything", *flags]
        return self._bcc.BPF(src_file=str(self._source), cflags=cflags, **options)

    def _count(self, bpf: Any, work: Callable[[], object] | None = None) -> int:
        bpf["hits"][ctypes.c_int(0)] = ctypes.c_uint64(0)
        (work or _make_calls)()
        return int(bpf["hits"][ctypes.c_int(0)].value)


def _make_calls() -> None:
    for _ in range(CALLS):
        os.getppid()


def _burn() -> None:
    end = time.monotonic_ns() + _BURN_NS
    while time.monotonic_ns() < end:
        pass


def _libc() -> str:
    """Path of the C library of this process."""
    maps = Path("/proc/self/maps").read_text("utf-8").splitlines()
    return next(line.split()[5] for line in maps if "/libc.so" in line or "/libc-" in line or "/ld-musl" in line)


def main(source: str, log: str, *names: str) -> None:
    """Try each, in the order given, and report each at once: the next may end the process."""
    descriptor = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 2)
    try:
        bcc = import_module("bcc")
    except ImportError as error:
        for name in names:
            report(name, ok=False, detail=f"BCC's Python module: {error}")
        return
    attempts = Attempts(Path(source), bcc)
    for name in names:
        os.ftruncate(descriptor, 0)
        _try(name, getattr(attempts, name), Path(log))


def _try(name: str, attempt: Callable[[], int], log: Path) -> None:
    try:
        hits = attempt()
    except Exception as error:  # noqa: BLE001 - BCC raises bare Exception
        sys.stderr.flush()
        report(name, ok=False, detail=str(error), log=log.read_text("utf-8", "replace"))
    else:
        report(name, ok=hits > 0, detail=f"{hits} hits" if hits else "loads, but never ran")


def report(name: str, *, ok: bool, detail: str, log: str = "") -> None:
    sys.stdout.write(json.dumps({"name": name, "ok": ok, "detail": detail, "log": log}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
