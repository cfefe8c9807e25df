"""What clang, BCC and the verifier write when they refuse a program, made into one error with the lines that matter.

The verifier quotes line information as `; text @ FILE:LINE` (kernels before 6.7 without the place) before the
instructions of a line; the last one before its verdict is where the program was refused.
"""

from __future__ import annotations

import errno
import os
import re

from ebbflow.errors import DependencyError, EbbflowError, PermissionDenied, ProgramRefused
from ebbflow.kernel.source import EXTERN_TYPE, SourceText

LOG_LINES = 6
_PLACE = re.compile(r"^; (?P<text>.*) @ (?P<file>[^:]+):(?P<line>\d+)$")
_QUOTE = re.compile(r"^; (?P<text>.+)$")
_VERIFIED = re.compile(r"^processed (\d+) insns")
_NOT_ERRORS = re.compile(r"^(HINT:|processed \d+|bpf: |mark_precise|stack depth|verification time)")
_DOCTOR = "run `ebbflow doctor` to see what this kernel allows"
_OWNER_FIRST = "load the program that owns the shared table first, and close it last"
# What the verifier says, and what usually helps. The first that is found counts.
_CURES = (
    (r"map_value_or_null|_or_null'", "check the pointer for NULL before it is used: a lookup can find nothing"),
    (r"back-edge|infinite loop", "bound the loop by a constant, unroll it, or use bpf_loop() where the kernel has it"),
    (r"too large|too many (?:instructions|states)|jumps is too complex|BPF program is too large",
     "fewer instructions: unroll less, or split the program with tail calls"),
    (r"combined stack size|stack limit|invalid (?:indirect )?(?:read|write|access).* stack|invalid stack",
     "keep within 512 bytes of stack, and set every byte before it is read: scratch space belongs in a per-CPU array"),
    (r"invalid access to map value|outside of the (?:allowed memory|array)|invalid access to packet|out of bounds",
     "bound the index or the length before it is used: compare it, or mask it with & (SIZE - 1)"),
    (r"unbounded memory|R\d+ min value is negative|unbounded (?:variable|min)",
     "bound the length: make it unsigned, compare it with a constant, and use that very variable"),
    (r"!read_ok|invalid size of register", "set the variable on every path before it is read"),
    (r"invalid mem access 'scalar'|invalid mem access 'inv'",
     "a kernel or user address is read with bpf_probe_read_kernel() or bpf_probe_read_user(), never followed"),
    (r"unknown func|invalid func|cannot call|helper call is not allowed|program of this type cannot use helper",
     "this kernel does not allow the helper in this type of program"),
    (r"unreachable insn|jump out of range", "a branch leads nowhere: look for code after a return"),
    (r"reference leak|Unreleased reference", "submit or discard what was reserved on every path"),
)  # fmt: skip


def refusal(source: SourceText, name: str, step: str, log: str, reason: str) -> EbbflowError:
    """The error to raise when a step failed.

    Args:
        source: for the text of the line.
        name: what was refused: the file, and the function if it is known.
        step: compile, load.
        log: all that was written.
        reason: the exception's own words.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if "kernel headers" in log.lower() or "modprobe" in log:
        return DependencyError(
            f"{name}: no kernel headers for BCC to compile with",
            hint="run `make setup`, which installs or links the nearest headers",
        )
    errors = [line for line in lines if "error:" in line]
    if errors:
        return ProgramRefused(
            f"{name}: {step}: {' | '.join(errors[:LOG_LINES])}{_quoted(source, errors[0])}",
            hint=_OWNER_FIRST if EXTERN_TYPE in log else _DOCTOR,
        )
    verified = any(_VERIFIED.match(line) for line in lines)
    if not verified and ("privileges" in reason or "Operation not permitted" in log + reason):
        return not_permitted(name, step)
    if os.strerror(errno.E2BIG) in reason:  # then BCC keeps the log to itself
        lines.append("the program is too large: the verifier gave up after 1,000,000 instructions")
    return ProgramRefused(f"{name}: {step}: {_verdict(source, lines, reason)}", hint=_cure(lines))


def not_permitted(name: str, step: str) -> PermissionDenied:
    return PermissionDenied(
        f"{name}: {step}: the kernel does not permit it (EPERM), although the capabilities are there",
        hint="lockdown or a security module forbids it: see `ebbflow doctor` and /sys/kernel/security/lockdown",
    )


def _quoted(source: SourceText, error: str) -> str:
    """The source line of a compiler's error: FILE:LINE:COLUMN: error: …"""
    place = re.match(r"([^:]+):(\d+):\d+: ", error)
    text = source.line(place[1], int(place[2])) if place else ""
    return f" | in `{text}`" if text else ""


def _verdict(source: SourceText, lines: list[str], reason: str) -> str:
    said = [line for line in lines if not _NOT_ERRORS.match(line)] or [reason]
    tail = " | ".join(said[-LOG_LINES:])
    where = source_line(source, lines)
    return f"at {where}: {tail}" if where else tail


def source_line(source: SourceText, lines: list[str]) -> str:
    """`file:line: text` of the last place that the verifier's log names; line 0 is clang's for nowhere."""
    for line in reversed(lines):
        place = _PLACE.match(line)
        if place and place["line"] != "0":
            text = source.line(place["file"], int(place["line"])) or place["text"].strip()
            return f"{place['file']}:{place['line']}: `{text}`"
        quote = None if place else _QUOTE.match(line)
        if quote:
            return f"`{quote['text']}`"
    return ""


def _cure(lines: list[str]) -> str:
    # The verdict stands at the end; the same words further up may belong to a path that was fine.
    for text in reversed(lines[-LOG_LINES:]):
        for pattern, cure in _CURES:
            if re.search(pattern, text):
                return cure
    return _DOCTOR
