"""What an address became: a frame of a stack, with the mapping it lies in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class FrameKind(IntEnum):
    """Where a frame's code comes from."""

    UNKNOWN = 0  # in no executable mapping that could be read
    NATIVE = 1  # in a file, or in the vdso
    KERNEL = 2
    JIT = 3  # in executable memory without a file; named by a perf map, or not at all
    INTERPRETED = 4  # a Python function: its trampoline in a perf map, or an interpreter frame


@dataclass(frozen=True, slots=True)
class Mapping:
    """A piece of a file in a process's memory, as OTLP and pprof want it.

    Attributes:
        path: as the process sees it, without " (deleted)"; or "[vdso]", "[heap]", "[anon]", of the kernel
            "[kernel.kallsyms]" or "[MODULE]".
        build_id: hex digits of the GNU build id; empty when there is none or the file could not be read.
        start, limit: first address and the one behind the last.
        offset: of `start` in the file, in bytes.
    """

    path: str
    build_id: str
    start: int
    limit: int
    offset: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stack.

    Attributes:
        function: demangled; empty when unknown.
        address: as sampled. Of a caller it is where the call returns to, which can be the next function's first byte.
        file_address: virtual address in the ELF file (what `addr2line -e FILE` takes); of a caller, of the last byte of
            its call, so that the right function and line are found. 0 without a file.
        file, line: of the function, where a perf map or an interpreter tells it; 0 for no line.
    """

    kind: FrameKind
    function: str
    address: int
    mapping: Mapping | None = None
    file_address: int = 0
    file: str = ""
    line: int = 0
