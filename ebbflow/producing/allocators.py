"""Which functions of which files give memory to a process.

A process's allocator is its C library, or a library that is put before it (jemalloc, tcmalloc, mimalloc), or part of
the executable itself when that is linked statically. All of these that a process maps are probed; a call inside another
one is counted once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ebbflow.kernel.libraries import MappedFile

# glibc, musl, and what is made to take their place.
_LIBRARIES = re.compile(r"(libc[.-].*so|ld-musl-|libc\.musl-|libjemalloc|libtcmalloc|libmimalloc|libtbbmalloc)")


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


def candidates(files: Iterable[MappedFile], executable: str) -> list[MappedFile]:
    """Those of a process's files that may hold an allocator.

    `executable` is the path of the program itself, which may have one built in.
    """
    return [file for file in files if file.path == executable or _LIBRARIES.match(Path(file.path).name)]


def hooks_of(functions: Iterable[str]) -> list[Hook]:
    """The hooks for a file that defines these functions; none when it is no allocator."""
    names = set(functions)
    return [hook for hook in HOOKS if hook.symbol in names] if names >= REQUIRED else []
