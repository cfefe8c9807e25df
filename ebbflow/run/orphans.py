"""Processes whose parent was killed: who gets them, and their end. See prctl(2)."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_POLL_S = 0.02


def end_with_parent() -> None:
    """SIGTERM for this process when the thread that started it ends; and `take_orphans`."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    take_orphans()


def take_orphans() -> None:
    """Descendants whose parent ends fall to this process, and not to process 1. Survives execve(2)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def children(pid: int) -> list[int]:
    """Processes whose parent this is now."""
    text = ""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(child) for child in text.split()]


def end_orphans(pid: int, *, keep: Collection[int] = (), timeout_s: float = 1.0) -> int:
    """SIGKILL the children of a process but those to `keep`, and what falls to it from them. How many there were."""
    ended: set[int] = set()
    deadline = time.monotonic() + timeout_s
    while (found := [child for child in children(pid) if child not in keep]) and time.monotonic() < deadline:
        for child in found:
            ended.add(child)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            if pid == os.getpid():
                with suppress(ChildProcessError):
                    os.waitpid(child, 0)
        time.sleep(_POLL_S)
    return len(ended)


def wait_until_gone(pid: int, timeout_s: float) -> None:
    """Return when a process is no more, a child of ours reaped, or the time is over."""
    deadline = time.monotonic() + timeout_s
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(_POLL_S)
