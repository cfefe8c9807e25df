"""What is checked on every kernel, as data: a feature joins by one entry of FEATURES.

Workloads are small, their counts are primes, and what is expected is exact wherever the kernel decides it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from vm import workloads
from vm.results import Check
from vm.workloads import ALLOCATION_BYTES, ALLOCATIONS, BUSY_S, CALLS, COMMANDS, CONNECTIONS, WRITES

ALLOCATED_BYTES = ALLOCATIONS * ALLOCATION_BYTES
GETPPID, MALLOC, DISK_WRITE = 110, 1, 1  # x86-64's number; enum memory_function; enum disk_operation
Workload = Callable[[], object] | Path  # a function, or a program that is told to begin as work.c is


@dataclass(frozen=True, slots=True)
class Seen:
    """One row that a producer published: its kind's name, the row, and the struct behind it, where there is one."""

    kind: str
    row: np.void
    head: np.void | None

    def value(self, name: str) -> Any:
        """A field of the struct, `io.requests` through nested ones; else of the row."""
        first, *rest = name.split(".")
        found: Any = self.head if self.head is not None and first in (self.head.dtype.names or ()) else self.row
        for part in (first, *rest):
            found = found[part]
        return found


@dataclass(frozen=True, slots=True)
class Expected:
    """Rows of a kind, or the sum of a field of their structs, where other fields have these values.

    Attributes:
        exactly: what it must be; None: at least one.
    """

    kind: str
    exactly: int | None
    total: str = ""
    where: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind}.{self.total}" if self.total else self.kind

    def count(self, rows: Iterable[Seen]) -> int:
        chosen = [seen for seen in rows if seen.kind == self.kind and self._fits(seen)]
        return sum(int(seen.value(self.total)) for seen in chosen) if self.total else len(chosen)

    def _fits(self, seen: Seen) -> bool:
        return all(seen.value(name) == wanted for name, wanted in self.where.items())

    def is_met(self, count: int) -> bool:
        return count > 0 if self.exactly is None else count == self.exactly


@dataclass(frozen=True, slots=True)
class Feature:
    """A producer, what its watched process does, and the rows that must come of it."""

    name: str
    does: str
    workload: Workload
    expected: tuple[Expected, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


_SOCKETS = Feature(
    "sockets",
    f"{CONNECTIONS} connections to itself, a request and a response each",
    workloads.exchange,
    (
        Expected("open", 2 * CONNECTIONS),
        Expected("data", 4 * CONNECTIONS),
        Expected("close", 2 * CONNECTIONS),
    ),
)
_TCP = Feature(
    "tcp",
    f"{CONNECTIONS} connections to itself",
    workloads.exchange,
    (Expected("connect", CONNECTIONS), Expected("accept", CONNECTIONS), Expected("close", 2 * CONNECTIONS)),
)
_PROCESS = Feature(
    "process",
    f"{COMMANDS} commands, one after the other",
    workloads.run_commands,
    (Expected("fork", COMMANDS), Expected("exec", COMMANDS), Expected("exit", COMMANDS)),
)
_SYSCALLS = Feature(
    "syscalls",
    f"{CALLS:,} calls of getppid",
    workloads.call_kernel,
    (Expected("total", CALLS, "calls", {"number": GETPPID}),),
)
_CPU = Feature(
    "cpu",
    f"{BUSY_S:g} s of work",
    workloads.burn,
    (Expected("sample", None),),
)
_MEMORY = Feature(
    "memory",
    f"{ALLOCATIONS:,} calls of malloc, {ALLOCATION_BYTES:,} bytes each",
    workloads.PROGRAM,
    (
        Expected("calls", ALLOCATIONS, "calls", {"function": MALLOC}),
        Expected("calls", ALLOCATED_BYTES, "bytes", {"function": MALLOC}),
        Expected("stack", None, where={"allocated": ALLOCATIONS, "allocated_bytes": ALLOCATED_BYTES}),
    ),
    {"memory.sampling": 1},
)
_DISK = Feature(
    "disk",
    f"{WRITES} blocks of 4 KiB written past the cache",
    workloads.write_blocks,
    (Expected("process", WRITES, "io.requests", {"io.operation": DISK_WRITE}),),
)
FEATURES = {feature.name: feature for feature in (_SOCKETS, _TCP, _PROCESS, _SYSCALLS, _CPU, _MEMORY, _DISK)}

# (kernel's series, name of the check): why it fails there, where nobody can mend it.
LIMITS: Mapping[tuple[str, str], str] = {}


def is_known(series: str, check: Check) -> bool:
    """Whether a check that failed is a known limit of that kernel."""
    return (series, check.name) in LIMITS


def measure(feature: Feature, rows: Iterable[Seen]) -> tuple[bool, str]:
    """Whether anything is not as expected, and all counts in words."""
    rows = list(rows)
    counts = [(expected, expected.count(rows)) for expected in feature.expected]
    words = (
        f"{expected} {count}" if expected.is_met(count) else f"{expected} {count}, not {expected.exactly or 'any'}"
        for expected, count in counts
    )
    return any(not expected.is_met(count) for expected, count in counts), "; ".join(words)
