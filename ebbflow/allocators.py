"""Which functions of which files give memory to a process.

A process's allocator is its C library, or a library that is put before it (jemalloc, tcmalloc, mimalloc), or part of
the executable itself when that is linked statically. All that a process maps are probed; a call inside another one is
counted once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ebbflow.symbols.mappings import Area, Backing

# glibc, musl, and what is made to take their place.
_LIBRARIES = re.compile(r"(libc[.-].*so|ld-musl-|libc\.musl-|libjemalloc|libtcmalloc|libmimalloc|libtbbmalloc)")
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Hook:
    """A function, what runs at its entry, and what at its return, if anything."""

    symbol: str
    entry: str
    leave: str = ""


# posix_memalign, aligned_alloc and memalign share what runs at their return.
HOOKS = (
    Hook("malloc", "memory_malloc", "memory_malloc_return"),
    Hook("calloc", "memory_calloc", "memory_calloc_return"),
    Hook("realloc", "memory_realloc", "memory_realloc_return"),
    Hook("posix_memalign", "memory_posix_memalign", "memory_aligned_return"),
    Hook("aligned_alloc", "memory_aligned", "memory_aligned_return"),
    Hook("memalign", "memory_aligned", "memory_aligned_return"),
    Hook("mmap", "memory_mmap", "memory_mmap_return"),
    Hook("free", "memory_free"),
    Hook("munmap", "memory_munmap"),
)
# Without these a file is no allocator.
REQUIRED = frozenset({"malloc", "free"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may hold an allocator.

    Attributes:
        place: what it is, whatever its name: device and inode.
        path: as the process sees it.
        start, limit: of one mapping of it, by which it can be opened when the path is gone.
    """

    place: Place
    path: str
    start: int
    limit: int

    def files(self, proc: Path, pid: int) -> Iterator[Path]:
        """Where to open it, best first: its path as the process sees it, or the mapping itself."""
        yield proc / str(pid) / "root" / self.path.lstrip("/")
        yield proc / str(pid) / "map_files" / f"{self.start:x}-{self.limit:x}"


def candidates(areas: Iterable[Area], executable: str) -> list[Candidate]:
    """Files among a process's executable mappings that may hold an allocator, each once.

    `executable` is the path of the program itself, which may have one built in.
    """
    found = {
        (area.device, area.inode): Candidate((area.device, area.inode), area.path, area.start, area.limit)
        for area in areas
        if area.backing is Backing.FILE and (area.path == executable or _LIBRARIES.match(Path(area.path).name))
    }
    return list(found.values())


def hooks_of(functions: Iterable[str]) -> list[Hook]:
    """The hooks for a file that defines these functions; none when it is no allocator."""
    names = set(functions)
    return [hook for hook in HOOKS if hook.symbol in names] if names >= REQUIRED else []
