from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from ebbflow.identity import parse_stat
from ebbflow.symbols import Frame, FrameKind, Symbolizer

PROGRAM = """
#include <stdio.h>
#include <unistd.h>
#include <sys/mman.h>
__attribute__((noinline)) int hot(int n) { return n * 3; }
static __attribute__((noinline)) int local(int n) { return hot(n) + 1; }
int main(void) {
    void *jit = mmap(0, 65536, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("%p %p %p\\n", (void *)hot, (void *)local, jit);
    fflush(stdout);
    pause();
    return local(getpid());
}
"""
CXX = """
#include <cstdio>
#include <unistd.h>
namespace shop { template <typename T> struct Cart { __attribute__((noinline)) T total(T n) { return n + 1; } }; }
int main() {
    int (shop::Cart<int>::*total)(int) = &shop::Cart<int>::total;
    std::printf("%p\\n", *reinterpret_cast<void **>(&total));
    std::fflush(stdout);
    pause();
}
"""


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def symbolizer(clock):
    symbolizer = Symbolizer(now=lambda: clock[0])
    yield symbolizer
    symbolizer.close()


@pytest.fixture
def running(compiled, started):
    process = started(compiled("program", PROGRAM, "-O1", "-pie"))
    return process, [int(word, 16) for word in process.first_line.split()]


def start_ns(pid):
    ticks = parse_stat(Path(f"/proc/{pid}/stat").read_bytes())[1]
    return ticks * 10**9 // os.sysconf("SC_CLK_TCK") + 1234


def functions(frames):
    return [frame.function for frame in frames]


@pytest.mark.parametrize("flag", ["-pie", "-no-pie", "-static", "-static-pie"])
def test_functions_of_a_program_are_named(compiled, started, symbolizer, flag):
    process = started(compiled("program" + flag, PROGRAM, "-O1", flag))
    hot, local, _ = (int(word, 16) for word in process.first_line.split())
    assert functions(symbolizer.user(process.pid, start_ns(process.pid), [hot, local + 1])) == ["hot", "local"]


@pytest.mark.skipif(shutil.which("addr2line") is None, reason="needs addr2line")
def test_file_addresses_are_what_addr2line_takes(compiled, running, symbolizer):
    process, (hot, local, _) = running
    program = compiled("program", PROGRAM)
    frames = symbolizer.user(process.pid, 0, [hot, local + 2])
    told = [
        subprocess.run(
            ["addr2line", "-fe", program, hex(f.file_address)], capture_output=True, text=True, check=True
        ).stdout.split()[0]
        for f in frames
    ]
    assert told == functions(frames) == ["hot", "local"]
    mapping = frames[0].mapping
    assert (mapping.path, mapping.start <= hot < mapping.limit) == (str(program), True)
    assert (
        mapping.build_id
        in subprocess.run(["readelf", "-n", program], capture_output=True, text=True, check=True).stdout
    )


def test_a_caller_is_the_function_of_the_call_not_of_the_return_address(running, symbolizer):
    process, (hot, local, _) = running
    follows = max(hot, local)
    frames = symbolizer.user(process.pid, 0, [follows, follows])
    assert (frames[1].address, frames[1].file_address) == (follows, frames[0].file_address - 1)
    assert functions(frames)[0] != functions(frames)[1]


def test_cxx_names_are_demangled(compiled, started, symbolizer):
    process = started(compiled("cart", CXX, "-O1", language="c++"))
    frame = symbolizer.user(process.pid, 0, [int(process.first_line, 16)])[0]
    assert frame.function == "shop::Cart<int>::total(int)"


def test_a_stripped_program_gives_mapping_and_file_address(compiled, started, symbolizer, tmp_path):
    subprocess.run(["strip", "-o", tmp_path / "stripped", compiled("program", PROGRAM, "-O1", "-pie")], check=True)
    process = started(tmp_path / "stripped")
    hot = int(process.first_line.split()[0], 16)
    frame = symbolizer.user(process.pid, 0, [hot])[0]
    assert (frame.kind, frame.function, frame.mapping.path) == (FrameKind.NATIVE, "", str(tmp_path / "stripped"))
    assert frame.file_address == hot - frame.mapping.start + frame.mapping.offset  # a PIE's text is at its offset
    assert symbolizer.stats.unsymbolized == {"stripped": 1}


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_program_that_is_gone_from_its_path_is_still_read(compiled, started, symbolizer, tmp_path, how):
    path = tmp_path / "program"
    shutil.copy(compiled("program", PROGRAM, "-O1", "-pie"), path)
    process = started(path)
    path.unlink()
    if how == "replaced":
        path.write_text("another")
    frame = symbolizer.user(process.pid, 0, [int(process.first_line.split()[0], 16)])[0]
    assert (frame.function, frame.mapping.path) == ("hot", str(path))


def test_without_map_files_a_replaced_library_is_not_mistaken(compiled, started, tmp_path, monkeypatch):
    path = tmp_path / "program"
    shutil.copy(compiled("program", PROGRAM, "-O1", "-pie"), path)
    process = started(path)
    monkeypatch.setattr("ebbflow.symbols.processes.open_file", lambda path: None)
    hot = int(process.first_line.split()[0], 16)
    assert functions(Symbolizer().user(process.pid, 0, [hot])) == ["hot"]
    path.rename(tmp_path / "old")  # the kernel then shows the new name
    shutil.copy(tmp_path / "old", path)
    symbolizer = Symbolizer()
    assert functions(symbolizer.user(process.pid, 0, [hot])) == ["hot"]
    (tmp_path / "old").unlink()
    symbolizer = Symbolizer()
    assert functions(symbolizer.user(process.pid, 0, [hot])) == [""]
    assert symbolizer.stats.troubles == {"files_not_opened": 1}


def test_the_vdso_has_names(symbolizer):
    line = next(line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[vdso]"))
    start, limit = (int(part, 16) for part in line.split()[0].split("-"))
    names = set(functions(symbolizer.user(os.getpid(), 0, range(start, limit, 4))))
    assert "clock_gettime" in {name.removeprefix("__vdso_") for name in names}


def test_an_address_in_no_mapping_is_unknown(running, symbolizer):
    assert symbolizer.user(running[0].pid, 0, [16]) == [Frame(FrameKind.UNKNOWN, "", 16)]
    assert symbolizer.stats.unsymbolized == {"unmapped": 1}


def test_a_process_that_is_gone_gives_frames_without_names(symbolizer):
    child = subprocess.Popen(["true"])
    child.wait()
    assert [frame.kind for frame in symbolizer.user(child.pid, 0, [0x401000, 0x402000])] == [FrameKind.UNKNOWN] * 2
    assert symbolizer.stats.unsymbolized == {"process_gone": 2}


def test_late_samples_of_a_process_that_was_seen_are_named(running, symbolizer, clock):
    process, (hot, local, _) = running
    symbolizer.user(process.pid, 0, [hot])
    process.kill()
    process.wait()
    symbolizer.exited(process.pid)
    clock[0] += 100
    assert functions(symbolizer.user(process.pid, 0, [local + 1])) == ["local"]
    symbolizer.exited(999_999_999)


def test_a_later_process_with_the_same_pid_is_not_taken_for_the_first(running, symbolizer):
    process, (hot, *_) = running
    began = start_ns(process.pid)
    assert functions(symbolizer.user(process.pid, began, [hot])) == ["hot"]
    assert functions(symbolizer.user(process.pid, began + 10**9, [hot])) == [""]
    assert symbolizer.stats.unsymbolized == {"process_gone": 1}


def perf_map_of(process, text, mode=0o644):
    path = Path(f"/tmp/perf-{process.pid}.map")
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def jit(running):
    process, (_, _, address) = running
    yield process, address
    Path(f"/tmp/perf-{process.pid}.map").unlink(missing_ok=True)


def test_code_made_at_run_time_has_no_name_without_a_perf_map(jit, symbolizer):
    process, address = jit
    frame = symbolizer.user(process.pid, 0, [address + 8])[0]
    assert (frame.kind, frame.function, frame.mapping.path) == (FrameKind.JIT, "", "[anon]")
    assert symbolizer.stats.unsymbolized == {"jit_without_perf_map": 1}


def test_a_perf_map_that_grows_is_read_again_when_due(jit, symbolizer, clock):
    process, address = jit
    path = perf_map_of(process, f"{address:x} 40 JS:*first /app.js:7:1\n")
    frame = symbolizer.user(process.pid, 0, [address + 8])[0]
    assert (frame.kind, frame.function, frame.file, frame.line) == (FrameKind.JIT, "first", "/app.js", 7)
    with path.open("a") as file:
        file.write(f"{address:x} 20 second\n{address + 64:x} 20 py::third:/app.py\n")
    clock[0] += 0.5
    assert functions(symbolizer.user(process.pid, 0, [address + 8, address + 72])) == ["first", ""]
    clock[0] += 0.6
    frames = symbolizer.user(process.pid, 0, [address + 8, address + 72])
    assert functions(frames) == ["second", "third"]
    assert frames[1].kind is FrameKind.INTERPRETED
    assert symbolizer.stats.symbolized == {"jit": 3, "interpreted": 1}
    assert symbolizer.stats.unsymbolized == {"jit_not_in_perf_map": 1}


def test_a_perf_map_that_everybody_may_write_is_refused(jit, symbolizer):
    process, address = jit
    perf_map_of(process, f"{address:x} 40 forged\n", mode=0o666)
    assert functions(symbolizer.user(process.pid, 0, [address])) == [""]
    assert symbolizer.stats.troubles == {"perf_maps_refused": 1}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_perf_map_of_another_user_is_refused(jit, symbolizer):
    process, address = jit
    os.chown(perf_map_of(process, f"{address:x} 40 forged\n"), 65534, 65534)
    assert functions(symbolizer.user(process.pid, 0, [address])) == [""]
    assert symbolizer.stats.troubles == {"perf_maps_refused": 1}


def test_a_perf_map_that_is_a_link_is_not_followed(jit, symbolizer, tmp_path):
    process, address = jit
    (tmp_path / "elsewhere").write_text(f"{address:x} 40 forged\n")
    Path(f"/tmp/perf-{process.pid}.map").symlink_to(tmp_path / "elsewhere")
    assert functions(symbolizer.user(process.pid, 0, [address])) == [""]
    assert symbolizer.stats.unsymbolized == {"jit_without_perf_map": 1}


LOADER = """
import ctypes, sys
print("ready", flush=True)
sys.stdin.readline()
library = ctypes.CDLL(sys.argv[1])
print(ctypes.cast(library.from_library, ctypes.c_void_p).value, flush=True)
sys.stdin.readline()
"""


def test_a_library_that_is_loaded_later_is_found_when_reading_is_due(compiled, started, symbolizer, clock):
    library = compiled("library.so", "int from_library(void) { return 5; }", "-shared", "-fPIC")
    process = started(sys.executable, "-S", "-c", LOADER, library)
    symbolizer.user(process.pid, 0, [16])
    process.stdin.write("\n")
    process.stdin.flush()
    address = int(process.stdout.readline())
    assert functions(symbolizer.user(process.pid, 0, [address])) == [""]
    clock[0] += 5
    assert functions(symbolizer.user(process.pid, 0, [address])) == ["from_library"]
    process.communicate("\n")


def test_misses_wait_longer_and_longer(running, clock, monkeypatch):
    reads = []
    monkeypatch.setattr("ebbflow.symbols.processes.read_areas", lambda folder: reads.append(clock[0]))
    symbolizer = Symbolizer(now=lambda: clock[0])
    for _ in range(100):
        symbolizer.user(running[0].pid, 0, [16])
        clock[0] += 1
    assert [int(b - a) for a, b in pairwise(reads)] == [2, 4, 8, 16, 30, 30]


def test_refresh_forgets_a_process(running, symbolizer):
    process, (hot, *_) = running
    symbolizer.user(process.pid, 0, [hot])
    symbolizer.refresh(process.pid)
    assert symbolizer.stats.processes == 0
    assert functions(symbolizer.user(process.pid, 0, [hot])) == ["hot"]


def test_processes_are_bounded(running):
    symbolizer = Symbolizer(max_processes=3)
    for pid in range(10):
        symbolizer.user(2**22 + pid, 0, [16])
    symbolizer.user(running[0].pid, 0, [running[1][0]])
    assert symbolizer.stats.processes == 3
    assert symbolizer.stats.binaries == 1
    assert symbolizer.stats.memory_bytes > 0


def test_kernel_frames_are_counted_by_kind(tmp_path):
    (tmp_path / "kallsyms").write_text("ffffffff81000000 T _stext\nffffffff81000100 t helper\n")
    symbolizer = Symbolizer(tmp_path)
    assert functions(symbolizer.kernel([0xFFFFFFFF81000180, 0xFFFFFFFF81000100, 16])) == ["helper", "_stext", ""]
    assert (symbolizer.stats.symbolized, symbolizer.stats.unsymbolized) == ({"kernel": 2}, {"kernel_unknown": 1})


def test_a_damaged_program_gives_frames_without_names(running, monkeypatch, tmp_path):
    process, (hot, *_) = running
    (tmp_path / "damaged").write_bytes(b"\x7fELF" + os.urandom(100))
    from ebbflow.symbols.files import open_file

    monkeypatch.setattr("ebbflow.symbols.processes.open_file", lambda path: open_file(tmp_path / "damaged"))
    symbolizer = Symbolizer()
    assert functions(symbolizer.user(process.pid, 0, [hot])) == [""]
    assert symbolizer.stats.unsymbolized == {"file_unreadable": 1}
    assert symbolizer.stats.troubles == {"damaged_elf": 1}
