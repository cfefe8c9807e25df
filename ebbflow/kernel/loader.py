"""Compiles, loads, attaches and unloads one BPF program file through BCC.

BCC writes what clang and the verifier say to file descriptor 2, and raises exceptions without it. Both are caught here
and become one error with the lines that matter.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ebbflow.errors import DependencyError, KernelError, PermissionDenied, ProgramRefused

_CAP_SYS_ADMIN, _CAP_PERFMON, _CAP_BPF = 21, 38, 39
_LOG_LINES = 6


def effective_capabilities(status: str) -> int:
    """The CapEff mask from the text of /proc/PID/status."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def require_capabilities(capabilities: int) -> None:
    """Say which capability is missing before the kernel says only EPERM.

    Raises:
        PermissionDenied: neither CAP_SYS_ADMIN nor CAP_BPF with CAP_PERFMON.
    """
    if capabilities >> _CAP_SYS_ADMIN & 1:
        return
    missing = [
        name for bit, name in ((_CAP_BPF, "CAP_BPF"), (_CAP_PERFMON, "CAP_PERFMON")) if not capabilities >> bit & 1
    ]
    if missing:
        raise PermissionDenied(
            f"loading BPF programs needs CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON: {' and '.join(missing)} missing",
            hint="run it as root: sudo ebbflow …",
        )


def _bcc() -> Any:
    try:
        import bcc  # noqa: PLC0415 - Debian's package, absent from most development machines
    except ImportError as error:
        raise DependencyError(
            f"BCC's Python module cannot be imported: {error}",
            hint="run `make setup` (Debian's python3-bpfcc, in a venv of /usr/bin/python3)",
        ) from None
    return bcc


@contextmanager
def _stderr_to(log: Any) -> Iterator[None]:
    """Send file descriptor 2 to a file: the messages come from C."""
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)


def _refusal(source: Path, step: str, log: str, error: Exception) -> KernelError:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if "kernel headers" in log.lower() or "modprobe" in log:
        return DependencyError(  # type: ignore[return-value]
            f"{source.name}: no kernel headers for BCC to compile with",
            hint="run `make setup`, which installs or links the nearest headers",
        )
    errors = [line for line in lines if "error:" in line] or lines[-_LOG_LINES:] or [str(error)]
    return ProgramRefused(
        f"{source.name}: {step}: {' | '.join(errors[-_LOG_LINES:])}",
        hint="run `ebbflow doctor` to see what this kernel allows",
    )


class Program:
    """One compiled source file with its maps and attached functions.

    Args:
        source: the .c file; headers beside it are found.
        definitions: names and values passed as -D.

    Raises:
        PermissionDenied, DependencyError, ProgramRefused
    """

    def __init__(self, source: Path, definitions: Mapping[str, int]) -> None:
        require_capabilities(effective_capabilities(Path("/proc/self/status").read_text("ascii")))
        self.source = source
        self._bcc = _bcc()
        flags = [f"-I{source.parent.resolve()}", "-Wno-everything"]
        flags += [f"-D{name}={value}" for name, value in definitions.items()]
        self._bpf: Any = self._call("compile", self._bcc.BPF, src_file=bytes(source), cflags=flags)

    def _call(self, step: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        with tempfile.TemporaryFile("w+") as log:
            try:
                with _stderr_to(log):
                    return function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - BCC raises bare Exception
                log.seek(0)
                raise _refusal(self.source, step, log.read(), error) from None

    def attach_raw_tracepoint(self, tracepoint: str, function: str) -> None:
        self._load(function)
        self._call("attach", self._bpf.attach_raw_tracepoint, tp=tracepoint.encode(), fn_name=function.encode())

    def set_tail(self, table: str, index: int, function: str) -> None:
        """Make `function` the target of tail calls to `index` of a program array."""
        self._bpf[table.encode()][ctypes.c_int(index)] = ctypes.c_int(self._load(function).fd)

    def _load(self, function: str) -> Any:
        return self._call("load", self._bpf.load_func, function.encode(), self._bcc.BPF.RAW_TRACEPOINT)

    def map(self, name: str) -> Any:
        """BCC's table object."""
        return self._bpf[name.encode()]

    def recursion_misses(self) -> int:
        """Times a function of this program was skipped because one already ran on that CPU."""
        misses = 0
        for function in self._bpf.funcs.values():
            for line in Path(f"/proc/self/fdinfo/{function.fd}").read_text("ascii").splitlines():
                if line.startswith("recursion_misses:"):
                    misses += int(line.split()[1])
        return misses

    def detach(self) -> None:
        """Take every function off its hook; maps can still be read."""
        for tracepoint in list(self._bpf.raw_tracepoint_fds):
            self._bpf.detach_raw_tracepoint(tracepoint)
        for tracepoint in list(self._bpf.tracepoint_fds):
            self._bpf.detach_tracepoint(tracepoint)

    def close(self) -> None:
        """Detach and unload everything; the kernel frees it when the last descriptor goes."""
        self._bpf.cleanup()


def tracepoint_has(category: str, event: str, field: str, tracefs: Path = Path("/sys/kernel/tracing")) -> bool:
    """Whether this kernel's tracepoint has that field.

    Raises:
        KernelError: the tracepoint is not there, or tracefs is not mounted.
    """
    path = tracefs / "events" / category / event / "format"
    try:
        text = path.read_text("ascii")
    except PermissionError:
        raise PermissionDenied(f"{path} cannot be read", hint="run it as root: sudo ebbflow …") from None
    except OSError:
        raise KernelError(
            f"tracepoint {category}:{event} is not in {tracefs}",
            hint=f"mount -t tracefs tracefs {tracefs}",
        ) from None
    return f" {field};" in text
