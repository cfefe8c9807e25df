"""The real program on the real kernel: a C program makes known calls, the producer must say exactly those.

Every test watches only the program that it started. Witnesses count the same run: strace and libbpf-tools' syscount.
"""

import re
import shutil
import signal
import subprocess
import textwrap
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from ebbflow.config import load
from ebbflow.errors import ConfigError
from ebbflow.kernel.event_rows import event_batch
from ebbflow.kernel.syscall_names import NUMBERS, name_of
from ebbflow.testing.producers import attached
from producers.syscalls import SyscallsProducer

pytestmark = pytest.mark.bpf

ENOENT, EBADF = 2, 9
UNTIMED, UNFINISHED, LONG = 1, 2, 4
SYSCOUNT = shutil.which("syscount", path="/usr/sbin:/usr/bin")

PRELUDE = """
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
/* Say that the work may be watched, and wait for a line. */
static void ready(void)
{
    char line[2];
    if (write(1, "ready\\n", 6) < 0 || read(0, line, 1) < 0) _exit(1);
}
static void parents(int times) { while (times--) syscall(SYS_getppid); }
"""
KNOWN = """
int main(void) {
    ready();
    parents(1009);
    for (int i = 0; i < 503; i++) open("/does/not/exist", O_RDONLY);
    for (int i = 0; i < 101; i++) close(-1);
    _exit(0);
}
"""


class Program:
    """A C program that has said that it is ready, and waits for a line before it works."""

    def __init__(self, directory: Path, code: str, *arguments: str) -> None:
        source, self.binary = directory / "work.c", directory / "work"
        source.write_text(PRELUDE + textwrap.dedent(code))
        subprocess.run(["gcc", "-O1", "-w", "-pthread", "-o", self.binary, source], check=True)
        self.process = subprocess.Popen(
            [self.binary, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.process.pid
        assert self.process.stdout.readline() == "ready\n"

    def go(self) -> None:
        self.process.communicate("\n", timeout=30)
        assert self.process.returncode == 0


class Told:
    """What a producer says until now, decoded."""

    def __init__(self, producer: SyscallsProducer) -> None:
        while producer.drain():
            pass
        producer.aggregate()
        producer.housekeeping()
        batches = [event_batch(item.value, producer.layout) for item in producer.batches(everything=True)]
        assert sum(batch.invalid for batch in batches) == 0
        self.published = sum(len(batch.rows) for batch in batches)
        kinds = producer.layout.names.values()
        self.rows = {kind: np.concatenate([batch.of_kind(kind) for batch in batches]) for kind in kinds}
        self.payloads = {kind: np.concatenate([batch.payloads(kind) for batch in batches]) for kind in kinds}

    def calls(self, name: str) -> dict[int, int]:
        """Calls of that name by process."""
        found = self.payloads["total"]["number"] == NUMBERS[name]
        pids, calls = self.rows["total"]["pid"][found], self.payloads["total"]["calls"][found]
        return dict(zip(pids.tolist(), calls.tolist(), strict=True))

    def total(self, name: str) -> np.void:
        """The one row of that call."""
        found = self.payloads["total"]["number"] == NUMBERS[name]
        assert found.sum() == 1
        return self.payloads["total"][found][0]

    def by_name(self) -> Counter:
        """All calls of all processes by name."""
        counted = Counter()
        for row in self.payloads["total"]:
            counted[name_of(int(row["number"]))] += int(row["calls"])
        return counted

    def errors(self) -> dict[tuple[str, int], int]:
        return {(name_of(int(row["number"])), int(row["error"])): int(row["calls"]) for row in self.payloads["errors"]}

    def events(self, kind: str, name: str) -> list[tuple[np.void, np.void]]:
        """Rows and payloads of slow or watched calls."""
        pairs = zip(self.rows[kind], self.payloads[kind], strict=True)
        return [(row, told) for row, told in pairs if told["number"] == NUMBERS[name]]


@pytest.fixture
def attach():
    def start(target: object, **settings) -> SyscallsProducer:
        flags = {"capture.targets": [str(target)]}
        flags |= {f"syscalls.{name}": value for name, value in settings.items()}
        return stack.enter_context(attached(SyscallsProducer, load(environ={}, flags=flags).config))

    with ExitStack() as stack:
        yield start


@pytest.fixture
def tell(attach, tmp_path):
    """Run a program under watch; what was told of it."""

    def run(code: str, *arguments: str, **settings) -> Told:
        program = Program(tmp_path, code, *arguments)
        producer = attach(f"pid:{program.pid}", **settings)
        program.go()
        told = Told(producer)
        assert producer.captured() == producer.lost() + told.published + producer.held()
        told.pid, told.producer = program.pid, producer
        return told

    return run


def test_calls_known_workload_are_exact(tell):
    told = tell(KNOWN)
    assert told.calls("getppid") == {told.pid: 1009}
    assert told.calls("openat") == {told.pid: 503}
    assert told.calls("close") == {told.pid: 101}
    assert told.errors() == {("openat", ENOENT): 503, ("close", EBADF): 101}
    assert set(told.rows["total"]["comm"].tolist()) == {b"work"}


def test_calls_histogram_and_times_agree_with_each_other(tell):
    row = tell(KNOWN).total("getppid")
    slots = row["slots"]
    least = int((slots * (2 ** np.arange(6, 34, dtype=np.uint64))).sum()) - 64 * int(slots[0])
    assert slots.sum() == 1009
    assert least <= row["total_ns"] <= 2 * least + 128 * int(slots[0])
    assert 2 ** (np.flatnonzero(slots)[-1] + 6) <= row["max_ns"] < 2 ** (np.flatnonzero(slots)[-1] + 7)


def test_calls_in_flight_at_attach_and_without_return_are_counted_without_time(tell):
    told = tell(KNOWN)
    for name in ("read", "exit_group"):
        row = told.total(name)
        assert (row["calls"], row["slots"].sum(), row["total_ns"]) == (1, 0, 0)


def test_calls_same_run_agrees_with_strace(attach, tmp_path):
    program = Program(tmp_path, KNOWN)
    output = tmp_path / "strace"
    strace = subprocess.Popen(
        ["strace", "-c", "-f", "-o", output, "-p", str(program.pid)], stderr=subprocess.PIPE, text=True
    )
    assert "attached" in strace.stderr.readline()
    producer = attach(f"pid:{program.pid}")
    program.go()
    strace.communicate(timeout=20)
    told = Told(producer)
    witness = Counter()
    failed = Counter()
    for line in output.read_text().splitlines()[2:-2]:
        columns = line.split()
        witness[columns[-1]] = int(columns[3])
        if len(columns) == 6:
            failed[columns[-1]] = int(columns[4])
    counted = told.by_name()
    # strace attaches while the program reads, which the kernel restarts for it; it does not count what never returns.
    for name in ("read", "exit_group", "restart_syscall"):
        counted.pop(name, None)
        witness.pop(name, None)
    assert counted == witness
    assert failed == {"openat": 503, "close": 101}


@pytest.mark.skipif(SYSCOUNT is None, reason="libbpf-tools is not installed")
def test_calls_same_run_agrees_with_syscount(attach, tmp_path):
    program = Program(tmp_path, KNOWN)
    producer = attach(f"pid:{program.pid}")
    with (tmp_path / "syscount").open("w+") as output:
        witness = subprocess.Popen([SYSCOUNT, "-L", "-T", "400", "-p", str(program.pid)], stdout=output, stderr=output)
        wait_for_perf_events(witness.pid, 2)
        program.go()
        witness.send_signal(signal.SIGINT)
        witness.wait(20)
        output.seek(0)
        found = re.findall(r"^(\w+)\s+(\d+)\s+[\d.]+$", output.read(), re.MULTILINE)
    counted = Told(producer).by_name()
    counted.pop("exit_group")
    # A call whose start syscount has not seen it leaves out.
    counted.pop("read")
    seen = {name: int(calls) for name, calls in found}
    seen.pop("read", None)
    assert seen == counted


def wait_for_perf_events(pid: int, count: int) -> None:
    """Until a process holds so many perf events: its programs are attached then."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
        if sum("perf_event" in link or "bpf_link" in link or "bpf-link" in link for link in links) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("the witness did not attach")


def test_calls_of_threads_are_those_of_their_process(tell):
    told = tell("""
    static void *work(void *unused) { parents(1009); return 0; }
    int main(void) {
        pthread_t threads[7];
        ready();
        for (int i = 0; i < 7; i++) pthread_create(&threads[i], 0, work, 0);
        for (int i = 0; i < 7; i++) pthread_join(threads[i], 0);
        _exit(0);
    }""")
    assert told.calls("getppid") == {told.pid: 7 * 1009}
    assert told.calls("clone3") == {told.pid: 7}
    # A thread's exit never returns.
    assert (told.total("exit")["calls"], told.total("exit")["slots"].sum()) == (7, 0)


def test_calls_of_short_lived_children_are_all_there(tell):
    told = tell("""
    int main(void) {
        ready();
        for (int i = 0; i < 23; i++) if (!syscall(SYS_fork)) { parents(101); _exit(0); }
        while (wait(0) > 0);
        _exit(0);
    }""")
    assert sorted(told.calls("getppid").values()) == [101] * 23
    # The call that makes a child is its parent's alone, though it returns in both.
    assert told.calls("fork") == {told.pid: 23}
    assert sorted(told.calls("exit_group").values()) == [1] * 24


def test_calls_after_exec_go_on_under_the_new_name(tell):
    told = tell("""
    int main(int count, char **arguments) {
        if (count > 2) { parents(13); _exit(0); }
        ready();
        parents(7);
        execl(arguments[0], arguments[0], "1", "2", NULL);
    }""")
    assert told.calls("getppid") == {told.pid: 20}
    assert told.total("execve")["calls"] == 1
    assert told.total("execve")["slots"].sum() == 1


def test_calls_watched_executable_that_becomes_another_is_left_at_once(attach, tmp_path):
    program = Program(
        tmp_path,
        """
        int main(int count, char **arguments) {
            if (count > 2) { parents(13); _exit(0); }
            ready();
            parents(7);
            execl(arguments[1], arguments[1], "1", "2", NULL);
            _exit(1);
        }""",
        str(tmp_path / "other"),
    )
    shutil.copy(program.binary, tmp_path / "other")
    producer = attach(f"exe:{program.binary}")
    program.go()
    assert Told(producer).calls("getppid") == {program.pid: 7}


def test_calls_taken_while_they_are_made_are_none_too_few(attach, tmp_path):
    program = Program(tmp_path, "int main(void) { ready(); parents(200003); _exit(0); }")
    producer = attach(f"pid:{program.pid}")
    worker = Thread(target=program.go)
    worker.start()
    parts = [Told(producer)]
    while worker.is_alive():
        parts.append(Told(producer))
    worker.join()
    parts.append(Told(producer))
    assert producer.captured() == producer.lost() + sum(part.published for part in parts)
    assert sum(part.by_name()["getppid"] for part in parts) == 200003
    assert sum(part.by_name()["getppid"] > 0 for part in parts) > 1


def test_calls_of_nobody_else_are_told(tell):
    told = tell(KNOWN)
    assert set(told.rows["total"]["pid"].tolist()) == {told.pid}


def test_calls_return_from_signal_handler_is_no_error(tell):
    told = tell("""
    static void handle(int number) {}
    int main(void) {
        signal(SIGUSR1, handle);
        ready();
        for (int i = 0; i < 13; i++) kill(getpid(), SIGUSR1);
        _exit(0);
    }""")
    assert told.calls("rt_sigreturn") == {told.pid: 13}
    assert told.errors() == {}


def test_calls_of_32_bit_are_a_counted_blind_spot(tell):
    told = tell("""
    int main(void) {
        ready();
        for (int i = 0; i < 17; i++) { long result; asm volatile("int $0x80" : "=a"(result) : "a"(20) : "memory"); }
        parents(3);
        _exit(0);
    }""")
    assert told.producer.blind_spots()["compat_calls"] == 17
    assert told.by_name() == {"read": 1, "getppid": 3, "exit_group": 1}


def test_calls_more_pairs_than_entries_are_counted_as_lost(attach, tmp_path):
    code = """
    int main(void) {
        ready();
        for (int i = 0; i < 211; i++) if (!syscall(SYS_fork)) { parents(5); _exit(0); } else wait(0);
        _exit(0);
    }"""
    program = Program(tmp_path, code)
    producer = attach(f"pid:{program.pid}", max_entries=64)
    program.go()
    told = Told(producer)
    lost = producer.blind_spots()["map_lost"]
    everything = 1 + 211 + 211 + 211 * (5 + 1) + 1
    assert lost > 0
    assert sum(told.by_name().values()) + lost == everything


SLEEP = """
int main(void) {
    struct timespec time = {.tv_nsec = 200000000};
    ready();
    for (int i = 0; i < 3; i++) syscall(SYS_nanosleep, &time, NULL);
    parents(3);
    _exit(0);
}"""


def test_slow_call_is_told_with_arguments_and_times(tell):
    told = tell(SLEEP, slow_s=0.1, slow_except=[])
    slow = told.events("slow", "nanosleep")
    assert len(slow) == len(told.rows["slow"]) == 3
    for row, call in slow:
        assert 200_000_000 <= call["duration_ns"] < 20_000_000_000
        assert row["time_ns"] - row["since_ns"] == call["duration_ns"]
        assert (call["result"], call["arguments"][1], row["pid"], row["tid"]) == (0, 0, told.pid, told.pid)
        assert call["arguments"][0] > 0


def test_slow_call_that_is_made_to_wait_is_not_told(tell):
    assert len(tell(SLEEP, slow_s=0.1).rows["slow"]) == 0


PIPE = """
int main(void) {
    int ends[2];
    char byte;
    pipe(ends);
    ready();
    if (!syscall(SYS_fork)) { usleep(200000); write(ends[1], "x", 1); _exit(0); }
    read(ends[0], &byte, 1);
    _exit(0);
}"""


@pytest.mark.parametrize("waits", [False, True])
def test_slow_read_from_a_pipe_is_told_when_asked_for(tell, waits):
    told = tell(PIPE, slow_s=0.1, slow_waits=waits)
    assert len(told.events("slow", "read")) == int(waits)


def test_watched_unshare_in_a_child_is_told(tell):
    told = tell("""
    int main(void) {
        ready();
        if (!fork()) { unshare(CLONE_NEWUTS); unshare(0x7); _exit(0); }
        wait(0);
        _exit(0);
    }""")
    told_of = [(int(call["arguments"][0]), int(call["result"])) for _, call in told.events("watched", "unshare")]
    assert told_of == [(0x04000000, 0), (7, -22)]
    assert {int(row["pid"]) for row, _ in told.events("watched", "unshare")} != {told.pid}


def test_watched_ptrace_bpf_and_module_calls_are_told(tell):
    told = tell("""
    int main(void) {
        ready();
        ptrace(PTRACE_PEEKDATA, 0, 0, 0);
        syscall(SYS_bpf, 4242, NULL, 0);
        syscall(SYS_delete_module, "no_such_module", 0);
        setns(-1, 0);
        _exit(0);
    }""")
    assert [name_of(int(call["number"])) for call in told.payloads["watched"]] == [
        "ptrace", "bpf", "delete_module", "setns",
    ]  # fmt: skip
    assert all(call["result"] < 0 for call in told.payloads["watched"])
    assert told.events("watched", "bpf")[0][1]["arguments"][0] == 4242
    assert told.events("watched", "delete_module")[0][1]["text"].tolist() == [b"no_such_module", b"", b""]


def test_watched_mount_tells_its_strings_cut_at_63_bytes(tell):
    told = tell("""
    int main(void) {
        char *source = malloc(200);
        memset(source, 'a', 199);
        source[199] = 0;
        ready();
        mount(source, "/does/not/exist", "tmpfs", MS_RDONLY, "size=1");
        _exit(0);
    }""")
    ((_, call),) = told.events("watched", "mount")
    assert call["text"].tolist() == [b"a" * 63, b"/does/not/exist", b"tmpfs"]
    assert (call["result"], call["arguments"][3]) == (-ENOENT, 1)


def test_watched_call_that_never_returns_is_told_as_such(tell):
    told = tell(KNOWN, watch=["exit_group"])
    ((row, call),) = told.events("watched", "exit_group")
    assert (row["flags"], call["result"], call["arguments"][0]) == (UNFINISHED, 0, 0)


def test_watched_call_that_is_killed_is_told_as_unfinished(attach, tmp_path):
    program = Program(tmp_path, "int main(void) { ready(); pause(); }")
    producer = attach(f"pid:{program.pid}", watch=["pause"])
    program.process.stdin.write("\n")
    program.process.stdin.flush()
    wchan = Path(f"/proc/{program.pid}/syscall")
    deadline = time.monotonic() + 20
    while not wchan.read_text().startswith(f"{NUMBERS['pause']} ") and time.monotonic() < deadline:
        time.sleep(0.01)
    program.process.kill()
    program.process.communicate()
    told = Told(producer)
    # The kernel lets a killed thread end on its way out of the call: it returns -ERESTARTNOHAND, or not at all.
    ((row, call),) = told.events("watched", "pause")
    assert row["flags"] in {0, UNFINISHED}
    assert call["result"] == (-514 if not row["flags"] else 0)
    assert told.calls("pause") == {program.pid: 1}


def test_watched_call_in_flight_at_attach_is_untimed(tell):
    told = tell(KNOWN, watch=["read"])
    ((row, call),) = told.events("watched", "read")
    assert (row["flags"], call["duration_ns"], call["result"]) == (UNTIMED, 0, 1)


def test_watched_call_that_is_slow_says_so(tell):
    told = tell(SLEEP, slow_s=0.1, slow_except=[], watch=["nanosleep"])
    assert [int(row["flags"]) for row, _ in told.events("watched", "nanosleep")] == [LONG] * 3
    assert len(told.rows["slow"]) == 0


def test_setting_unknown_call_is_refused_with_what_is_near(attach):
    with pytest.raises(ConfigError) as caught:
        attach("pid:1", watch=["ptrac"])
    assert "ptrace" in caught.value.hint
