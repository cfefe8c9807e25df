"""BTF, the kernel's description of its own types, read without external tools.

Format (Linux Documentation/bpf/btf.rst); everything is aligned to 4 bytes, in the machine's byte order:

    header   magic u16 | version u8 | flags u8 | header_bytes u32 | types_at, types_bytes, strings_at, strings_bytes u32
    types    name u32 | info u32 | size or type u32 | extra, by kind         ids count from 1; 0 is void
             info: members in bits 0-15, kind in 24-28, bit 31 says that member offsets also hold a bit-field's width
    member   name u32 | type u32 | offset u32 (bits; with bit 31 of info: width << 24 | bits)
    strings  NUL-terminated

Only the type headers are walked on loading; members are read when asked for.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Self

from ebbflow.errors import KernelError, LayoutMismatch

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")


class Kind(IntEnum):
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_KINDS = frozenset(Kind)
_RECORDS = frozenset({Kind.STRUCT, Kind.UNION})
_TRANSPARENT = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
# Words that follow a type's header: a fixed number, and so many per member.
_FIXED_WORDS = {Kind.INT: 1, Kind.ARRAY: 3, Kind.VAR: 1, Kind.DECL_TAG: 1}
_MEMBER_WORDS = {
    Kind.STRUCT: 3, Kind.UNION: 3, Kind.ENUM: 2, Kind.FUNC_PROTO: 2, Kind.DATASEC: 3, Kind.ENUM64: 3,
}  # fmt: skip
_REPORT = "this kernel is not supported yet: please report its `uname -r` and this message"


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member is: bits from the start of the struct that was asked for; `width_bits` is 0 but for bit-fields."""

    offset_bits: int
    width_bits: int
    type_id: int


@dataclass(frozen=True)
class Btf:
    """The types of one BTF blob.

    Attributes:
        words: the type section as u32.
        starts: for each type id, the index of its first word; starts[0] stands for void and is unused.
        strings: the string section.
        names: ids of the structs, unions and typedefs of each name; distinct types can share one.
    """

    words: memoryview
    starts: list[int]
    strings: bytes
    names: dict[bytes, list[int]]

    @classmethod
    def load(cls, path: Path = VMLINUX) -> Self:
        """Read a BTF file.

        Raises:
            KernelError: the file is not there, cannot be read, or is not BTF of this machine's byte order.
        """
        try:
            blob = path.read_bytes()
        except OSError as error:
            raise KernelError(
                f"no BTF: {path}: {error.strerror}",
                hint="run a kernel built with CONFIG_DEBUG_INFO_BTF=y (those of Debian 12 and Ubuntu 22.04 are)",
            ) from None
        try:
            return cls.parse(blob)
        except KernelError as error:
            raise KernelError(f"{path}: {error}", hint=error.hint) from None

    @classmethod
    def parse(cls, blob: bytes) -> Self:
        """Read BTF from memory.

        Raises:
            KernelError: not BTF, cut short, or with a kind of type this reader does not know.
        """
        types, strings = _sections(blob)
        words = memoryview(types).cast("I")
        starts = _walk(words)
        names: dict[bytes, list[int]] = {}
        named = _RECORDS | {Kind.TYPEDEF}
        for type_id, start in enumerate(starts):
            if type_id and words[start] and (words[start + 1] >> 24 & 0x1F) in named:
                names.setdefault(_string(strings, words[start]), []).append(type_id)
        return cls(words, starts, strings, names)

    def offset(self, struct_name: str, path: str) -> int:
        """Bytes from the start of a struct to a member; `path` goes through nested structs: `__sk_common.skc_dport`.

        Members of anonymous structs and unions are named without them, as in C.

        Raises:
            LayoutMismatch: no such struct or member, or a bit-field (see `offset_bits`).
        """
        member = self.member(struct_name, path)
        if member.width_bits or member.offset_bits % 8:
            raise LayoutMismatch(f"{struct_name}.{path} is a bit-field of this kernel; it has no byte offset")
        return member.offset_bits // 8

    def offset_bits(self, struct_name: str, path: str) -> int:
        """Bits from the start of a struct to a member, bit-field or not; raises as `member`."""
        return self.member(struct_name, path).offset_bits

    def has(self, struct_name: str, path: str) -> bool:
        """Whether this kernel has the struct and the member."""
        try:
            self.member(struct_name, path)
        except LayoutMismatch:
            return False
        return True

    def size_of(self, struct_name: str) -> int:
        """Size of a struct or union in bytes.

        Raises:
            LayoutMismatch: there is none of this name, or several of different sizes.
        """
        sizes = {self.words[self.starts[type_id] + 2] for type_id in self._records(struct_name)}
        if len(sizes) > 1:
            raise LayoutMismatch(f"struct {struct_name}: this kernel has several of different sizes")
        return sizes.pop()

    def member(self, struct_name: str, path: str) -> Member:
        """Find a member.

        Raises:
            LayoutMismatch: no such struct or member, or several structs of that name that disagree about it.
        """
        found = {self._resolve(type_id, path.split(".")) for type_id in self._records(struct_name)} - {None}
        places = {(member.offset_bits, member.width_bits) for member in found if member}
        if not places:
            raise LayoutMismatch(f"struct {struct_name} of this kernel has no member {path}", hint=_REPORT)
        if len(places) > 1:
            raise LayoutMismatch(f"this kernel has several structs {struct_name} with {path} in different places")
        return next(member for member in found if member)

    def parameters(self, typedef: str) -> list[str]:
        """Types of what a function takes that a typedef points to, as `task_struct *`; `btf_trace_NAME` is such a one.

        Raises:
            LayoutMismatch: there is none of this name, or it is no pointer to a function.
        """
        for type_id in self.names.get(typedef.encode(), ()):
            function = self._pointed(self._strip(type_id))
            if self._kind(function) == Kind.FUNC_PROTO:
                start = self.starts[function]
                members = range(start + 3, start + 3 + 2 * (self.words[start + 1] & 0xFFFF), 2)
                return [self._spelled(self.words[at + 1]) for at in members]
        raise LayoutMismatch(f"this kernel has no function type {typedef}", hint=_REPORT)

    def _pointed(self, type_id: int) -> int:
        return self.words[self.starts[type_id] + 2] if self._kind(type_id) == Kind.PTR else 0

    def _spelled(self, type_id: int) -> str:
        kind = self._kind(type_id)
        if kind == Kind.PTR:
            return f"{self._spelled(self._strip(self._pointed(type_id)))} *"
        return _string(self.strings, self.words[self.starts[type_id]]).decode() if kind else "void"

    def _records(self, name: str) -> set[int]:
        resolved = (self._strip(type_id) for type_id in self.names.get(name.encode(), ()))
        ids = {type_id for type_id in resolved if self._kind(type_id) in _RECORDS}
        if not ids:
            raise LayoutMismatch(f"this kernel has no struct {name}", hint=_REPORT)
        return ids

    def _resolve(self, type_id: int, path: list[str]) -> Member | None:
        bits = 0
        member = None
        for step in path:
            member = self._find(self._strip(type_id), step.encode())
            if member is None:
                return None
            bits, type_id = bits + member.offset_bits, member.type_id
        return Member(bits, member.width_bits, type_id) if member else None

    def _find(self, type_id: int, name: bytes) -> Member | None:
        """One member of one struct, looked for in its anonymous structs and unions too."""
        if self._kind(type_id) not in _RECORDS:
            return None
        for name_at, member in self._members(type_id):
            if name_at:
                if _string(self.strings, name_at) == name:
                    return member
            elif inner := self._find(self._strip(member.type_id), name):
                return Member(member.offset_bits + inner.offset_bits, inner.width_bits, inner.type_id)
        return None

    def _members(self, type_id: int) -> Iterator[tuple[int, Member]]:
        start = self.starts[type_id]
        info = self.words[start + 1]
        for at in range(start + 3, start + 3 + 3 * (info & 0xFFFF), 3):
            name_at, member_type, place = self.words[at : at + 3]
            if info >> 31:
                yield name_at, Member(place & 0xFFFFFF, place >> 24, member_type)
            else:
                yield name_at, Member(place, 0, member_type)

    def _strip(self, type_id: int) -> int:
        """Follow typedefs and qualifiers to the type they stand for."""
        while self._kind(type_id) in _TRANSPARENT:
            type_id = self.words[self.starts[type_id] + 2]
        return type_id

    def _kind(self, type_id: int) -> int:
        """The kind of a type; 0 for void."""
        if type_id >= len(self.starts):
            raise KernelError(f"BTF is damaged: type {type_id} of {len(self.starts) - 1}")
        return self.words[self.starts[type_id] + 1] >> 24 & 0x1F if type_id else 0


def _sections(blob: bytes) -> tuple[bytes, bytes]:
    if len(blob) < _HEADER.size:
        raise KernelError(f"not BTF: {len(blob)} bytes are no header")
    magic, version, _, header, types_at, types_size, strings_at, strings_size = _HEADER.unpack_from(blob)
    if magic != _MAGIC or version != 1:
        raise KernelError(f"not BTF version 1 in {sys.byteorder}-endian order: magic {magic:#06x}, version {version}")
    types = blob[header + types_at :][:types_size]
    strings = blob[header + strings_at :][:strings_size]
    if len(types) != types_size or types_size % 4 or len(strings) != strings_size or strings[-1:] != b"\0":
        raise KernelError(f"BTF is cut short or damaged at {len(blob)} bytes")
    return types, strings


def _walk(words: memoryview) -> list[int]:
    """Where each type begins, by id; the loop over every type of the kernel, hence the flat tables."""
    fixed = [3 + _FIXED_WORDS.get(Kind(kind), 0) if kind in _KINDS else 0 for kind in range(32)]
    each = [_MEMBER_WORDS.get(Kind(kind), 0) if kind in _KINDS else 0 for kind in range(32)]
    starts = [0]
    at, end, add = 0, len(words), starts.append
    while at + 3 <= end:
        info = words[at + 1]
        kind = info >> 24 & 0x1F
        if not fixed[kind]:
            raise KernelError(f"BTF type {len(starts)} is of unknown kind {kind}")
        add(at)
        at += fixed[kind] + each[kind] * (info & 0xFFFF)
    if at != end:
        raise KernelError(f"BTF type {len(starts) - 1} runs past the end of the types")
    return starts


def _string(strings: bytes, at: int) -> bytes:
    end = strings.find(b"\0", at)
    if end < 0:
        raise KernelError(f"BTF is damaged: a name at {at} of {len(strings)} bytes of names")
    return strings[at:end]
