"""Programs and libraries with their functions, read once for all processes that map them.

A file is known by device, inode, size and time of the last change, so that an upgrade in place or a re-used inode
number is another one. Tables of equal content (one image in many containers: one inode number each) are kept once; they
are compared by what they hold, not by the build id alone, which any file can claim.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from weakref import WeakValueDictionary

from ebbflow.symbols.debug_files import embedded_symbols, separate_symbols
from ebbflow.symbols.elf import DYNSYM, SYMTAB, Elf, ElfInvalid, RawSymbols, Segment, parse_elf, vaddr_of
from ebbflow.symbols.files import FileSource, Source
from ebbflow.symbols.machine_code import find_stubs, frame_pointer_share
from ebbflow.symbols.symbol_table import EMPTY, SymbolTable, build_table

Identity = tuple[int, int, int, int]
_NAME_BYTES = 200  # a demangled name in a dictionary, about


@dataclass(frozen=True)
class Binary:
    """One file.

    Attributes:
        is_elf: False for what is mapped executable but is no ELF file, or one too damaged to read.
        stripped: neither the file nor what belongs to it has a full symbol table: only exported functions have names.
        frame_pointers: share of functions that set one up, 0 to 1; None where it cannot be told.
        names: demangled names by index, filled by whoever asks.
    """

    build_id: str
    segments: tuple[Segment, ...]
    table: SymbolTable
    is_elf: bool = True
    stripped: bool = False
    frame_pointers: float | None = None
    names: dict[int, str] = field(default_factory=dict)

    def vaddr_of(self, file_offset: int) -> int:
        """Virtual address of a byte of the file; the offset itself where no segment holds it."""
        return vaddr_of(self.segments, file_offset, file_offset)


NOT_ELF = Binary("", (), EMPTY, is_elf=False)


class Binaries:
    """A bounded cache of files, least recently used out first.

    Args:
        max_binaries, max_bytes: bounds; the file read last stays even when it alone is larger.
        troubles: where damaged files and tables are counted, by kind.
        names: whether functions are read, too.
    """

    def __init__(self, *, max_binaries: int, max_bytes: int, troubles: Counter[str], names: bool = True) -> None:
        self._max_binaries, self._max_bytes = max_binaries, max_bytes
        self._troubles = troubles
        self._names = names
        self._known: OrderedDict[Identity, Binary] = OrderedDict()
        self._tables: WeakValueDictionary[bytes, SymbolTable] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def memory_bytes(self) -> int:
        """Of tables, shared ones once, and of demangled names, estimated."""
        tables = {id(binary.table): binary.table.memory_bytes for binary in self._known.values()}
        return sum(tables.values()) + sum(_NAME_BYTES * len(binary.names) for binary in self._known.values())

    def read(self, file: FileSource, roots: Sequence[Path]) -> Binary:
        """A file's functions, from the cache if they are there; what is damaged is counted and left out.

        `roots` are directories that may have /usr/lib/debug, the process's own first.
        """
        if (known := self._known.get(file.identity)) is not None:
            self._known.move_to_end(file.identity)
            return known
        binary = self._shared(read_binary(file, roots, self._troubles, names=self._names))
        self._known[file.identity] = binary
        while len(self._known) > 1 and (len(self._known) > self._max_binaries or self.memory_bytes > self._max_bytes):
            self._known.popitem(last=False)
        return binary

    def _shared(self, binary: Binary) -> Binary:
        table = self._tables.setdefault(binary.table.digest(), binary.table)
        return replace(binary, table=table)


def read_binary(source: Source, roots: Sequence[Path], troubles: Counter[str], *, names: bool = True) -> Binary:
    """Everything about one file, or all but its functions; what is damaged is counted in `troubles` and left out."""
    try:
        elf = parse_elf(source)
    except ElfInvalid:
        troubles["damaged_elf"] += 1
        return NOT_ELF
    if not names:
        return Binary(build_id=elf.build_id, segments=elf.segments, table=EMPTY)
    full = elf.symbols(SYMTAB) or _full_symbols_elsewhere(elf, roots, troubles)
    # .gnu_debugdata leaves out what .dynsym has; two full tables cost no more than their text.
    tables = [table for table in (full, elf.symbols(DYNSYM)) if table is not None]
    table = build_table(tables, elf.code_ranges(), find_stubs(elf))
    return Binary(
        build_id=elf.build_id,
        segments=elf.segments,
        table=table,
        stripped=full is None,
        frame_pointers=frame_pointer_share(elf, table),
    )


def _full_symbols_elsewhere(elf: Elf, roots: Sequence[Path], troubles: Counter[str]) -> RawSymbols | None:
    found = None
    try:
        found = separate_symbols(elf.build_id, roots)
    except ElfInvalid:
        troubles["damaged_debug_file"] += 1
    try:
        return found or embedded_symbols(elf)
    except ElfInvalid:
        troubles["damaged_debugdata"] += 1
        return None
