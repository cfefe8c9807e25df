"""Addresses to functions: processes, the kernel, files with and without symbols, code made at run time.

`Symbolizer` (symbolizer.py) is what producers use; `Frame`, `FrameKind` and `Mapping` (frames.py) are what it answers.
Nothing here raises for what it reads: programs, perf maps and /proc belong to others, may be damaged, gone or hostile.
"""

from ebbflow.symbols.frames import Frame, FrameKind, Mapping
from ebbflow.symbols.stacks import ends_early
from ebbflow.symbols.symbolizer import Symbolizer

__all__ = ["Frame", "FrameKind", "Mapping", "Symbolizer", "ends_early"]
