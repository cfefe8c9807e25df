from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ebbflow.symbols import FrameKind, python311
from ebbflow.symbols.python311 import CodeName, Memory, PythonCode, code_name, find_runtime, runtime_address, self_test

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11) or sys.maxsize < 2**32, reason="looks at CPython 3.11, 64 bit"
)

PROGRAM = """
import sys, threading

class Worker:
    def größe(self):
        print(threading.get_native_id(), flush=True)
        sys.stdin.readline()

def outer():
    sorted([1], key=lambda item: Worker().größe())

if sys.argv[1] == "thread":
    thread = threading.Thread(target=outer)
    thread.start()
    thread.join()
else:
    outer()
"""


@pytest.fixture
def program(tmp_path, started):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)

    def start(how="main"):
        process = started(sys.executable, "-S", path, how)
        return process.pid, int(process.first_line), str(path)

    return start


@pytest.fixture
def waiting():
    """Until the thread sleeps in a system call: nothing moves any more."""

    def wait(pid, tid):
        until = time.monotonic() + 10
        while Path(f"/proc/{pid}/task/{tid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < until
        return pid, tid

    return wait


def test_frames_of_another_process_are_named(program, waiting):
    pid, tid, path = program()
    waiting(pid, tid)
    code = PythonCode(pid)
    frames = code.frames(code.walk(tid))
    assert [(frame.function, frame.file, frame.line) for frame in frames] == [
        ("Worker.größe", path, 5),
        ("outer.<locals>.<lambda>", path, 10),
        ("outer", path, 9),
        ("<module>", path, 1),
    ]
    assert {frame.kind for frame in frames} == {FrameKind.INTERPRETED}


def test_frames_of_a_thread_are_its_own(program, waiting):
    pid, tid, _ = program("thread")
    waiting(pid, tid)
    code = PythonCode(pid)
    names = [frame.function for frame in code.frames(code.walk(tid))]
    assert names[:3] + names[-1:] == ["Worker.größe", "outer.<locals>.<lambda>", "outer", "Thread._bootstrap"]
    assert [frame.function for frame in code.frames(code.walk(pid))][-1] == "<module>"
    assert self_test(pid, tid)


def test_the_self_test_holds_here_and_fails_with_other_offsets(program, waiting, monkeypatch):
    pid, tid, _ = program()
    waiting(pid, tid)
    assert self_test(pid, tid)
    for name in ("FRAME_CODE", "THREAD_CFRAME", "INTERPRETER_THREADS_HEAD", "THREAD_NATIVE_ID", "_OBJECT_TYPE"):
        with monkeypatch.context() as patch:
            patch.setattr(python311, name, getattr(python311, name) + 8)
            assert not self_test(pid, tid), name


def test_own_code_objects_are_read():
    code = test_own_code_objects_are_read.__code__
    assert runtime_address(os.getpid()) == find_runtime(os.getpid()).address > 0
    assert code_name(os.getpid(), id(code)) == (code.co_qualname, code.co_filename, code.co_firstlineno)


def test_other_objects_are_no_code_objects():
    known = PythonCode(os.getpid())
    unrelated = [object(), "text", []]
    assert [known.name(id(thing)) for thing in unrelated] == [None] * 3
    assert [known.name(address) for address in (0, 16, 1 << 47, (1 << 64) - 8)] == [None] * 4
    assert known.frames([16])[0].function == ""


@pytest.mark.parametrize("text", ["", "plain", "größe", "Ωmega", "𝛼𝛽", "x" * 2000])
def test_strings_of_every_width_are_read(text):
    memory = Memory(Path("/proc/self"))
    assert memory.text(id(text), id(str)) == text[:1024]
    assert memory.text(id(text), id(bytes)) is None


def test_a_name_is_read_once_and_kept(monkeypatch):
    monkeypatch.setattr(python311, "_MAX_KNOWN", 1)
    known = PythonCode(os.getpid())
    first, second = (lambda: 1).__code__, (lambda: 2).__code__
    assert isinstance(known.name(id(first)), CodeName)
    assert known.name(id(first)) is known.name(id(first))
    known.name(id(second))
    assert len(known._known) == 1


def test_other_programs_have_no_runtime():
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert find_runtime(child.pid) is None
        assert not self_test(child.pid, child.pid)
        assert PythonCode(child.pid).walk(child.pid) == []
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert runtime_address(child.pid) == 0


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(python311, "_VERSION", 0x030C)
    assert find_runtime(os.getpid()) is None


LAYOUT = """
#define Py_BUILD_CORE
#include <Python.h>
#include <stddef.h>
#include <internal/pycore_runtime.h>
#include <internal/pycore_interp.h>
#include <internal/pycore_frame.h>
#define P(name, type, member) printf(#name " %zu\\n", offsetof(type, member))
int main(void) {
	P(RUNTIME_INTERPRETERS_HEAD, _PyRuntimeState, interpreters.head);
	P(INTERPRETER_NEXT, PyInterpreterState, next);
	P(INTERPRETER_THREADS_HEAD, PyInterpreterState, threads.head);
	P(THREAD_NEXT, PyThreadState, next);
	P(THREAD_INTERPRETER, PyThreadState, interp);
	P(THREAD_CFRAME, PyThreadState, cframe);
	P(THREAD_NATIVE_ID, PyThreadState, native_thread_id);
	P(CFRAME_CURRENT_FRAME, _PyCFrame, current_frame);
	P(FRAME_CODE, _PyInterpreterFrame, f_code);
	P(FRAME_PREVIOUS, _PyInterpreterFrame, previous);
	P(FRAME_IS_ENTRY, _PyInterpreterFrame, is_entry);
	P(_OBJECT_TYPE, PyObject, ob_type);
	P(_CODE_FIRST_LINE, PyCodeObject, co_firstlineno);
	P(_CODE_FILENAME, PyCodeObject, co_filename);
	P(_CODE_QUALNAME, PyCodeObject, co_qualname);
	P(_TEXT_LENGTH, PyASCIIObject, length);
	P(_TEXT_STATE, PyASCIIObject, state);
	printf("_TEXT_ASCII_BYTES %zu\\n_TEXT_COMPACT_BYTES %zu\\n", sizeof(PyASCIIObject), sizeof(PyCompactUnicodeObject));
}
"""


@pytest.mark.skipif(
    not Path("/usr/include/python3.11/internal/pycore_frame.h").exists() or shutil.which("gcc") is None,
    reason="needs Python 3.11's headers (libpython3.11-dev) and gcc",
)
def test_offsets_are_those_of_pythons_headers(compiled):
    program = compiled("layout", LAYOUT, "-I/usr/include/python3.11")
    told = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    offsets = {name: int(offset) for name, offset in (line.split() for line in told.splitlines())}
    assert offsets == {name: getattr(python311, name) for name in offsets}
