"""What runtimes write into perf maps, taken apart: function, file, line.

V8        JS:*handler /srv/app.js:12:20   LazyCompile:~handler /srv/app.js:12:20    the sign is the compiler's tier
          Function:~handler …             Script:~ /srv/app.js:1:1                  Builtin:ArrayMap   RegExp:a+b
CPython   py::handler:/srv/app.py         3.12 and later with -X perf
others    as they are: Java writes signatures, .NET `[Assembly] Type::Method[OptimizedTier1]`
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ebbflow.symbols.frames import FrameKind

_V8 = re.compile(
    r"(JS|LazyCompile|Function|Script|Eval):[*~^+']*(\S*)(?: (.+?)(?::(\d{1,9}))?(?::\d{1,9})?)?", re.DOTALL
)
_PYTHON = re.compile(r"py::([^:]*):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class JitName:
    kind: FrameKind
    function: str
    file: str = ""
    line: int = 0


def read_name(name: str) -> JitName:
    """Take an entry's name apart. V8's tiers of one function become one."""
    if match := _PYTHON.fullmatch(name):
        return JitName(FrameKind.INTERPRETED, match[1], match[2])
    if (match := _V8.fullmatch(name)) is None:
        return JitName(FrameKind.JIT, name)
    function = match[2] or ("(script)" if match[1] == "Script" else "(anonymous)")
    return JitName(FrameKind.JIT, function, match[3] or "", int(match[4] or 0))
