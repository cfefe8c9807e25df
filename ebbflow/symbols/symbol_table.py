"""Functions of one file in sorted arrays, and the rule by which an address gets one name.

Symbol tables hold aliases, labels inside functions, symbols without a size and overlaps. The rule, in this order:

1. Only what lies in code counts: functions and symbols without a type, in an executable section, cut at its end.
2. Of several symbols at one address: functions before untyped, global before weak before local, with a size before
   without, the shorter name, the one that stands first in the file.
3. A symbol without a size reaches to the next one. Inside a symbol that has a size it is a label and does not count.
4. An address belongs to the nearest symbol before it that reaches it. At most `MAX_NESTING` are tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from ebbflow.symbols.elf import Array, RawSymbols, name_at

MAX_NESTING = 64
MAX_SYMBOLS = 4 << 20
_NOTYPE, _FUNC, _IFUNC = 0, 2, 10  # STT_*
_LOCAL, _WEAK = 0, 2  # STB_*
_FIRST_RESERVED_SECTION = 0xFF00  # SHN_ABS and the like; SHN_XINDEX alone stands for a real section
_XINDEX = 0xFFFF


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class SymbolTable:
    """Functions by address.

    Attributes:
        starts, limits: uint64, shape (n,): virtual addresses, rising by start; starts are distinct.
        reach: uint64, shape (n,): the greatest limit so far.
        names: uint32, shape (n,): offsets of zero-terminated names in `text`.
    """

    starts: Array
    limits: Array
    reach: Array
    names: Array
    text: bytes = field(repr=False)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def memory_bytes(self) -> int:
        return 28 * len(self.starts) + len(self.text)

    def digest(self) -> bytes:
        """The same for tables of the same content."""
        state = blake2b(self.text, digest_size=16)
        for column in (self.starts, self.limits, self.names):
            state.update(np.ascontiguousarray(column).data)
        return state.digest()

    def find(self, vaddr: int) -> int:
        """Index of the function at an address; -1 when there is none."""
        if not 0 <= vaddr < 1 << 64:
            return -1
        index = int(np.searchsorted(self.starts, np.uint64(vaddr), side="right")) - 1
        for nearest in range(index, max(index - MAX_NESTING, -1), -1):
            if self.reach[nearest] <= vaddr:
                return -1
            if self.limits[nearest] > vaddr:
                return nearest
        return -1

    def name(self, index: int) -> str:
        """As in the file, but for a version (`pthread_create@@GLIBC_2.34`)."""
        name = name_at(self.text, int(self.names[index]))
        return name if name.endswith("@plt") else name.partition("@")[0]


@dataclass(frozen=True, slots=True)
class Stub:
    """A symbol that no table holds: found by looking at code."""

    start: int
    size_bytes: int
    name: bytes


_NO_ADDRESSES = np.empty(0, np.uint64)
EMPTY = SymbolTable(_NO_ADDRESSES, _NO_ADDRESSES, _NO_ADDRESSES, np.empty(0, np.uint32), b"")
_COLUMNS = np.dtype([("start", "<u8"), ("limit", "<u8"), ("rank", "u1"), ("name", "<u4"), ("length", "<u4")])


def build_table(
    tables: Iterable[RawSymbols], code: Sequence[tuple[int, int]], stubs: Sequence[Stub] = ()
) -> SymbolTable:
    """Merge symbol tables and stubs by the rule above; `code` is rising (start, limit) of executable sections."""
    columns, texts, base = [], [], 0
    for table in tables:
        columns.append(_candidates(table, code, base))
        texts.append(table.names + b"\0")
        base += len(texts[-1])
    columns.append(_stub_rows(stubs, base))
    texts.extend(stub.name + b"\0" for stub in stubs)
    rows = np.concatenate(columns)[:MAX_SYMBOLS]
    rows = _without_labels(_one_per_address(rows))
    if not len(rows):
        return EMPTY
    _extend(rows, code)
    return SymbolTable(
        np.ascontiguousarray(rows["start"]),
        np.ascontiguousarray(rows["limit"]),
        np.maximum.accumulate(rows["limit"]),
        np.ascontiguousarray(rows["name"]),
        b"".join(texts),
    )


def _candidates(table: RawSymbols, code: Sequence[tuple[int, int]], base: int) -> Array:
    """Rule 1: the symbols that can be functions; `limit` = `start` where there is no size."""
    symbols = table.rows
    kind, section = symbols["info"] & 15, symbols["section"]
    wanted = np.isin(kind, (_NOTYPE, _FUNC, _IFUNC)) & (section != 0) & (symbols["name"] < len(table.names))
    symbols = symbols[wanted & ((section < _FIRST_RESERVED_SECTION) | (section == _XINDEX))]
    text = np.frombuffer(table.names, np.uint8)
    first = text[symbols["name"]]
    symbols = symbols[(first != 0) & (first != ord("$"))]  # $x and $d mark code and data on other machines
    rows = np.empty(len(symbols), _COLUMNS)
    rows["start"] = symbols["value"]
    code_limit = _code_limits(rows["start"], code)
    room = np.where(code_limit > rows["start"], code_limit - rows["start"], 0)
    rows["limit"] = rows["start"] + np.minimum(symbols["size"].astype(np.uint64), room)
    rows["rank"] = _ranks(symbols["info"], symbols["size"])
    rows["name"] = symbols["name"] + np.uint32(base)
    rows["length"] = _lengths(text, symbols["name"])
    return rows[room > 0]


def _ranks(info: Array, size: Array) -> Array:
    """Rule 2 as one number: type, then binding, then size."""
    binding = info >> 4
    order = np.where(binding == _WEAK, 1, np.where(binding == _LOCAL, 2, 0))
    ranks: Array = ((info & 15) == _NOTYPE) * 8 + order * 2 + (size == 0)
    return ranks.astype(np.uint8)


def _lengths(text: Array, names: Array) -> Array:
    ends = np.append(np.flatnonzero(text == 0), len(text))
    return (ends[np.searchsorted(ends, names)] - names).astype(np.uint32)


def _code_limits(starts: Array, code: Sequence[tuple[int, int]]) -> Array:
    """End of the code section that holds each address; 0 for an address in none."""
    if not code:
        return np.zeros(len(starts), np.uint64)
    bounds = np.array(code, np.uint64)
    index = np.searchsorted(bounds[:, 0], starts, side="right")
    limits = np.append(np.uint64(0), bounds[:, 1])[index]
    return np.where(limits > starts, limits, np.uint64(0))


def _stub_rows(stubs: Sequence[Stub], base: int) -> Array:
    rows = np.zeros(len(stubs), _COLUMNS)
    for row, stub in zip(rows, stubs, strict=True):
        row["start"], row["limit"], row["name"] = stub.start, stub.start + stub.size_bytes, base
        row["rank"], row["length"] = 255, len(stub.name)
        base += len(stub.name) + 1
    return rows


def _one_per_address(rows: Array) -> Array:
    """Rule 2."""
    rows = rows[np.lexsort((rows["name"], rows["length"], rows["rank"], rows["start"]))]
    first = np.ones(len(rows), bool)
    first[1:] = rows["start"][1:] != rows["start"][:-1]
    return rows[first]


def _without_labels(rows: Array) -> Array:
    """Rule 3, second sentence."""
    reach = np.maximum.accumulate(rows["limit"])
    covered = np.zeros(len(rows), bool)
    covered[1:] = reach[:-1] > rows["start"][1:]
    kept: Array = rows[~(covered & (rows["limit"] == rows["start"]))]
    return kept


def _extend(rows: Array, code: Sequence[tuple[int, int]]) -> None:
    """Rule 3, first sentence."""
    sizeless = rows["limit"] == rows["start"]
    following = np.append(rows["start"][1:], np.uint64(2**64 - 1))
    extended = np.minimum(following, _code_limits(rows["start"], code))
    rows["limit"] = np.where(sizeless, extended, rows["limit"])
