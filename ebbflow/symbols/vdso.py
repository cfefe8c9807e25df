"""The vdso: a small ELF file that the kernel maps into every process, the same for all of one kind.

It is in no file system, so this process's own is read. 32-bit programs have another one, of another size.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

from ebbflow.symbols.binaries import NOT_ELF, Binary, read_binary
from ebbflow.symbols.files import MemorySource
from ebbflow.symbols.mappings import read_areas


@cache
def read_vdso(size_bytes: int, own: Path = Path("/proc/self")) -> Binary:
    """The vdso with its functions; not an ELF file when this process's has another size, or none can be read."""
    areas = read_areas(own)
    area = areas.at_path("[vdso]") if areas is not None else None
    if area is None or area.limit - area.start != size_bytes:
        return NOT_ELF
    try:
        with (own / "mem").open("rb", buffering=0) as memory:
            memory.seek(area.start)
            return read_binary(MemorySource(memory.read(size_bytes)), (), Counter())
    except OSError:
        return NOT_ELF
