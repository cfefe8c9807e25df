"""C struct definitions to numpy dtypes: the header in bpf/ is the only definition of an event.

Grammar: `struct NAME { ... };` and `enum NAME { ... };` of the sized types below, char arrays, arrays and nested
structs. No pointers, no bit-fields, no implicit holes: a struct whose members do not fill it is refused, because the
same bytes must mean the same to every compiler. The layout hash names the exact arrangement; it travels with every
batch, so a reader never takes rows of another layout for its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from cffi import FFI

from ebbflow.errors import InternalError

BPF_DIRECTORY = Path(__file__).parents[2] / "bpf"
_LONGEST_PAYLOAD = 1 << 16
_TYPES = {f"__{sign}{bits}": f"{'u' if sign == 'u' else ''}int{bits}_t" for sign in "us" for bits in (8, 16, 32, 64)}
_NUMPY = {"uint8_t": "u1", "uint16_t": "<u2", "uint32_t": "<u4", "uint64_t": "<u8"} | {
    "int8_t": "i1", "int16_t": "<i2", "int32_t": "<i4", "int64_t": "<i8",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """One struct: its dtype and the 64-bit hash of its arrangement."""

    name: str
    dtype: np.dtype[np.void]
    hash: int

    @property
    def size(self) -> int:
        return self.dtype.itemsize


@dataclass(frozen=True)
class Header:
    """The structs and enums of one header file; enums map member names to values."""

    structs: dict[str, Layout]
    enums: dict[str, dict[str, int]]


@cache
def read_header(path: Path) -> Header:
    """Parse a header of the restricted grammar.

    Raises:
        InternalError: the file has something outside the grammar, or a struct with an implicit hole.
    """
    text = re.sub(r"/\*.*?\*/", "", path.read_text("ascii"), flags=re.DOTALL)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    text = re.sub(r"\b__[us](?:8|16|32|64)\b", lambda match: _TYPES[match[0]], text)
    ffi = FFI()
    try:
        ffi.cdef(text)
    except Exception as error:
        raise InternalError(f"{path.name}: outside the header grammar: {error}") from error
    structs = {name: _layout(ffi, name) for name in re.findall(r"^struct (\w+) \{", text, re.MULTILINE)}
    enums = {
        name: {member: value for value, member in ffi.typeof(f"enum {name}").elements.items()}
        for name in re.findall(r"^enum (\w+) \{", text, re.MULTILINE)
    }
    return Header(structs, enums)


@dataclass(frozen=True)
class EventLayout:
    """What a feature writes: `struct event_row`, and what follows it by kind.

    Attributes:
        row: its hash is of the rows and of all that may follow them.
        kinds: number to what follows: a dtype; a range of lengths in bytes where a head is followed by more bytes; None
            where nothing is said of it.
        heads: number to the dtype at the front of what follows.
        names: number to the kind's name in lower case without the feature's.
    """

    row: Layout
    kinds: dict[int, np.dtype[np.void] | range | None]
    heads: dict[int, np.dtype[np.void]]
    names: dict[int, str]

    def kind(self, name: str) -> int:
        """Number of a kind."""
        return next(number for number, known in self.names.items() if known == name)

    def payload(self, name: str) -> np.dtype[np.void]:
        """Dtype of a kind's payload, or of its head."""
        return self.heads[self.kind(name)]


@cache
def event_layout(path: Path) -> EventLayout:
    """The kinds of `enum FEATURE_kind` in bpf/FEATURE.h.

    What follows a row of kind FEATURE_X is `struct FEATURE_x` where there is one, or `struct FEATURE_x_head` and more
    bytes.

    Raises:
        InternalError: outside the grammar, or no such enum.
    """
    feature, header = path.stem, read_header(path)
    row = read_header(path.with_name("event.h")).structs["event_row"]
    if f"{feature}_kind" not in header.enums:
        raise InternalError(f"{path.name}: there is no enum {feature}_kind")
    names = {
        number: name.lower().removeprefix(f"{feature}_") for name, number in header.enums[f"{feature}_kind"].items()
    }
    whole = {number: header.structs.get(f"{feature}_{name}") for number, name in names.items()}
    heads = {number: header.structs.get(f"{feature}_{name}_head") for number, name in names.items()}
    found = {number: layout for number in sorted(names) if (layout := whole[number] or heads[number])}
    text = "".join(f"{number}:{names[number]}:{layout.hash:x};" for number, layout in found.items())
    combined = blake2b(f"{row.hash:x}|{text}".encode(), digest_size=8).digest()
    kinds = {number: _what_follows(whole[number], heads[number]) for number in names}
    return EventLayout(
        Layout(f"{feature}: event_row", row.dtype, int.from_bytes(combined, "big")),
        kinds,
        {number: layout.dtype for number, layout in found.items()},
        names,
    )


def _what_follows(whole: Layout | None, head: Layout | None) -> np.dtype[np.void] | range | None:
    if head is not None:
        return range(head.size, _LONGEST_PAYLOAD + 1)
    return whole.dtype if whole is not None else None


def _layout(ffi: FFI, name: str) -> Layout:
    dtype = _struct_dtype(name, ffi.typeof(f"struct {name}"))
    size = ffi.sizeof(f"struct {name}")
    if size != dtype.itemsize:
        raise InternalError(f"struct {name}: implicit hole at the end ({dtype.itemsize} of {size} bytes)")
    return Layout(name, dtype, int.from_bytes(blake2b(_describe(dtype).encode(), digest_size=8).digest(), "big"))


def _struct_dtype(name: str, ctype: Any) -> np.dtype[np.void]:
    names, formats, offsets, end = [], [], [], 0
    for field_name, field in ctype.fields:
        if field.bitsize != -1 or field.offset != end:
            raise InternalError(f"struct {name}: bit-field or implicit hole before {field_name}")
        formats.append(_dtype(name, field.type))
        names.append(field_name)
        offsets.append(field.offset)
        end = field.offset + formats[-1].itemsize
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": end})


def _dtype(owner: str, ctype: Any) -> np.dtype[Any]:
    if ctype.kind == "primitive" and ctype.cname in _NUMPY:
        return np.dtype(_NUMPY[ctype.cname])
    if ctype.kind == "array" and ctype.item.cname == "char":
        return np.dtype(f"S{ctype.length}")
    if ctype.kind == "array" and ctype.length is not None:
        return np.dtype((_dtype(owner, ctype.item), (ctype.length,)))
    if ctype.kind == "struct":
        return _struct_dtype(ctype.cname, ctype)
    raise InternalError(f"struct {owner}: {ctype.cname} is outside the header grammar")


def _describe(dtype: np.dtype[Any]) -> str:
    """Canonical text of an arrangement: names, types, offsets."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return f"{_describe(base)}{list(shape)}"
    if dtype.fields is None:
        return dtype.str
    fields = ",".join(f"{name}:{_describe(field[0])}@{field[1]}" for name, field in dtype.fields.items())
    return f"{{{fields}|{dtype.itemsize}}}"
