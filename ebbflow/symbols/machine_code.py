"""What x86-64 machine code tells that no symbol table holds. On other machines nothing is read.

- Stubs of the procedure linkage table, named `FUNCTION@plt`: each ends in `jmp *DISPLACEMENT(%rip)` (ff 25) through a
  slot of the global offset table, and a relocation names the slot's function. So every layout is read alike: classic
  .plt (the jump comes first), .plt.sec of IBT (behind endbr64), bnd, .plt.got.
- Where glibc calls `main` and a thread's function. Both call sites are in local functions, which a stripped libc does
  not name; they are where every complete stack ends.
- Whether functions set up frame pointers: by the share of them that have `mov %rsp,%rbp` near their beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ebbflow.symbols.elf import DYNSYM, MACHINE_X86_64, RELA, Elf, RawSymbols, name_at
from ebbflow.symbols.symbol_table import Stub, SymbolTable

_PLT_SECTIONS = (".plt", ".plt.sec", ".plt.got")
_PLT_ENTRY_BYTES = {".plt": 16, ".plt.sec": 16, ".plt.got": 8}
_JUMP = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?\xf2?\xff\x25", re.DOTALL)
_MAX_PLT_BYTES = 4 << 20
_MAX_RELOCATIONS = 1 << 16
_GLOB_DAT, _JUMP_SLOT = 6, 7  # R_X86_64_*

# call *%rax; mov %eax,%edi; call exit: only __libc_start_call_main ends so (glibc 2.34 on; csu, sysdeps/nptl).
_CALL_MAIN = re.compile(rb"\xff\xd0\x89\xc7\xe8(....)", re.DOTALL)
_CALL_MAIN_BEFORE_BYTES = 0x200
# call *0x638(%rbx) and the like: pd->start_routine, in start_thread, which precedes pthread_create (nptl).
_CALL_ROUTINE = re.compile(rb"\xff[\x90\x91\x92\x93\x95\x96\x97].[\x04-\x0a]\0\0", re.DOTALL)
_CALL_ROUTINE_BEFORE_BYTES = 0x600

# mov %rsp,%rbp in both encodings; lea DISPLACEMENT(%rsp),%rbp as Go did before 1.21.
_SET_UP = re.compile(rb"\x48\x89\xe5|\x48\x8b\xec|\x48\x8d\x6c\x24")
_SET_UP_WITHIN_BYTES = 64
_FUNCTIONS_TRIED = 256
_FEWEST_FUNCTIONS = 8


def find_stubs(elf: Elf) -> list[Stub]:
    """Stubs of the procedure linkage table, and glibc's call sites when its own symbols are stripped."""
    dynamic = elf.symbols(DYNSYM) if elf.machine == MACHINE_X86_64 and elf.bits == 64 else None  # noqa: PLR2004
    if dynamic is None:
        return []
    return [*_linkage_stubs(elf, dynamic), *_start_sites(elf, dynamic)]


def frame_pointer_share(elf: Elf, table: SymbolTable) -> float | None:
    """Share (0 to 1) of a file's functions that set up a frame pointer; None where there is nothing to judge by.

    Looked at are the first 64 bytes of evenly chosen functions that are at least that long: shorter ones often call
    nothing and need none. Functions that set it up later (shrink-wrapping) count as without.
    """
    if elf.machine != MACHINE_X86_64:
        return None
    starts = table.starts[table.limits - table.starts >= _SET_UP_WITHIN_BYTES]
    if len(starts) < _FEWEST_FUNCTIONS:
        return None
    chosen = starts[:: max(1, len(starts) // _FUNCTIONS_TRIED)]
    found = sum(_SET_UP.search(elf.code_at(int(start), _SET_UP_WITHIN_BYTES)) is not None for start in chosen)
    return found / len(chosen)


def _linkage_stubs(elf: Elf, dynamic: RawSymbols) -> Iterator[Stub]:
    sections = [section for name in _PLT_SECTIONS if (section := elf.section(name)) is not None]
    slots = _slots(elf, dynamic) if sections else {}
    for section in sections:
        step = _PLT_ENTRY_BYTES[section.name]
        code = elf.contents(section, _MAX_PLT_BYTES)
        for at in range(0, len(code), step):
            jump = _JUMP.match(code, at, at + step)
            if jump is None or jump.end() + 4 > len(code):
                continue
            displacement = int.from_bytes(code[jump.end() : jump.end() + 4], "little", signed=True)
            name = slots.get(section.vaddr + jump.end() + 4 + displacement)
            if name:
                yield Stub(section.vaddr + at, step, name)


def _slots(elf: Elf, dynamic: RawSymbols) -> dict[int, bytes]:
    """Address of a global offset table's slot to `FUNCTION@plt`."""
    slots: dict[int, bytes] = {}
    for section in elf.sections:
        if section.type != RELA or not section.name.startswith((".rela.plt", ".rela.dyn")):
            continue
        rows = elf.relocations(section)
        rows = rows[np.isin(rows["info"] & 0xFFFFFFFF, (_GLOB_DAT, _JUMP_SLOT))][:_MAX_RELOCATIONS]
        symbols = (rows["info"] >> 32).astype(np.int64)
        known = (symbols > 0) & (symbols < len(dynamic.rows))
        names = dynamic.rows["name"][symbols[known]]
        for offset, name in zip(rows["offset"][known].tolist(), names.tolist(), strict=True):
            if text := name_at(dynamic.names, name).partition("@")[0]:
                slots[offset] = f"{text}@plt".encode()
    return slots


def _start_sites(elf: Elf, dynamic: RawSymbols) -> Iterator[Stub]:
    """Call sites of glibc, by the exported functions that they stand before."""
    main, thread = dynamic.address_of(b"__libc_start_main"), dynamic.address_of(b"pthread_create")
    if not main or not thread:
        return
    goal = dynamic.address_of(b"exit")
    base = main - _CALL_MAIN_BEFORE_BYTES
    for match in _CALL_MAIN.finditer(elf.code_at(base, _CALL_MAIN_BEFORE_BYTES)):
        if base + match.end() + int.from_bytes(match[1], "little", signed=True) == goal:
            yield Stub(base + match.start(), 2, b"__libc_start_call_main")
    base = thread - _CALL_ROUTINE_BEFORE_BYTES
    for match in _CALL_ROUTINE.finditer(elf.code_at(base, _CALL_ROUTINE_BEFORE_BYTES)):
        yield Stub(base + match.start(), 6, b"start_thread")
