"""Reads what symbolizing needs of an ELF file: segments, sections, the build id, symbol tables as arrays.

    offset 0        ELF header: class (32 or 64 bit), machine, where the two tables are
    e_phoff         program headers: which bytes of the file go to which virtual addresses
    e_shoff         section headers: .symtab and .dynsym with their string tables, .gnu_debugdata, code sections

See elf(5). Little-endian files of both classes. Every number in a file may be a lie: tables are read with bounds, and
whatever does not fit is `ElfInvalid`, or an empty answer where the rest of the file is still of use.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from typing import Any

import numpy as np

from ebbflow.symbols.files import Source

MACHINE_X86_64 = 62
PROGRAM_BITS, SYMTAB, DYNSYM, NOTE, RELA = 1, 2, 11, 7, 4  # section types SHT_*
_LOAD, _PT_NOTE = 1, 4  # segment types PT_*
_EXECUTABLE_SEGMENT, _EXECUTABLE_SECTION, _COMPRESSED = 1, 4, 0x800
_NO_BITS = 8
_BUILD_ID_NOTE = 3
_FROM_SECTION_0 = 0xFFFF  # PN_XNUM, SHN_XINDEX: the number did not fit and is in section 0

MAX_TABLE_BYTES = 128 << 20  # of one symbol or string table; Chromium's with debug symbols are below
_MAX_HEADERS = 1 << 16
_MAX_NOTES, _MAX_NOTES_BYTES = 64, 1 << 14
_MAX_NAME_BYTES, _MAX_SECTION_NAME_BYTES = 1 << 14, 128
_MAX_LOAD_SEGMENTS = 256
_MAX_TAILS = 64  # names that end like the one looked for: the linker stores tails once

_HEADER = {32: "<HHIIIIIHHHHHH", 64: "<HHIQQQIHHHHHH"}
_Dtype = np.dtype[Any]
Array = np.ndarray[Any, _Dtype]


def _dtype(fields: str) -> _Dtype:
    return np.dtype([(name, f"<{kind}") for name, kind in (item.split(":") for item in fields.split())])


_SEGMENT = {
    32: _dtype("type:u4 offset:u4 vaddr:u4 paddr:u4 filesz:u4 memsz:u4 flags:u4 align:u4"),
    64: _dtype("type:u4 flags:u4 offset:u8 vaddr:u8 paddr:u8 filesz:u8 memsz:u8 align:u8"),
}
_SECTION = {
    32: _dtype("name:u4 type:u4 flags:u4 addr:u4 offset:u4 size:u4 link:u4 info:u4 align:u4 entsize:u4"),
    64: _dtype("name:u4 type:u4 flags:u8 addr:u8 offset:u8 size:u8 link:u4 info:u4 align:u8 entsize:u8"),
}
_SYMBOL = {
    32: _dtype("name:u4 value:u4 size:u4 info:u1 other:u1 section:u2"),
    64: _dtype("name:u4 info:u1 other:u1 section:u2 value:u8 size:u8"),
}
_RELOCATION = _dtype("offset:u8 info:u8 addend:i8")  # 64 bit only


class ElfInvalid(ValueError):
    """Not an ELF file, or one too damaged to be of use. Never leaves ebbflow.symbols."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A PT_LOAD program header: `file_bytes` bytes from `offset` of the file are at virtual address `vaddr`."""

    offset: int
    vaddr: int
    file_bytes: int
    executable: bool


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    type: int
    flags: int
    vaddr: int
    offset: int
    size_bytes: int
    link: int

    @property
    def executable(self) -> bool:
        return bool(self.flags & _EXECUTABLE_SECTION)


@dataclass(frozen=True, slots=True)
class RawSymbols:
    """A symbol table as it stands in the file: structured array (value, size, info, section, name), and the names."""

    rows: Array
    names: bytes = field(repr=False)

    def address_of(self, name: bytes) -> int:
        """Virtual address of a function or variable that the file defines; 0 when it does not."""
        found = islice(re.finditer(re.escape(name) + b"\\0", self.names), _MAX_TAILS)
        offsets = [match.start() for match in found]
        rows = self.rows[np.isin(self.rows["name"], offsets) & (self.rows["section"] != 0)]
        return int(rows["value"][0]) if len(rows) else 0


@dataclass(frozen=True)
class Elf:
    """An ELF file's headers; section contents are read when asked for."""

    source: Source
    bits: int
    machine: int
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    notes: tuple[tuple[int, int], ...]  # (offset, size) of PT_NOTE segments

    def section(self, name: str) -> Section | None:
        return next((section for section in self.sections if section.name == name), None)

    def contents(self, section: Section, limit_bytes: int = MAX_TABLE_BYTES) -> bytes:
        """Bytes of a section; empty when it has none here, is compressed, or is larger than the limit."""
        if section.type == _NO_BITS or section.flags & _COMPRESSED or section.size_bytes > limit_bytes:
            return b""
        return self.source.read(section.offset, section.size_bytes)

    def code_at(self, vaddr: int, length: int) -> bytes:
        """File bytes behind a virtual address; fewer where the segment ends."""
        for segment in self.segments:
            if 0 <= (into := vaddr - segment.vaddr) < segment.file_bytes:
                return self.source.read(segment.offset + into, min(length, segment.file_bytes - into))
        return b""

    def code_ranges(self) -> list[tuple[int, int]]:
        """Where code is, as rising (start, limit): executable sections, else executable segments."""
        ranges = [(s.vaddr, s.vaddr + s.size_bytes) for s in self.sections if s.executable and s.size_bytes]
        ranges = ranges or [(s.vaddr, s.vaddr + s.file_bytes) for s in self.segments if s.executable]
        return sorted(ranges)

    def symbols(self, kind: int) -> RawSymbols | None:
        """The table of type `SYMTAB` or `DYNSYM` with its names."""
        section = next((s for s in self.sections if s.type == kind), None)
        if section is None or not 0 < section.link < len(self.sections):
            return None
        rows = _array(self.contents(section), _SYMBOL[self.bits])
        names = self.contents(self.sections[section.link])
        return RawSymbols(rows, names) if len(rows) and names else None

    def relocations(self, section: Section) -> Array:
        """Rows (offset, info, addend) of a 64-bit .rela section."""
        return _array(self.contents(section), _RELOCATION)

    @cached_property
    def build_id(self) -> str:
        """Hex digits of the GNU build id; empty when there is none."""
        sections = ((s.offset, s.size_bytes) for s in self.sections if s.type == NOTE)
        for offset, size in islice(chain(self.notes, sections), _MAX_NOTES):
            if found := gnu_build_id(self.source.read(offset, min(size, _MAX_NOTES_BYTES))):
                return found
        return ""


def vaddr_of(segments: Sequence[Segment], file_offset: int, default: int) -> int:
    """Virtual address of a byte of the file. Segments share pages: where two hold it, the executable one counts."""
    found = [s for s in segments if s.offset <= file_offset < s.offset + s.file_bytes]
    best = next((s for s in found if s.executable), found[0] if found else None)
    return default if best is None else file_offset - best.offset + best.vaddr


def parse_elf(source: Source) -> Elf:
    """Read the headers.

    Raises:
        ElfInvalid: not a little-endian ELF file, or headers that are cut off.
    """
    ident = source.read(0, 16)
    if len(ident) < 16 or ident[:4] != b"\x7fELF" or ident[4] not in {1, 2} or ident[5] != 1:  # noqa: PLR2004
        raise ElfInvalid("not a little-endian ELF file")
    bits = 32 * ident[4]
    form = struct.Struct(_HEADER[bits])
    header = source.read(16, form.size)
    if len(header) < form.size:
        raise ElfInvalid("the ELF header is cut off")
    _, machine, _, _, phoff, shoff, _, _, phsize, phnum, shsize, shnum, names = form.unpack(header)
    rows = _section_rows(source, shoff, shsize, shnum, bits)
    if len(rows):
        phnum = int(rows[0]["info"]) if phnum == _FROM_SECTION_0 else phnum
        names = int(rows[0]["link"]) if names == _FROM_SECTION_0 else names
    headers = _headers(source, phoff, phsize, phnum, _SEGMENT[bits])
    notes = tuple((int(row["offset"]), int(row["filesz"])) for row in headers[headers["type"] == _PT_NOTE])
    return Elf(source, bits, machine, _segments(headers), _sections(source, rows, names), notes)


def _array(data: bytes, dtype: _Dtype) -> Array:
    return np.frombuffer(data, dtype, len(data) // dtype.itemsize)


def _headers(source: Source, offset: int, size: int, count: int, dtype: _Dtype) -> Array:
    """A header table; empty when it is absent, of another entry size, or cut off before its first entry."""
    if not offset or size != dtype.itemsize:
        return np.empty(0, dtype)
    return _array(source.read(offset, size * min(count, _MAX_HEADERS)), dtype)


def _section_rows(source: Source, offset: int, size: int, count: int, bits: int) -> Array:
    rows = _headers(source, offset, size, count or 1, _SECTION[bits])
    if count == 0 and len(rows):  # more than fit into the header
        return _headers(source, offset, size, int(rows[0]["size"]), _SECTION[bits])
    return rows


def _segments(rows: Array) -> tuple[Segment, ...]:
    return tuple(
        Segment(int(r["offset"]), int(r["vaddr"]), int(r["filesz"]), bool(r["flags"] & _EXECUTABLE_SEGMENT))
        for r in rows[rows["type"] == _LOAD][:_MAX_LOAD_SEGMENTS]
    )


def _sections(source: Source, rows: Array, names_index: int) -> tuple[Section, ...]:
    names = b""
    if 0 < names_index < len(rows):
        names = source.read(int(rows[names_index]["offset"]), min(int(rows[names_index]["size"]), 1 << 24))
    return tuple(
        Section(name_at(names, name, _MAX_SECTION_NAME_BYTES), kind, flags, vaddr, offset, size_bytes, link)
        for name, kind, flags, vaddr, offset, size_bytes, link, *_ in rows.tolist()
    )


def name_at(names: bytes, offset: int, limit_bytes: int = _MAX_NAME_BYTES) -> str:
    """The zero-terminated string at an offset of a string table, cut at the limit; empty outside of the table."""
    limit = min(offset + limit_bytes, len(names))
    end = names.find(b"\0", offset, limit)
    return names[offset : end if end >= 0 else limit].decode("utf-8", "replace")


def gnu_build_id(notes: bytes) -> str:
    """Walk the notes (namesz, descsz, type, name and desc padded to 4) to GNU's build id."""
    at = 0
    while at + 12 <= len(notes):
        name_bytes, desc_bytes, kind = struct.unpack_from("<III", notes, at)
        desc_at = at + 12 + (name_bytes + 3 & ~3)
        if kind == _BUILD_ID_NOTE and notes[at + 12 : at + 16] == b"GNU\0" and name_bytes == 4:  # noqa: PLR2004
            return notes[desc_at : desc_at + min(desc_bytes, 64)].hex()
        at = desc_at + (desc_bytes + 3 & ~3)
    return ""
