"""Symbols that are not in the program itself: .gnu_debugdata, and debug files found by build id.

- `.gnu_debugdata` (Fedora's MiniDebugInfo): a section with an xz stream of an ELF file whose .symtab holds what .dynsym
  lacks.
- `/usr/lib/debug/.build-id/ab/cdef….debug` (Debian's -dbg and -dbgsym packages): first in the process's own root, then
  on the host. A file counts only when its own build id is the same.

.gnu_debuglink (a file name without a proof that it belongs to the program) and debuginfod are not used.
"""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from pathlib import Path

from ebbflow.symbols.elf import SYMTAB, Elf, ElfInvalid, RawSymbols, parse_elf
from ebbflow.symbols.files import MemorySource, open_in_root

_MAX_PACKED_BYTES = 16 << 20
_MAX_UNPACKED_BYTES = 64 << 20
_MAX_DECODER_BYTES = 80 << 20  # xz -9 needs 65 MiB to unpack
_SHORTEST_BUILD_ID = 8  # hex digits


def embedded_symbols(elf: Elf) -> RawSymbols | None:
    """The symbol table inside .gnu_debugdata.

    Raises:
        ElfInvalid: there is one that is damaged or larger than 64 MiB.
    """
    section = elf.section(".gnu_debugdata")
    if section is None:
        return None
    packed = elf.contents(section, _MAX_PACKED_BYTES)
    return parse_elf(MemorySource(unpack(packed))).symbols(SYMTAB)


def unpack(packed: bytes, limit_bytes: int = _MAX_UNPACKED_BYTES) -> bytes:
    """Undo xz.

    Raises:
        ElfInvalid: not an xz stream, cut off, or more than `limit_bytes`.
    """
    try:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_DECODER_BYTES)
        data = decoder.decompress(packed, limit_bytes)
    except (lzma.LZMAError, EOFError, MemoryError) as error:
        raise ElfInvalid(f".gnu_debugdata is damaged: {error}") from None
    if not decoder.eof:
        raise ElfInvalid(".gnu_debugdata is cut off or too large")
    return data


def separate_symbols(build_id: str, roots: Sequence[Path]) -> RawSymbols | None:
    """The symbol table of the debug file with this build id, from the first root directory that has one.

    Raises:
        ElfInvalid: what stands there is damaged, or has another build id.
    """
    if len(build_id) < _SHORTEST_BUILD_ID:
        return None
    path = f"/usr/lib/debug/.build-id/{build_id[:2]}/{build_id[2:]}.debug"
    for root in roots:
        file = open_in_root(root, path)
        if file is None:
            continue
        with file:
            elf = parse_elf(file)
            if elf.build_id != build_id:
                raise ElfInvalid("a debug file has another build id than its name says")
            return elf.symbols(SYMTAB)
    return None
