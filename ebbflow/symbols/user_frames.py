"""Frames of one process's user stacks, each worked out once."""

from __future__ import annotations

from ebbflow.symbols.binaries import NOT_ELF, Binary
from ebbflow.symbols.demangle import Demangler
from ebbflow.symbols.frames import Frame, FrameKind, Mapping
from ebbflow.symbols.jit_names import read_name
from ebbflow.symbols.mappings import Area, Backing
from ebbflow.symbols.processes import Process
from ebbflow.symbols.vdso import read_vdso

_MAX_KNOWN = 1 << 13
_MAX_FILES = 1 << 12
_MOST = 0.5

Found = tuple[Frame, str]  # with the reason why it has no function; empty when it has one


class FramePointers:
    """In which files most functions set up a frame pointer, and in which they do not."""

    def __init__(self) -> None:
        self._shares: dict[tuple[str, str], float] = {}

    def learn(self, mapping: Mapping, binary: Binary) -> None:
        if binary.frame_pointers is not None and len(self._shares) < _MAX_FILES:
            self._shares[mapping.path, mapping.build_id] = binary.frame_pointers

    def lacks(self, mapping: Mapping) -> bool:
        """Whether it is known that most functions of a file do without."""
        return self._shares.get((mapping.path, mapping.build_id), 1.0) < _MOST


class UserFrames:
    """Addresses of one process to frames, with a bounded cache that empties when the process's memory changes."""

    def __init__(self, process: Process, demangler: Demangler, frame_pointers: FramePointers) -> None:
        self.process = process
        self._demangler, self._frame_pointers = demangler, frame_pointers
        self._known: dict[tuple[int, bool], Found] = {}

    def refresh(self, *, older_than_s: float = 0.0) -> bool:
        """Read what may have changed; True when something did."""
        changed = self.process.refresh_areas(older_than_s=older_than_s)
        if self.process.perf_map is not None:
            changed |= self.process.refresh_perf_map()
        if changed:
            self._known.clear()
        return changed

    def frame(self, address: int, *, is_leaf: bool) -> Found:
        """The frame at an address. Of a caller, the byte before counts: the call, not what stands behind it."""
        key = address, is_leaf
        if (known := self._known.get(key)) is not None:
            return known
        found = self._find(address, address if is_leaf else address - 1)
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        if self._is_lasting(found):
            self._known[key] = found
        return found

    def _is_lasting(self, found: Found) -> bool:
        """Whether asking again would give the same: an address that nothing is known of may become known."""
        return found[1] not in {"unmapped", "process_gone", "jit_without_perf_map", "jit_not_in_perf_map"}

    def _find(self, address: int, lookup: int) -> Found:
        area = self.process.area(lookup)
        if area is None and self.refresh():
            area = self.process.area(lookup)
        if area is None:
            reason = "unmapped" if self.process.was_read else "process_gone"
            return Frame(FrameKind.UNKNOWN, "", address), reason
        if area.backing is Backing.ANONYMOUS:
            return self._jit_frame(area, address, lookup)
        mapping, binary = self._mapped(area)
        return self._native_frame(mapping, binary, address, lookup)

    def _mapped(self, area: Area) -> tuple[Mapping, Binary]:
        mapping, binary = self.process.mapped(area)
        if area.backing is Backing.VDSO:
            binary = read_vdso(area.limit - area.start)
            mapping = Mapping(area.path, binary.build_id, area.start, area.limit, 0)
        self._frame_pointers.learn(mapping, binary)
        return mapping, binary

    def _native_frame(self, mapping: Mapping, binary: Binary, address: int, lookup: int) -> Found:
        vaddr = binary.vaddr_of(lookup - mapping.start + mapping.offset)
        index = binary.table.find(vaddr)
        if index < 0 and lookup != address:  # where signal handlers return to: before its first byte stands no call
            index = binary.table.find(vaddr + 1)
        function = self._name(binary, index) if index >= 0 else ""
        return Frame(FrameKind.NATIVE, function, address, mapping, vaddr), "" if function else _reason(binary)

    def _name(self, binary: Binary, index: int) -> str:
        if index not in binary.names:
            binary.names[index] = self._demangler.demangle(binary.table.name(index))
        return binary.names[index]

    def _jit_frame(self, area: Area, address: int, lookup: int) -> Found:
        mapping, _ = self.process.mapped(area)
        name = self._perf_map_name(lookup)
        if name is None:
            reason = "jit_without_perf_map" if self.process.perf_map is None else "jit_not_in_perf_map"
            return Frame(FrameKind.JIT, "", address, mapping), reason
        read = read_name(name)
        return Frame(read.kind, read.function, address, mapping, 0, read.file, read.line), ""

    def _perf_map_name(self, address: int) -> str | None:
        perf_map = self.process.perf_map
        name = perf_map.find(address) if perf_map is not None else None
        if name is None and self.process.refresh_perf_map():
            self._known.clear()
            perf_map = self.process.perf_map
            name = perf_map.find(address) if perf_map is not None else None
        return name


def _reason(binary: Binary) -> str:
    if binary is NOT_ELF or not binary.is_elf:
        return "file_unreadable"
    return "stripped" if binary.stripped else "no_symbol"
