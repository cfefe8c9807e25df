"""CPython 3.11's own frames, seen from outside the process.

A program in the kernel walks, at the moment of a sample, from the thread that runs to the code objects of its Python
frames, by the offsets below; here the code objects get names, later and from the process's memory. Walking from here at
sample time would read frames that change meanwhile; code objects stay as long as their functions do.

    _PyRuntime  (exported by python3.11 or libpython3.11.so)
     +40  interpreters.head -> PyInterpreterState    +0  next
                                +16 threads.head     -> PyThreadState    +8 next    +160 native_thread_id
                                                         +56 cframe -> _PyCFrame
                                                                        +8 current_frame -> _PyInterpreterFrame
    _PyInterpreterFrame   +32 f_code -> PyCodeObject    +48 previous (0: the outermost)    +68 is_entry

`native_thread_id` is the thread's id in the process's own pid namespace. `is_entry` marks the frames that a native
`_PyEval_EvalFrameDefault` was called for; frames between two of them share one native frame.

Offsets are of 3.11 on 64-bit machines (Include/internal/pycore_runtime.h, pycore_interp.h, pycore_frame.h,
cpython/pystate.h, cpython/code.h), measured equal in 3.11.2 and 3.11.7; builds with Py_DEBUG or Py_TRACE_REFS differ.
`self_test` finds those, and every other version, out. 3.12 and later are named by perf maps (-X perf) instead.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ebbflow.symbols.elf import DYNSYM, ElfInvalid, parse_elf, vaddr_of
from ebbflow.symbols.frames import Frame, FrameKind
from ebbflow.symbols.mappings import Area, Backing, read_areas
from ebbflow.symbols.processes import open_mapped

RUNTIME_INTERPRETERS_HEAD = 40
INTERPRETER_NEXT, INTERPRETER_THREADS_HEAD = 0, 16
THREAD_NEXT, THREAD_INTERPRETER, THREAD_CFRAME, THREAD_NATIVE_ID = 8, 16, 56, 160
CFRAME_CURRENT_FRAME = 8
FRAME_CODE, FRAME_PREVIOUS, FRAME_IS_ENTRY = 32, 48, 68
MAX_FRAMES, MAX_THREADS = 128, 64

_OBJECT_TYPE = 8
_CODE_FIRST_LINE, _CODE_FILENAME, _CODE_QUALNAME, _CODE_BYTES = 72, 112, 128, 136
_TEXT_LENGTH, _TEXT_STATE, _TEXT_ASCII_BYTES, _TEXT_COMPACT_BYTES = 16, 32, 48, 72
_MAX_TEXT_CHARACTERS = 1024
_MAX_KNOWN = 1 << 14
_MAX_LINE = 1 << 30
_VERSION = 0x030B  # upper half of PY_VERSION_HEX


@dataclass(frozen=True, slots=True)
class CodeName:
    """A function as its code object names it; `first_line` is where it begins in the file."""

    qualname: str
    filename: str
    first_line: int


@dataclass(frozen=True, slots=True)
class Runtime:
    """Addresses in a process's memory: of `_PyRuntime` and of the type that all code objects have."""

    address: int
    code_type: int
    version_hex: int


def runtime_address(pid: int, proc: Path = Path("/proc")) -> int:
    """Where a process has `_PyRuntime`; 0 when it is no CPython 3.11, or cannot be read."""
    runtime = find_runtime(pid, proc)
    return runtime.address if runtime is not None else 0


def find_runtime(pid: int, proc: Path = Path("/proc")) -> Runtime | None:
    """The interpreter in a process, from the program or library that exports it; None when there is no 3.11."""
    folder = proc / str(pid)
    for area in read_areas(folder) or ():
        name = area.path.rpartition("/")[2]
        if area.backing is Backing.FILE and "python" in name:
            found = _runtime_in(folder, area)
            if found is not None:
                return found if found.version_hex >> 16 == _VERSION else None
    return None


def _runtime_in(folder: Path, area: Area) -> Runtime | None:
    file = open_mapped(folder, area)
    if file is None:
        return None
    with file:
        try:
            elf = parse_elf(file)
        except ElfInvalid:
            return None
        exported = elf.symbols(DYNSYM)
    bias = area.start - vaddr_of(elf.segments, area.offset, area.offset)
    names = (b"_PyRuntime", b"PyCode_Type", b"Py_Version")
    runtime, code_type, version = (exported.address_of(name) if exported is not None else 0 for name in names)
    if not (runtime and code_type and version):  # Py_Version is new in 3.11
        return None
    return Runtime(bias + runtime, bias + code_type, Memory(folder).word(bias + version))


class Memory:
    """Another process's memory; what cannot be read is zero, or empty."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "mem"

    def read(self, address: int, length: int) -> bytes:
        """Bytes at an address; fewer, or none, where nothing is mapped or the process may not be read."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.pread(fd, length, address)
        except (OSError, OverflowError):
            return b""
        finally:
            os.close(fd)

    def word(self, address: int) -> int:
        """A 64-bit number; 0 when it cannot be read."""
        return int.from_bytes(self.read(address, 8).ljust(8, b"\0"), "little")

    def text(self, address: int, text_type: int) -> str | None:
        """A compact `str` object (PEP 393), cut at 1024 characters; None when it is not one."""
        head = self.read(address, _TEXT_COMPACT_BYTES)
        if len(head) < _TEXT_COMPACT_BYTES or struct.unpack_from("<Q", head, _OBJECT_TYPE)[0] != text_type:
            return None
        (length,) = struct.unpack_from("<q", head, _TEXT_LENGTH)
        (state,) = struct.unpack_from("<I", head, _TEXT_STATE)
        width, compact, ascii_only = state >> 2 & 7, state >> 5 & 1, state >> 6 & 1
        if not compact or width not in {1, 2, 4} or length < 0:
            return None
        start = address + (_TEXT_ASCII_BYTES if ascii_only else _TEXT_COMPACT_BYTES)
        data = self.read(start, width * min(length, _MAX_TEXT_CHARACTERS))
        return data.decode({1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}[width], "replace")


class PythonCode:
    """Names of one process's code objects, each read once.

    A code object that is freed and its address taken by another keeps the first name: functions made over and over
    (exec, lambdas of reloaded modules) can be mistaken for one another.
    """

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        self.runtime = find_runtime(pid, proc)
        self._memory = Memory(proc / str(pid))
        self._known: OrderedDict[int, CodeName] = OrderedDict()
        self._text_type = 0

    def name(self, code_address: int) -> CodeName | None:
        """The function behind a code object; None when there is no code object."""
        known = self._known.get(code_address)
        if known is None:
            known = self._read(code_address)
            if known is not None:
                self._known[code_address] = known
                if len(self._known) > _MAX_KNOWN:
                    self._known.popitem(last=False)
        return known

    def frames(self, code_addresses: Sequence[int]) -> list[Frame]:
        """Interpreted frames, innermost first; without a name where a code object cannot be read."""
        return [self._frame(address) for address in code_addresses]

    def _frame(self, address: int) -> Frame:
        name = self.name(address)
        if name is None:
            return Frame(FrameKind.INTERPRETED, "", address)
        return Frame(FrameKind.INTERPRETED, name.qualname, address, None, 0, name.filename, name.first_line)

    def _read(self, address: int) -> CodeName | None:
        code = self._memory.read(address, _CODE_BYTES)
        if self.runtime is None or len(code) < _CODE_BYTES:
            return None
        kind, filename_at, qualname_at = (
            struct.unpack_from("<Q", code, offset)[0] for offset in (_OBJECT_TYPE, _CODE_FILENAME, _CODE_QUALNAME)
        )
        if kind != self.runtime.code_type:
            return None
        (line,) = struct.unpack_from("<i", code, _CODE_FIRST_LINE)
        # All strings of code objects are plain `str`, so the file name's type tells the type.
        self._text_type = self._text_type or self._memory.word(filename_at + _OBJECT_TYPE)
        filename = self._memory.text(filename_at, self._text_type)
        qualname = self._memory.text(qualname_at, self._text_type)
        if filename is None or not qualname or not 0 <= line < _MAX_LINE:
            return None
        return CodeName(qualname, filename, line)

    def walk(self, tid: int) -> list[int]:
        """Code objects of a thread's frames, innermost first, as the kernel's program walks them.

        For the self-test, and as that program's reference. The thread should not run: what changes meanwhile is wrong.

        Args:
            tid: in the process's own pid namespace.
        """
        word = self._memory.word
        interpreter = word(self.runtime.address + RUNTIME_INTERPRETERS_HEAD) if self.runtime is not None else 0
        thread = word(interpreter + INTERPRETER_THREADS_HEAD) if interpreter else 0
        for _ in range(MAX_THREADS):
            if not thread or word(thread + THREAD_NATIVE_ID) == tid:
                break
            thread = word(thread + THREAD_NEXT)
        else:
            return []
        codes: list[int] = []
        frame = word(word(thread + THREAD_CFRAME) + CFRAME_CURRENT_FRAME) if thread else 0
        while frame and len(codes) < MAX_FRAMES:
            codes.append(word(frame + FRAME_CODE))
            frame = word(frame + FRAME_PREVIOUS)
        return codes


def code_name(pid: int, code_address: int) -> tuple[str, str, int] | None:
    """Qualified name, file and first line of one code object; `PythonCode` is for more than one."""
    name = PythonCode(pid).name(code_address)
    return (name.qualname, name.filename, name.first_line) if name is not None else None


def self_test(pid: int, tid: int, proc: Path = Path("/proc")) -> bool:
    """Whether the offsets hold in a process: from a thread that runs Python code, frames must lead to code objects.

    True means: version 3.11; an interpreter whose first thread points back to it; a walk of 1 to 128 frames in which
    every one has a code object with a name, and whose outermost one is a module or a thread's start. A thread that runs
    meanwhile can fail the test by chance: try again, or stop it for the moment.
    """
    code = PythonCode(pid, proc)
    memory = Memory(proc / str(pid))
    if code.runtime is None:
        return False
    interpreter = memory.word(code.runtime.address + RUNTIME_INTERPRETERS_HEAD)
    thread = memory.word(interpreter + INTERPRETER_THREADS_HEAD)
    if not thread or memory.word(thread + THREAD_INTERPRETER) != interpreter:
        return False
    names = [code.name(address) for address in code.walk(tid)]
    outermost = names[-1] if names else None
    return all(names) and outermost is not None and outermost.qualname in {"<module>", "Thread._bootstrap"}
