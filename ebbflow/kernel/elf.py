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
from typing import Any

import numpy as np

from ebbflow.errors import KernelError, ProbeNotFound
from ebbflow.kernel.attach_points import nearby

_SECTION = np.dtype(
    [("name", "<u4"), ("type", "<u4"), ("flags", "<u8"), ("address", "<u8"), ("offset", "<u8"), ("size", "<u8"),
     ("link", "<u4"), ("info", "<u4"), ("align", "<u8"), ("entry", "<u8")]
)  # fmt: skip
_SEGMENT = np.dtype(
    [("type", "<u4"), ("flags", "<u4"), ("offset", "<u8"), ("address", "<u8"), ("physical", "<u8"),
     ("in_file", "<u8"), ("in_memory", "<u8"), ("align", "<u8")]
)  # fmt: skip
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_LOAD, _FUNCTION, _INDIRECT = 1, 2, 10
_SYMTAB, _DYNSYM = 2, 11
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
        if self._bytes[:6] != b"\x7fELF\x02\x01" or len(self._bytes) < _HEADER.size:
            raise KernelError(f"{path} is no 64-bit ELF file of this machine")
        try:
            self._read_tables()
        except (struct.error, ValueError, IndexError):
            raise KernelError(f"{path} is a damaged ELF file") from None

    def _read_tables(self) -> None:
        header = _HEADER.unpack_from(self._bytes)
        segments_at, sections_at, segments, sections, names = header[5], header[6], header[10], header[12], header[13]
        self._segments = np.frombuffer(self._bytes, _SEGMENT, segments, segments_at)
        self._sections = np.frombuffer(self._bytes, _SECTION, sections, sections_at)
        self._section_names = self._sections[names]["offset"] if sections else 0

    def offset_of(self, address: int) -> int:
        """File offset of an address.

        Raises:
            KernelError: no segment holds it.
        """
        for segment in self._segments[self._segments["type"] == _LOAD]:
            start = int(segment["address"])
            if start <= address < start + int(segment["in_file"]):
                return address - start + int(segment["offset"])
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
        for table, strings in self._tables(kind):
            found = table[np.isin(table["name"], self._places_of(name.encode(), strings))]
            yield from found

    def _places_of(self, name: bytes, strings: np.void) -> list[int]:
        """Offsets in a string table at which a name ends a string: names share their tails."""
        start, size, places = int(strings["offset"]), int(strings["size"]), []
        at = self._bytes.find(name + b"\0", start, start + size)
        while at >= 0:
            places.append(at - start)
            at = self._bytes.find(name + b"\0", at + 1, start + size)
        return places

    def indirect_functions(self) -> set[str]:
        """Names that stand for a choice made at load time (memcpy of glibc): a probe there sees the choice only."""
        return {name for name, _ in self._symbols(_INDIRECT)}

    def _symbols(self, kind: int) -> Iterator[tuple[str, np.void]]:
        for table, strings in self._tables(kind):
            for symbol in table:
                yield self._text(int(strings["offset"]) + int(symbol["name"])), symbol

    def _tables(self, kind: int) -> Iterator[tuple[np.ndarray[Any, Any], np.void]]:
        """Defined symbols of a kind, table by table, with the section of their names."""
        for section in self._sections[np.isin(self._sections["type"], (_SYMTAB, _DYNSYM))]:
            count = int(section["size"]) // _SYMBOL.itemsize
            table = np.frombuffer(self._bytes, _SYMBOL, count, int(section["offset"]))
            chosen = table[((table["info"] & 15) == kind) & (table["section"] != 0) & (table["value"] != 0)]
            yield chosen, self._sections[section["link"]]

    def _text(self, offset: int) -> str:
        return self._bytes[offset : self._bytes.index(b"\0", offset)].decode("utf-8", "replace")

    def _section(self, name: str) -> np.void | None:
        for section in self._sections:
            if self._text(int(self._section_names) + int(section["name"])) == name:
                found: np.void = section
                return found
        return None

    def usdt(self) -> list[Usdt]:
        """Every place of every USDT probe."""
        notes, base = self._section(".note.stapsdt"), self._section(".stapsdt.base")
        if notes is None:
            return []
        start, end = int(notes["offset"]), int(notes["offset"]) + int(notes["size"])
        return list(self._notes(start, end, int(base["address"]) if base is not None else 0))

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
