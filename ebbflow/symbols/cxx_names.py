"""C++ names (Itanium ABI) by libstdc++'s `__cxa_demangle`, in a process of its own.

Mangled names come from files of the programs that are watched, and substitutions let one of 300 bytes expand to
gigabytes (each `S_` may double what stands before it). So a helper process without rights demangles, with bounded
memory and time: it is started with the first C++ name, ended by `close` or the end of its input, and replaced, not too
often, when a name kills it. That name stays as it is.

Lines go both ways: a mangled name in; the demangled one, or an empty line, out.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

MAX_NAME_BYTES = 4096
MAX_OUTPUT_BYTES = 1 << 16
_ANSWER_S = 1.0
_REST_S = 10.0  # after a helper that died
_MEMORY_BYTES = 256 << 20

# Run as `python -I -S -c`: libstdc++ is loaded with the caller's rights, then they are given up.
_HELPER = f"""
import ctypes, os, resource, sys
libc = ctypes.CDLL(None)
libc.free.argtypes = [ctypes.c_void_p]
demangle = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
demangle.argtypes = [ctypes.c_char_p] + 3 * [ctypes.c_void_p]
demangle.restype = ctypes.c_void_p
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
try:
    os.setgroups([]), os.setresgid(*3 * [65534]), os.setresuid(*3 * [65534])
except OSError:
    pass  # not root
libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())  # what root without setuid still has
resource.setrlimit(resource.RLIMIT_AS, 2 * [{_MEMORY_BYTES}])
resource.setrlimit(resource.RLIMIT_NOFILE, [0, 0])
while line := sys.stdin.buffer.readline({MAX_NAME_BYTES} + 1):
    found = demangle(line[:-1], None, None, None)
    text = ctypes.string_at(found)[:{MAX_OUTPUT_BYTES}] if found else b""
    libc.free(found)
    os.write(1, text.replace(b"\\n", b" ") + b"\\n")
"""


class CxxNames:
    """The helper process; `troubles` counts what it could not do."""

    def __init__(self, troubles: Counter[str], *, now: Callable[[], float] = time.monotonic) -> None:
        self._troubles, self._now = troubles, now
        self._helper: subprocess.Popen[bytes] | None = None
        self._rest_until_s = 0.0

    def demangle(self, name: str) -> str:
        """The demangled name, or the name as it is when it is not one of C++ or the helper fails."""
        line = name.encode("utf-8", "replace")
        if len(line) >= MAX_NAME_BYTES or b"\n" in line or b"\0" in line:
            return name
        helper = self._running()
        if helper is None:
            return name
        answer = _ask(helper, line + b"\n", self._now)
        if answer is None:
            self._troubles["demangler_failed"] += 1
            self._rest_until_s = self._now() + _REST_S
            self.close()
        return answer.decode("utf-8", "replace") if answer else name

    def close(self) -> None:
        """End the helper, if it runs."""
        helper, self._helper = self._helper, None
        if helper is None:
            return
        helper.kill()
        for pipe in (helper.stdin, helper.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        helper.wait()

    def _running(self) -> subprocess.Popen[bytes] | None:
        if self._helper is None and self._now() >= self._rest_until_s:
            try:
                self._helper = _start()
            except OSError:
                self._troubles["demangler_failed"] += 1
                self._rest_until_s = self._now() + _REST_S
        return self._helper


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _HELPER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )


def _ask(helper: subprocess.Popen[bytes], line: bytes, now: Callable[[], float]) -> bytes | None:
    """Write a line, read a line; None when the helper is dead or takes too long."""
    if helper.stdin is None or helper.stdout is None:
        return None
    answer, until_s = b"", now() + _ANSWER_S
    try:
        helper.stdin.write(line)
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([helper.stdout], [], [], max(0.0, until_s - now()))
            part = os.read(helper.stdout.fileno(), MAX_OUTPUT_BYTES) if ready else b""
            if not part:
                return None
            answer += part
    except OSError:
        return None
    return answer[:-1]
