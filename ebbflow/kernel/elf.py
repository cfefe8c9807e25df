r"""What a probe needs to know of an ELF file: where functions are, and which USDT probes it has.

Formats: System V ABI (ELF64, little-endian), and systemtap's note "stapsdt" for USDT:

    note     name_bytes u32 | data_bytes u32 | type u32 (3) | "stapsdt\0" | data, each padded to 4 bytes
    data     location u64 | base u64 | semaphore u64 | provider \0 | name \0 | arguments \0
             `base` is where section .stapsdt.base stood when linked: the difference to now is added to the others

A probe sits at an offset in the file, not at an address: `offset_of` converts by the loadable segments.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ebbflow.errors import KernelError, ProbeNotFound
from ebbflow.kernel.attach_points import nearby
from ebbflow.symbols.elf import DYNSYM, SYMTAB, ElfInvalid, RawSymbols, name_at, parse_elf
from ebbflow.symbols.files import MemorySource

_BITS = 64
_FUNCTION, _INDIRECT = 2, 10
_NOTE_STAPSDT = 3


@dataclass(frozen=True, slots=True)
class Usdt:
    """A USDT probe: `location` and `semaphore` are file offsets, semaphore 0 for none."""

    provider: str
    name: str
    location: int
    semaphore: int
    arguments: str


class Elf:
    """One ELF file, read whole.

    Raises:
        ProbeNotFound: no such file.
        KernelError: it cannot be read, or is not ELF of this machine.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._bytes = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            names = [other.name for other in path.parent.glob("*")]
            raise ProbeNotFound(f"no file {path}", hint=nearby(path.name, names)) from None
        except OSError as error:
            raise KernelError(f"{path}: {error.strerror}", hint="run it as root: sudo ebbflow …") from None
        try:
            self._file = parse_elf(MemorySource(self._bytes))
        except ElfInvalid:
            raise KernelError(f"{path} is no ELF file of this machine, or damaged") from None
        if self._file.bits != _BITS:
            raise KernelError(f"{path} is no 64-bit ELF file of this machine")

    def offset_of(self, address: int) -> int:
        """File offset of an address.

        Raises:
            KernelError: no segment holds it.
        """
        for segment in self._file.segments:
            if 0 <= (into := address - segment.vaddr) < segment.file_bytes:
                return into + segment.offset
        raise KernelError(f"{self.path}: address {address:#x} is in no segment")

    def functions(self) -> dict[str, int]:
        """Names to file offsets, of what is defined here and is called directly; those of IFUNCs are left out."""
        found: dict[str, int] = {}
        for name, symbol in self._symbols(_FUNCTION):
            if name not in found:
                found[name] = self.offset_of(int(symbol["value"]))
        return found

    def function(self, name: str) -> int | None:
        """File offset of one function, as in `functions`, without reading every name; None when it is not there."""
        for symbol in self._named(name, _FUNCTION):
            return self.offset_of(int(symbol["value"]))
        return None

    def is_indirect(self, name: str) -> bool:
        """Whether a name is of `indirect_functions`."""
        return any(True for _ in self._named(name, _INDIRECT))

    def _named(self, name: str, kind: int) -> Iterator[np.void]:
        for table in self._tables():
            rows = _defined(table, kind)
            yield from rows[np.isin(rows["name"], _places_of(name.encode(), table.names))]

    def indirect_functions(self) -> set[str]:
        """Names that stand for a choice made at load time (memcpy of glibc): a probe there sees the choice only."""
        return {name for name, _ in self._symbols(_INDIRECT)}

    def _symbols(self, kind: int) -> Iterator[tuple[str, np.void]]:
        for table in self._tables():
            for symbol in _defined(table, kind):
                yield name_at(table.names, int(symbol["name"])), symbol

    def _tables(self) -> Iterator[RawSymbols]:
        for kind in (SYMTAB, DYNSYM):
            if (table := self._file.symbols(kind)) is not None:
                yield table

    def usdt(self) -> list[Usdt]:
        """Every place of every USDT probe."""
        notes, base = self._file.section(".note.stapsdt"), self._file.section(".stapsdt.base")
        if notes is None:
            return []
        return list(self._notes(notes.offset, notes.offset + notes.size_bytes, base.vaddr if base is not None else 0))

    def _notes(self, at: int, end: int, base: int) -> Iterator[Usdt]:
        while at + 12 <= end:
            name_bytes, data_bytes, kind = struct.unpack_from("<III", self._bytes, at)
            data = at + 12 + (name_bytes + 3 & ~3)
            at = data + (data_bytes + 3 & ~3)
            if kind == _NOTE_STAPSDT:
                yield self._usdt(data, data_bytes, base)

    def _usdt(self, data: int, data_bytes: int, base: int) -> Usdt:
        location, linked_base, semaphore = struct.unpack_from("<QQQ", self._bytes, data)
        moved = base - linked_base if base else 0
        words = self._bytes[data + 24 : data + data_bytes].split(b"\0")
        provider, name, arguments = (word.decode("utf-8", "replace") for word in words[:3])
        return Usdt(
            provider,
            name,
            self.offset_of(location + moved),
            self.offset_of(semaphore + moved) if semaphore else 0,
            arguments,
        )


def _defined(table: RawSymbols, kind: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Symbols of a type that the file itself defines."""
    rows = table.rows
    chosen: np.ndarray[tuple[int], np.dtype[np.void]] = rows[
        ((rows["info"] & 15) == kind) & (rows["section"] != 0) & (rows["value"] != 0)
    ]
    return chosen


def _places_of(name: bytes, names: bytes) -> list[int]:
    """Offsets in a string table at which a name ends a string: names share their tails."""
    places = []
    at = names.find(name + b"\0")
    while at >= 0:
        places.append(at)
        at = names.find(name + b"\0", at + 1)
    return places
