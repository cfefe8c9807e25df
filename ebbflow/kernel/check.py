"""Which kinds of BPF programs this kernel and these rights allow: each is compiled, loaded, attached and fired.

BCC may end or crash its process, so the attempts run in a child (`attempt.py`), which reports each as it is done. A
child that dies, or does not answer in time, fails the attempt it was at; the rest go to another child.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from ebbflow.kernel.layout import BPF_DIRECTORY

MECHANISMS = ("raw_tracepoint", "tracepoint", "ring_buffer", "uprobe", "usdt", "perf_event", "kprobe")
TIMEOUT_S = 60.0
_DETAIL_LENGTH = 300
_SYSTEM_ERRORS = tuple(os.strerror(number) for number in errno.errorcode)
Command = Callable[[Path, Sequence[str]], list[str]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One kind of program: whether it loaded and ran; `detail` is the count, or the reason in one line."""

    name: str
    ok: bool
    detail: str


def child_command(log: Path, names: Sequence[str]) -> list[str]:
    """-P: the folder of attempt.py must not become part of the module path."""
    script = Path(__file__).with_name("attempt.py")
    return [sys.executable, "-P", str(script), str(BPF_DIRECTORY / "check.c"), str(log), *names]


def try_programs(
    names: Sequence[str] = MECHANISMS, *, timeout_s: float = TIMEOUT_S, command: Command = child_command
) -> list[Attempt]:
    """Try kinds of programs, in order; never raises for what the kernel, clang or BCC do.

    Args:
        names: of MECHANISMS.
        timeout_s: for one child; with one child for all, usually about two seconds are needed.
        command: how to run the child for a log file and names.
    """
    attempts: list[Attempt] = []
    while left := names[len(attempts) :]:
        done, end = _run_child(command, left, timeout_s)
        attempts += done
        if len(done) < len(left):
            attempts.append(Attempt(left[len(done)], ok=False, detail=end))
    return attempts


def _run_child(command: Command, names: Sequence[str], timeout_s: float) -> tuple[list[Attempt], str]:
    """What one child reported, and how it ended."""
    with tempfile.TemporaryDirectory(prefix="ebbflow-check-") as folder:
        log = Path(folder) / "log"
        process = subprocess.Popen(
            command(log, names), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            output, _ = process.communicate(timeout=timeout_s)
            end = _ending(process.returncode)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            end = f"no answer in {timeout_s:g} s"
        words = one_line("", log.read_text("utf-8", "replace") if log.exists() else "")
    return parse_reports(output), f"{end}: {words}" if words else end


def parse_reports(output: bytes) -> list[Attempt]:
    """The child's complete lines; a library may have written others between them."""
    attempts = []
    for line in output.split(b"\n")[:-1]:
        try:
            report = orjson.loads(line)
            detail = report["detail"] if report["ok"] else one_line(report["detail"], report["log"])
            attempts.append(Attempt(report["name"], report["ok"], detail))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            continue
    return attempts


def one_line(detail: str, log: str) -> str:
    """The reason for people: clang's first error, else the log's last system error, else the exception."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    compiler = [line.partition("error: ")[2] for line in lines if "error: " in line]
    system = [line for line in lines if line.endswith(_SYSTEM_ERRORS)]
    if "Unable to find kernel headers" in log:
        text = "no kernel headers to compile with"
    else:
        text = next(iter([*compiler, *reversed(system), *filter(None, [detail]), *reversed(lines)]), "")
    return re.sub(r"\bb'([^']*)'", r"\1", text)[:_DETAIL_LENGTH]


def _ending(status: int) -> str:
    if status < 0:
        return f"crashed with {signal.Signals(-status).name}"
    return f"ended with status {status}" if status != os.EX_OK else "ended without an answer"
