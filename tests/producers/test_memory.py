"""The real programs on the real kernel: a C program allocates known sizes at known places, the producer must say so."""

import re
import signal
import subprocess
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from ebbflow.config import load
from ebbflow.kernel.event_rows import event_batch
from ebbflow.testing.producers import attached
from producers.memory import MemoryProducer

pytestmark = pytest.mark.bpf

MALLOC, CALLOC, REALLOC, ALIGNED, MMAP, FREE, MUNMAP = range(1, 8)

PRELUDE = """
#define _GNU_SOURCE
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#define APART __attribute__((noinline, noclone, optimize("no-optimize-sibling-calls")))
static void *volatile kept;
static void *volatile held[100000];
static void say(const char *text)
{
    char line[16];
    /* dprintf would allocate a buffer. */
    if (write(1, text, strlen(text)) < 0 || write(1, "\\n", 1) < 0 || read(0, line, sizeof(line)) < 0) _exit(1);
}
"""


class Program:
    """A C program that says when it is ready and waits for a line, as often as it likes."""

    def __init__(self, directory, code: str, *flags: str) -> None:
        source, binary = directory / "work.c", directory / "work"
        source.write_text(PRELUDE + textwrap.dedent(code))
        subprocess.run(
            ["gcc", "-O1", "-fno-omit-frame-pointer", "-fno-builtin", "-w", *flags, "-o", binary, source], check=True
        )
        self.process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        assert self.process.stdout.readline() == "ready\n"

    def step(self) -> None:
        """Let it go on until it says something again, or ends."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def finish(self) -> None:
        self.process.communicate("\n" * 9, timeout=20)
        assert self.process.returncode == 0


class Told:
    """What the producer says until now, decoded."""

    def __init__(self, producer: MemoryProducer) -> None:
        while producer.drain():
            pass
        producer.housekeeping()
        producer.aggregate()
        self.batches = [event_batch(item.value, producer.layout) for item in producer.batches(everything=True)]
        assert sum(batch.invalid for batch in self.batches) == 0
        self.rows = sum(len(batch.rows) for batch in self.batches)

    def of(self, kind: str) -> np.ndarray:
        return np.concatenate([batch.payloads(kind) for batch in self.batches])

    def calls(self) -> dict[int, tuple[int, int, int]]:
        """Calls, bytes, failed by function."""
        return {
            int(row["function"]): (int(row["calls"]), int(row["bytes"]), int(row["failed"])) for row in self.of("calls")
        }

    def stacks(self) -> list[tuple[list[str], np.void]]:
        """Function names, leaf first, with what the stack has allocated and freed."""
        found = []
        for batch in self.batches:
            names = {frame.address: frame.function for frame in batch.envelope.frames}
            heads = iter(batch.payloads("stack"))
            for index, row in enumerate(batch.rows):
                if row["kind"] == batch.layout.kind("stack"):
                    head = next(heads)
                    addresses = np.frombuffer(batch.payload(index)[head.nbytes :], np.uint64).tolist()
                    assert len(addresses) == head["frames"]
                    found.append(([names.get(address, "") for address in addresses], head))
        return found

    def leaks(self) -> dict[str, int]:
        """Outstanding bytes by the function that called the allocator."""
        sums: dict[str, int] = {}
        for names, head in self.stacks():
            outstanding = int(head["allocated_bytes"]) - int(head["freed_bytes"])
            caller = next((name for name in names if name not in ALLOCATORS), "")
            sums[caller] = sums.get(caller, 0) + outstanding
        return {name: size for name, size in sums.items() if size}


ALLOCATORS = {"malloc", "calloc", "realloc", "aligned_alloc", "memalign", "posix_memalign", "mmap", "mmap64", "__mmap"}
ALLOCATORS |= {"__libc_malloc", "__libc_calloc", "__libc_realloc", "__libc_memalign", "__posix_memalign", "__mmap64"}


@pytest.fixture
def watch(tmp_path):
    """`watch(code, **settings)`: the program, and a producer that follows every allocation of it."""
    programs = []

    def start(code: str, *flags: str, **settings) -> tuple[Program, MemoryProducer]:
        program = Program(tmp_path, code, *flags)
        programs.append(program)
        given = {"capture.targets": [f"pid:{program.pid}"], "memory.sampling": 1}
        config = load(environ={}, flags=given | {key.replace("__", "."): value for key, value in settings.items()})
        return program, stack.enter_context(attached(MemoryProducer, config.config))

    with ExitStack() as stack:
        yield start
    for program in programs:
        program.process.kill()
        program.process.communicate()


def test_memory_calls_are_counted_exactly_by_function(watch):
    program, producer = watch("""
    int main(void)
    {
        say("ready");
        for (int i = 0; i < 1009; i++) held[i] = malloc(17);
        for (int i = 0; i < 503; i++) kept = calloc(3, 11);
        for (int i = 0; i < 101; i++) held[i] = realloc(held[i], 50);
        for (int i = 0; i < 23; i++) { void *at; posix_memalign(&at, 64, 128); kept = at; }
        for (int i = 0; i < 19; i++) kept = aligned_alloc(64, 192);
        kept = malloc((size_t)1 << 60);
        for (int i = 0; i < 13; i++) kept = mmap(0, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (int i = 0; i < 997; i++) free(held[i]);
        munmap(kept, 8192);
        say("done");
        return 0;
    }
    """)
    program.step()
    calls = Told(producer).calls()
    assert calls == {
        MALLOC: (1010, 1009 * 17, 1),
        CALLOC: (503, 503 * 33, 0),
        REALLOC: (101, 101 * 50, 0),
        ALIGNED: (42, 23 * 128 + 19 * 192, 0),
        MMAP: (13, 13 * 8192, 0),
        FREE: (997, 0, 0),
        MUNMAP: (1, 0, 0),
    }


LEAK = """
APART void *leaky(size_t size) { void *volatile got = malloc(size); return got; }
APART void *tidy(size_t size) { void *volatile got = malloc(size); return got; }
APART void *grown(void) { void *volatile got = malloc(10); got = realloc(got, 1000); return got; }
APART void serve(int i) { kept = leaky(101); free(tidy(4001)); if (i % 7 == 0) kept = grown(); }
int main(void)
{
    say("ready");
    serve(0);
    say("begun");
    for (int i = 1; i < 1009; i++) serve(i);
    say("done");
    return 0;
}
"""


def test_memory_leak_of_known_size_is_found_at_its_stack(watch):
    program, producer = watch(LEAK)
    program.step()
    program.step()
    told = Told(producer)
    assert told.leaks() == {"leaky": 1009 * 101, "grown": 145 * 1000}
    # From two places in main.
    first, second = [names for names, head in told.stacks() if "leaky" in names]
    for names in (first, second):
        assert names[0] in {"malloc", "__libc_malloc"}
        assert names[1:4] == ["leaky", "serve", "main"]


def test_memory_sampling_follows_one_in_so_many_and_counts_all(watch):
    program, producer = watch(LEAK.replace("i < 1009", "i < 50021"), memory__sampling=10)
    program.step()
    program.step()
    told = Told(producer)
    assert told.calls()[MALLOC][0] == 2 * 50021 + 7146
    # A tenth of 50,021 with a standard deviation of 67.
    leaked = told.leaks()["leaky"] / 101
    assert abs(leaked - 5002) < 5 * 67
    assert {int(head["sampling"]) for _, head in told.stacks()} == {10}


def test_memory_what_does_not_change_is_told_once(watch):
    program, producer = watch(LEAK)
    program.step()
    assert Told(producer).stacks()
    assert Told(producer).stacks() == []


def test_memory_allocator_inside_the_executable_is_followed(watch):
    program, producer = watch(LEAK, "-static")
    program.step()
    program.step()
    assert Told(producer).leaks()["leaky"] == 1009 * 101


def test_memory_child_and_later_program_are_followed(watch):
    program, producer = watch("""
    APART void *leaky(void) { void *volatile got = malloc(307); return got; }
    int main(void)
    {
        say("ready");
        if (fork() == 0) {
            usleep(100000);
            say("child");
            for (int i = 0; i < 211; i++) kept = leaky();
            say("child done");
            return 0;
        }
        wait(NULL);
        return 0;
    }
    """)
    program.step()
    producer.housekeeping()  # finds the child
    program.step()
    assert Told(producer).leaks() == {"leaky": 211 * 307}


def test_memory_ended_process_is_told_a_last_time_and_forgotten(watch):
    program, producer = watch(LEAK)
    program.step()
    begun = Told(producer)
    assert len(begun.of("followed")) == 1
    program.step()
    program.finish()
    told = Told(producer)
    assert told.leaks()["leaky"] == 1008 * 101
    assert producer.captured() == begun.rows + told.rows
    assert producer.lost() == producer.held() == 0
    assert (len(producer._followed), producer._by_stack.count(), producer._allocations.count()) == (0, 0, 0)


def test_memory_faults_and_resident_memory_agree_with_the_kernel(watch):
    program, producer = watch("""
    #include <sys/resource.h>
    int main(void)
    {
        struct rusage before, after;
        say("ready");
        char *area = mmap(0, 4096 * 1009, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        madvise(area, 4096 * 1009, MADV_NOHUGEPAGE);
        say("mapped");
        for (int i = 0; i < 1009; i++) area[4096 * i] = 1;
        say("touched");
        return 0;
    }
    """)
    program.step()
    Told(producer)
    before = faults_of(program.pid)
    program.step()
    told, after = Told(producer), faults_of(program.pid)
    faults = told.of("faults")
    total = sum(int(faults[name].sum()) for name in ("reads", "writes", "instructions"))
    assert total == after - before
    assert 1009 <= int(faults["writes"].sum()) <= 1015
    (rss,) = told.of("rss")
    status = sizes_of(program.pid)
    # The kernel gathers pages per CPU before it says so: at most 64 of each kind.
    assert abs(int(rss["anonymous_bytes"]) - status["RssAnon"]) <= 128 * 4096
    assert int(rss["peak_bytes"]) >= 1009 * 4096


def faults_of(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7]) + int(fields[9])


def sizes_of(pid: int) -> dict[str, int]:
    text = Path(f"/proc/{pid}/status").read_text()
    return {name: int(size) * 1024 for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def test_memory_witness_bpftrace_counts_the_same_calls_of_the_same_run(watch):
    program, producer = watch(LEAK)
    libc = "/lib/x86_64-linux-gnu/libc.so.6"
    script = 'BEGIN { printf("attached\\n"); }'
    script += "".join(
        f" uprobe:{libc}:{name} /pid == {program.pid}/ {{ @{name} = count(); }}"
        for name in ("malloc", "free", "realloc")
    )
    witness = subprocess.Popen(["bpftrace", "-e", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        while "attached" not in witness.stdout.readline():
            assert witness.poll() is None
        program.step()
        program.step()
        witness.send_signal(signal.SIGINT)
        out, _ = witness.communicate(timeout=20)
    finally:
        witness.kill()
        witness.communicate()
    seen = {name: int(count) for name, count in re.findall(r"@(\w+): (\d+)", out)}
    calls = Told(producer).calls()
    assert seen == {"malloc": calls[MALLOC][0], "free": calls[FREE][0], "realloc": calls[REALLOC][0]}


def test_memory_witness_memleak_finds_the_same_leak(watch, tmp_path):
    """In a second run: BCC's uprobes and others on the same place exclude each other (ref_ctr_offset mismatch)."""
    program, producer = watch(LEAK)
    program.step()
    program.step()
    ours = Told(producer).leaks()["leaky"]
    producer.close()
    program.finish()
    again = Program(tmp_path, LEAK)
    witness = subprocess.Popen(
        ["memleak-bpfcc", "-p", str(again.pid), "-T", "9", "3", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for_probes(witness.pid)
        again.step()
        again.step()
        out, _ = witness.communicate(timeout=30)
    finally:
        witness.kill()
        again.process.kill()
        again.process.communicate()
    leaks = [
        int(size) for size, at in re.findall(r"(\d+) bytes in \d+ allocations from stack\n(.*)", out) if "leaky" in at
    ]
    assert sum(leaks) == ours == 1009 * 101, out


def wait_for_probes(pid: int) -> None:
    """Until a process holds its uprobes: it does not say so."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if sum("perf_event" in str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()) >= 20:
            return
        time.sleep(0.1)
    raise AssertionError("the witness did not attach")
