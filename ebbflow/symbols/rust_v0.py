"""Rust's v0 names (RFC 2603) back to paths, as rustc-demangle's short form prints them.

Crate hashes, lifetimes of generic arguments and types of constants are left out. Back references can make a short name
expand without end, so output and work are bounded: a name that exceeds a bound, or does not keep to the grammar, gives
None.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

MAX_OUTPUT_CHARACTERS = 4096
_MAX_STEPS = 4096
_MAX_DEPTH = 100

_BASIC_TYPES = {
    "a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8", "i": "isize", "j": "usize",
    "l": "i32", "m": "u32", "n": "i128", "o": "u128", "p": "_", "s": "i16", "t": "u16", "u": "()", "v": "...",
    "x": "i64", "y": "u64", "z": "!",
}  # fmt: skip
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


_DECIMAL = re.compile(r"0|[1-9]\d{0,4}")
_HEX = re.compile(r"[0-9a-f]{0,32}")


class _Invalid(Exception):
    """The name does not keep to the grammar, or to a bound."""


def v0_name(text: str) -> str | None:
    text = text.partition(".")[0]
    if not text.isascii() or text[:1].isdigit():  # a digit here is the encoding's version; there is only the first
        return None
    try:
        name = _V0(text).path()
    except (_Invalid, RecursionError):
        return None
    return name if len(name) <= MAX_OUTPUT_CHARACTERS else None


class _V0:
    """Recursive descent over a v0 name; each method reads one rule of the RFC and returns its text."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._steps = self._depth = 0

    def path(self, *, in_value: bool = True) -> str:
        return self._bounded(partial(self._path, in_value=in_value))

    def _bounded(self, rule: Callable[[], str]) -> str:
        self._steps += 1
        self._depth += 1
        if self._steps > _MAX_STEPS or self._depth > _MAX_DEPTH:
            raise _Invalid
        text = rule()
        if len(text) > MAX_OUTPUT_CHARACTERS:
            raise _Invalid
        self._depth -= 1
        return text

    def _path(self, *, in_value: bool) -> str:
        tag = self._next()
        if tag == "C":
            return self._identifier()[0]
        if tag == "N":
            return self._nested(in_value=in_value)
        if tag in "MX":
            self._disambiguator()
            self.path(in_value=False)  # where the impl block stands: not part of the name
        if tag in "MXY":
            subject = self._type()
            return f"<{subject}>" if tag == "M" else f"<{subject} as {self.path(in_value=False)}>"
        if tag == "I":
            generic = self.path(in_value=in_value)
            arguments = ", ".join(filter(None, self._until_end(self._generic_argument)))
            return f"{generic}{'::' if in_value else ''}<{arguments}>" if arguments else generic
        if tag == "B":
            return self._back_reference(partial(self.path, in_value=in_value))
        raise _Invalid

    def _nested(self, *, in_value: bool) -> str:
        namespace = self._next()
        parent = self.path(in_value=in_value)
        name, number = self._identifier()
        if namespace.isupper():  # closures, shims: no name of their own
            kind = {"C": "closure", "S": "shim"}.get(namespace, namespace)
            return f"{parent}::{{{kind}{':' + name if name else ''}#{number}}}"
        return f"{parent}::{name}" if name else parent

    def _identifier(self) -> tuple[str, int]:
        number = self._disambiguator()
        return self._plain_identifier(), number

    def _plain_identifier(self) -> str:
        is_punycode = self._eat("u")
        length = self._decimal()
        self._eat("_")
        if self._at + length > len(self._text):
            raise _Invalid
        name = self._text[self._at : self._at + length]
        self._at += length
        return _from_punycode(name) if is_punycode else name

    def _type(self) -> str:
        return self._bounded(self._type_unbounded)

    def _type_unbounded(self) -> str:  # noqa: PLR0911 - one rule of the grammar each
        tag = self._next()
        if tag in _BASIC_TYPES:
            return _BASIC_TYPES[tag]
        if tag in "RQPO":
            if tag in "RQ" and self._eat("L"):
                self._base_62()
            return {"R": "&", "Q": "&mut ", "P": "*const ", "O": "*mut "}[tag] + self._type()
        if tag == "A":
            return f"[{self._type()}; {self._constant()}]"
        if tag == "S":
            return f"[{self._type()}]"
        if tag == "T":
            parts = self._until_end(self._type)
            return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
        if tag == "F":
            return self._function()
        if tag == "D":
            return self._dynamic()
        if tag == "B":
            return self._back_reference(self._type)
        self._at -= 1
        return self.path(in_value=False)

    def _function(self) -> str:
        self._binder()
        prefix = "unsafe " if self._eat("U") else ""
        if self._eat("K"):
            abi = "C" if self._eat("C") else self._plain_identifier().replace("_", "-")
            prefix += f'extern "{abi}" '
        arguments = ", ".join(self._until_end(self._type))
        result = self._type()
        return f"{prefix}fn({arguments}){'' if result == '()' else f' -> {result}'}"

    def _dynamic(self) -> str:
        self._binder()
        traits = " + ".join(self._until_end(self._trait))
        if not self._eat("L"):
            raise _Invalid
        self._base_62()
        return f"dyn {traits}"

    def _trait(self) -> str:
        trait = self.path(in_value=False)
        bindings = []
        while self._eat("p"):
            bindings.append(f"{self._plain_identifier()} = {self._type()}")
        if not bindings:
            return trait
        joined = ", ".join(bindings)
        return f"{trait[:-1]}, {joined}>" if trait.endswith(">") else f"{trait}<{joined}>"

    def _generic_argument(self) -> str:
        if self._eat("L"):
            self._base_62()
            return ""
        return self._constant() if self._eat("K") else self._type()

    def _constant(self) -> str:
        return self._bounded(self._constant_unbounded)

    def _constant_unbounded(self) -> str:
        if self._eat("B"):
            return self._back_reference(self._constant)
        kind = self._next()
        if kind == "p":
            return "_"
        if kind not in "abchijlmnostxy":
            raise _Invalid  # structural constants are not stable
        sign = "-" if self._eat("n") else ""
        end = self._text.find("_", self._at)
        digits = self._text[self._at : end] if end >= 0 else ""
        if end < 0 or not _HEX.fullmatch(digits):
            raise _Invalid
        self._at = end + 1
        return _constant_text(kind, sign, int(digits or "0", 16))

    def _until_end(self, rule: Callable[[], str]) -> list[str]:
        parts = []
        while not self._eat("E"):
            parts.append(rule())
        return parts

    def _back_reference(self, rule: Callable[[], str]) -> str:
        start = self._at - 1
        target = self._base_62()
        if target >= start:
            raise _Invalid
        resume, self._at = self._at, target
        text = rule()
        self._at = resume
        return text

    def _binder(self) -> None:
        if self._eat("G"):
            self._base_62()

    def _disambiguator(self) -> int:
        return self._base_62() + 1 if self._eat("s") else 0

    def _base_62(self) -> int:
        value = 0
        if self._eat("_"):
            return 0
        while not self._eat("_"):
            digit = _DIGITS.find(self._next())
            value = value * 62 + digit
            if digit < 0 or value >> 64:
                raise _Invalid
        return value + 1

    def _decimal(self) -> int:
        match = _DECIMAL.match(self._text, self._at)
        if match is None:
            raise _Invalid
        self._at = match.end()
        return int(match[0])

    def _eat(self, character: str) -> bool:
        eaten = self._text.startswith(character, self._at)
        self._at += eaten
        return eaten

    def _next(self) -> str:
        if self._at >= len(self._text):
            raise _Invalid
        self._at += 1
        return self._text[self._at - 1]


def _constant_text(kind: str, sign: str, value: int) -> str:
    if kind == "b":
        return "true" if value else "false"
    if kind == "c" and value < 0x110000 and not 0xD800 <= value < 0xE000:  # noqa: PLR2004
        return repr(chr(value))
    return f"{sign}{value}"


def _from_punycode(name: str) -> str:
    """RFC 3492, with _ in the place of its last -."""
    head, separator, tail = name.rpartition("_")
    try:
        return f"{head}{'-' if separator else ''}{tail}".encode().decode("punycode")
    except (UnicodeError, ValueError, OverflowError):
        raise _Invalid from None
