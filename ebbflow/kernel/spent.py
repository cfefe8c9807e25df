"""CPU time of a program's functions, where the kernel measures it."""

from __future__ import annotations

from ebbflow.kernel.loader import Program
from ebbflow.kernel.objects import always_counting


def measured_time_ns(program: Program) -> int | None:
    """Since it was loaded, as far as the kernel measured; None while kernel.bpf_stats_enabled is not 1."""
    return sum(function.run_time_ns for function in program.programs()) if always_counting() else None
