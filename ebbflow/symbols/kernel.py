"""Frames of kernel stacks: kallsyms, read at the first one and again when modules may have come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ebbflow.symbols.elf import gnu_build_id
from ebbflow.symbols.frames import Frame, FrameKind, Mapping
from ebbflow.symbols.kallsyms import KernelSymbols, parse_kallsyms, read_kallsyms
from ebbflow.symbols.pace import Pace

_LEAST_S, _MOST_S = 30.0, 600.0
_MAX_KNOWN = 1 << 15


class Kernel:
    """Kernel addresses to frames.

    Args:
        proc: where `kallsyms` is.
        notes: the running kernel's ELF notes; they hold its build id.
        now: monotonic seconds.
    """

    def __init__(self, proc: Path, now: Callable[[], float], *, notes: Path = Path("/sys/kernel/notes")) -> None:
        self._path, self._notes = proc / "kallsyms", notes
        self._symbols: KernelSymbols = parse_kallsyms(b"")
        self._pace = Pace(_LEAST_S, _MOST_S, now)
        self._mappings: dict[str, Mapping] = {}
        self._known: dict[tuple[int, bool], tuple[Frame, str]] = {}
        self.troubles: Counter[str] = Counter()

    @property
    def memory_bytes(self) -> int:
        return self._symbols.memory_bytes

    def frame(self, address: int, *, is_leaf: bool) -> tuple[Frame, str]:
        """The frame, and why it has no function (empty when it has one)."""
        key = address, is_leaf
        if key not in self._known:
            found = self._find(address if is_leaf else address - 1, address)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[key] = found
        return self._known[key]

    def _find(self, lookup: int, address: int) -> tuple[Frame, str]:
        function, module = self._symbols.find(lookup)
        if not function and self._pace.is_due() and self._read():
            function, module = self._symbols.find(lookup)
        mapping = self._mapping(module) if function else None
        reason = "" if function else "kernel_restricted" if self._symbols.restricted else "kernel_unknown"
        return Frame(FrameKind.KERNEL, function, address, mapping, lookup if function else 0), reason

    def _read(self) -> bool:
        symbols = read_kallsyms(self._path)
        changed = len(symbols) != len(self._symbols)
        self._pace.done(new=changed)
        if changed or symbols.restricted:
            self._symbols = symbols
            self._known.clear()
            self._mappings.clear()
            self.troubles["malformed_kallsyms_lines"] = symbols.malformed
        return changed

    def _mapping(self, module: str) -> Mapping:
        """The kernel's image with its build id, or a module (whose addresses kallsyms does not tell)."""
        if module not in self._mappings:
            self._mappings[module] = (
                Mapping(f"[{module}]", "", 0, 0, 0) if module else self._symbols.image(self._build_id())
            )
        return self._mappings[module]

    def _build_id(self) -> str:
        try:
            return gnu_build_id(self._notes.read_bytes())
        except OSError:
            return ""
