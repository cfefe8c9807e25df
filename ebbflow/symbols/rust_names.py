"""Rust's mangled names, both schemes, back to paths.

legacy   _ZN4core3fmt5write17h0123456789abcdefE      core::fmt::write         (the hash is left out)
v0       _RNvNtCs1234_4core3fmt5write                core::fmt::write         (RFC 2603, see rust_v0.py)
"""

from __future__ import annotations

import re

from ebbflow.symbols.rust_v0 import MAX_OUTPUT_CHARACTERS, v0_name

_NUMBER = re.compile(r"\d{1,5}")
_LEGACY_HASH = re.compile(r"h[0-9a-f]{16}")
_LEGACY_ESCAPES = {
    "SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ",",
}  # fmt: skip
_ESCAPE = re.compile(r"\$(SP|BP|RF|LT|GT|LP|RP|C|u[0-9a-f]{1,6})\$")
_LLVM_SUFFIX = re.compile(r"\.llvm\.[0-9A-Fa-f@]+$")


def rust_name(name: str) -> str | None:
    """The path behind a mangled name; None when it is not one of Rust's."""
    name = _LLVM_SUFFIX.sub("", name)
    if name.startswith("_R"):
        return v0_name(name[2:])
    return _legacy_name(name) if name.startswith("_ZN") else None


def _legacy_name(name: str) -> str | None:
    parts, at = [], 3
    while match := _NUMBER.match(name, at):
        at = match.end() + int(match[0])
        parts.append(name[match.end() : at])
    if name[at : at + 1] != "E" or len(parts) < 2 or not _LEGACY_HASH.fullmatch(parts[-1]):  # noqa: PLR2004
        return None  # C++ has the same beginning, but not the hash
    return "::".join(_legacy_part(part) for part in parts[:-1])[:MAX_OUTPUT_CHARACTERS]


def _legacy_part(part: str) -> str:
    part = part.removeprefix("_") if part.startswith("_$") else part
    return _ESCAPE.sub(_unescaped, part).replace("..", "::")


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if code in _LEGACY_ESCAPES:
        return _LEGACY_ESCAPES[code]
    number = int(code[1:], 16)
    return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else match[0]  # noqa: PLR2004
