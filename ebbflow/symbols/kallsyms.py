r"""Kernel addresses to functions, from /proc/kallsyms.

    ffffffff81000000 T _stext
    ffffffffc0a81000 t nf_ct_find\t[nf_conntrack]

All addresses are zero for a reader without the right to see them (kernel.kptr_restrict, CAP_SYSLOG): then nothing has a
name. Programs of BPF's JIT and trampolines are in the list as [bpf] and [ftrace] when the kernel shows them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ebbflow.symbols.elf import Array
from ebbflow.symbols.frames import Mapping

MAX_BYTES = 64 << 20
IMAGE = "[kernel.kallsyms]"
_MAX_FUNCTION_BYTES = 1 << 20  # the last function before a gap does not reach through it
_HEX = np.full(256, 255, np.uint8)
_HEX[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_SPACE, _NEWLINE = ord(" "), ord("\n")
_TEXT_TYPES = np.frombuffer(b"tTwW", np.uint8)


@dataclass(frozen=True, slots=True)
class KernelSymbols:
    """All symbols of the kernel, functions and others (those end a function).

    Attributes:
        starts: uint64, shape (n,), rising. names: uint32 offsets in `text`, which has a newline behind each.
        is_text: bool, shape (n,).
        restricted: the kernel hides its addresses from this process.
        malformed: lines that could not be read.
    """

    starts: Array
    names: Array
    is_text: Array
    text: bytes = field(repr=False)
    restricted: bool = False
    malformed: int = 0

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def memory_bytes(self) -> int:
        return 13 * len(self.starts) + len(self.text)

    def find(self, address: int) -> tuple[str, str]:
        """Function and module (empty: the kernel itself) at an address; ("", "") when unknown."""
        if not 0 <= address < 1 << 64:
            return "", ""
        index = int(np.searchsorted(self.starts, np.uint64(address), side="right")) - 1
        if index < 0 or not self.is_text[index] or address - int(self.starts[index]) >= _MAX_FUNCTION_BYTES:
            return "", ""
        return self._name(index)

    def _name(self, index: int) -> tuple[str, str]:
        begin = int(self.names[index])
        line = self.text[begin : self.text.find(b"\n", begin)].decode("utf-8", "replace")
        name, _, module = line.partition("\t")
        return name, module.strip("[]")

    def image(self, build_id: str) -> Mapping:
        """The kernel's own code, from its first to its last byte; 0 where the list does not say."""
        begin, end = (self._address_of(name) for name in (b"_stext", b"_etext"))
        return Mapping(IMAGE, build_id, begin, end, 0)

    def _address_of(self, name: bytes) -> int:
        line = re.search(rb"\n([0-9a-f]+) . %b\n" % name, self.text)
        return int(line[1], 16) if line else 0


def read_kallsyms(path: Path = Path("/proc/kallsyms")) -> KernelSymbols:
    """The kernel's symbols; empty when the file cannot be read."""
    try:
        with path.open("rb") as file:
            return parse_kallsyms(file.read(MAX_BYTES))
    except OSError:
        return parse_kallsyms(b"")


def parse_kallsyms(text: bytes) -> KernelSymbols:
    """Read the text of /proc/kallsyms.

    Every address has the same width, that of the first line; lines of another form are counted and passed over.
    """
    text = b"\n" + text + b"\n"
    width = text.find(b" ", 1) - 1
    data = np.frombuffer(text, np.uint8)
    lines = np.flatnonzero(data == _NEWLINE)[:-1] + 1
    lines = lines[data[lines] != _NEWLINE]  # empty ones
    total = len(lines)
    if not 0 < width <= 16:  # noqa: PLR2004
        return _none(malformed=total)
    lines = lines[lines + width + 4 <= len(data)]
    digits = _HEX[data[lines[:, None] + np.arange(width)]]
    fits = (digits < 16).all(1) & (data[lines + width] == _SPACE) & (data[lines + width + 2] == _SPACE)  # noqa: PLR2004
    lines, digits = lines[fits], digits[fits]
    weights = np.uint64(1) << (np.arange(width - 1, -1, -1, dtype=np.uint64) * np.uint64(4))
    addresses = (digits.astype(np.uint64) * weights).sum(1, dtype=np.uint64)
    if len(addresses) and not addresses.any():
        return _none(restricted=True, malformed=total - len(lines))
    return _sorted(addresses, lines + width, text, total - len(lines))


def _sorted(addresses: Array, types_at: Array, text: bytes, malformed: int) -> KernelSymbols:
    """Rising by address; of several names at one address a function's, then the first in the file."""
    data = np.frombuffer(text, np.uint8)
    is_text = np.isin(data[types_at + 1], _TEXT_TYPES)
    order = np.lexsort((types_at, ~is_text, addresses))
    addresses = addresses[order]
    first = np.ones(len(order), bool)
    first[1:] = addresses[1:] != addresses[:-1]
    order = order[first]
    names = (types_at[order] + 3).astype(np.uint32)
    return KernelSymbols(addresses[first], names, is_text[order], text, malformed=malformed)


def _none(*, restricted: bool = False, malformed: int = 0) -> KernelSymbols:
    return KernelSymbols(
        np.empty(0, np.uint64), np.empty(0, np.uint32), np.empty(0, bool), b"\n", restricted, malformed
    )
