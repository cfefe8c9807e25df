"""The real program on the real kernel: a C program reads and writes a device past the page cache, and the producer
must say exactly that. The device is a loop device of the test's own, so that also its totals are exact.

Witnesses count the same run: the kernel's own /sys/block/DISK/stat, and libbpf-tools' biolatency.
"""

import os
import re
import shutil
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
from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.testing.producers import attached
from producers.disk import DiskProducer

pytestmark = pytest.mark.bpf

READ, WRITE, FLUSH, DISCARD, SYNC, OTHER = range(6)
STRUCTS = read_header(BPF_DIRECTORY / "disk.h").structs
BIOLATENCY = shutil.which("biolatency", path="/usr/sbin:/usr/bin")
MIB = 1 << 20

PRELUDE = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char *buffer;
static int begin(const char *path)
{
    char line[2];
    int disk = open(path, O_RDWR | O_DIRECT);
    if (disk < 0 || posix_memalign((void **)&buffer, 4096, 8 << 20)) _exit(2);
    memset(buffer, 7, 8 << 20);
    if (write(1, "ready\\n", 6) < 0 || read(0, line, 1) < 0) _exit(1);
    return disk;
}
"""
KNOWN = """
int main(int count, char **arguments) {
    int disk = begin(arguments[1]);
    for (int i = 0; i < 1009; i++) if (pwrite(disk, buffer, 4096, i * 8192L) != 4096) _exit(3);
    for (int i = 0; i < 503; i++) if (pread(disk, buffer, 65536, i * 65536L) != 65536) _exit(4);
    fsync(disk);
    _exit(0);
}
"""


class Program:
    """A C program that has opened its disk, and waits for a line before it works."""

    def __init__(self, directory: Path, code: str, *arguments: str) -> None:
        source, binary = directory / "work.c", directory / "work"
        source.write_text(PRELUDE + textwrap.dedent(code))
        subprocess.run(["gcc", "-O1", "-w", "-o", binary, source], check=True)
        self.process = subprocess.Popen([binary, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        assert self.process.stdout.readline() == "ready\n"

    def go(self) -> str:
        said, _ = self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0
        return said


def asked(rows: dict[int, np.void]) -> dict[int, int]:
    """Requests by operation that were given to the driver.

    The kernel does not tell of every end (docs/disk.md). Such a request is counted when its memory is used again, and
    stands among those in flight until then.
    """
    return {
        operation: int(io["requests"]) + int(io["in_flight"]) for operation, io in rows.items() if operation != SYNC
    }


class Told:
    """What a producer says until now, decoded."""

    def __init__(self, producer: DiskProducer) -> None:
        while producer.drain():
            pass
        producer.aggregate()
        producer.housekeeping()
        batches = [event_batch(item.value, producer.layout) for item in producer.batches(everything=True)]
        assert sum(batch.invalid for batch in batches) == 0
        assert producer.captured() == producer.lost() + sum(len(batch.rows) for batch in batches) + producer.held()
        kinds = producer.layout.names.values()
        self.rows = {kind: np.concatenate([batch.of_kind(kind) for batch in batches]) for kind in kinds}
        self.payloads = {kind: np.concatenate([batch.payloads(kind) for batch in batches]) for kind in kinds}

    def device(self, name: str) -> dict[int, np.void]:
        """What was told of a device, by operation."""
        found = [row["io"] for row in self.payloads["device"] if row["io"]["disk"].decode() == name]
        return {int(io["operation"]): io for io in found}

    def process(self, pid: int, name: str) -> dict[int, np.void]:
        """What was told of a process on a device, by operation."""
        pairs = zip(self.rows["process"]["pid"], self.payloads["process"]["io"], strict=True)
        return {int(io["operation"]): io for of, io in pairs if of == pid and io["disk"].decode() == name}


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def loop(stack, tmp_path):
    """Make a loop device of a file: its name, as loop0."""

    def make(directory: Path = tmp_path, size: int = 64 * MIB, *options: str) -> str:
        image = directory / "image"
        with image.open("wb") as file:
            file.truncate(size)
        done = subprocess.run(["losetup", "-f", "--show", *options, image], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no loop device can be made here: {done.stderr.strip()}")
        path = done.stdout.strip()
        stack.callback(subprocess.run, ["losetup", "-d", path], check=True)
        return Path(path).name

    return make


@pytest.fixture
def attach(stack):
    def start(program: Program, **settings) -> DiskProducer:
        flags = {"capture.targets": [f"pid:{program.pid}"]}
        flags |= {f"disk.{name}": value for name, value in settings.items()}
        return stack.enter_context(attached(DiskProducer, load(environ={}, flags=flags).config))

    return start


def statistics(name: str) -> np.ndarray:
    """Reads, reads merged, sectors read, ms; writes, writes merged, sectors written, ms; … flushes at 15."""
    return np.array(Path(f"/sys/block/{name}/stat").read_text("ascii").split(), np.int64)


def disk_of(path: Path) -> str:
    """The whole disk that holds a file."""
    number = path.stat().st_dev
    place = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not place.exists():
        pytest.skip(f"{path} is on no block device")
    whole = place.resolve()
    return whole.parent.name if (whole / "partition").exists() else whole.name


def test_requests_of_known_workload_are_exact_by_process(loop, attach, tmp_path):
    name = loop()
    program = Program(tmp_path, KNOWN, f"/dev/{name}")
    producer = attach(program)
    program.go()
    told = Told(producer).process(program.pid, name)
    assert asked(told) == {READ: 503, WRITE: 1009}
    for operation, size, slot in ((WRITE, 4096, 3), (READ, 65536, 7)):
        io = told[operation]
        requests = io["requests"]
        assert (io["bytes"], io["size_slots"][slot]) == (requests * size, requests)
        assert io["queue_slots"].sum() == requests == io["device_slots"].sum() + io["untimed"]
        assert io["untimed"] <= producer.blind_spots()["unseen_completions"]
        assert 0 < io["device_max_ns"] <= io["device_ns"]
        assert (io["errors"], io["merged"], io["split"]) == (0, 0, 0)
    assert (told[SYNC]["requests"], told[SYNC]["device_slots"].sum(), told[SYNC]["queue_slots"].sum()) == (1, 1, 0)


def test_requests_of_a_device_agree_with_the_kernels_statistics(loop, attach, tmp_path):
    name = loop()
    program = Program(tmp_path, KNOWN, f"/dev/{name}")
    producer = attach(program)
    before = statistics(name)
    program.go()
    counted = statistics(name) - before
    told = Told(producer).device(name)
    assert asked(told) == {READ: 503, WRITE: 1009, FLUSH: 1}
    # Kernels before 6.10 do not count a write that only asks for a flush.
    assert (counted[0], counted[2], counted[6], counted[15]) == (503, 503 * 128, 1009 * 8, 1)
    assert counted[4] in {1009, 1010}
    assert told[SYNC]["requests"] == 1
    assert {operation: int(io["unattributed"]) for operation, io in told.items()} == {
        READ: 0, WRITE: 0, SYNC: 0, FLUSH: 1,
    }  # fmt: skip
    assert (told[READ]["major"], told[READ]["minor"]) == (7, int(name.removeprefix("loop")))


@pytest.mark.skipif(BIOLATENCY is None, reason="libbpf-tools is not installed")
def test_requests_same_run_agrees_with_biolatency(loop, attach, tmp_path):
    name = loop()
    program = Program(tmp_path, KNOWN, f"/dev/{name}")
    producer = attach(program)
    with (tmp_path / "biolatency").open("w+") as output:
        witness = subprocess.Popen([BIOLATENCY, "-d", name], stdout=output, stderr=subprocess.STDOUT)
        wait_for_links(witness)
        program.go()
        witness.send_signal(signal.SIGINT)
        witness.wait(20)
        output.seek(0)
        text = output.read()
    seen = sum(int(calls) for calls in re.findall(r"^\s*\d+ -> \d+\s*: (\d+)", text, re.MULTILINE))
    told = Told(producer).device(name)
    # It measures what was given to the driver: a request that only asks for a flush is not.
    ours = sum(asked(told).values())
    assert ours == 503 + 1009 + 1
    # It does not say what it misses.
    assert 0.99 * ours <= seen <= ours


def wait_for_links(witness: subprocess.Popen) -> None:
    """Until it holds attached programs."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert witness.poll() is None
        links = [str(path.readlink()) for path in Path(f"/proc/{witness.pid}/fd").iterdir() if path.is_symlink()]
        if sum("bpf_link" in link or "bpf-link" in link or "raw-tracepoint" in link for link in links) >= 2:
            return
        time.sleep(0.05)
    raise AssertionError("the witness did not attach")


def test_requests_to_a_file_are_its_processes(attach, tmp_path):
    name = disk_of(tmp_path)
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(bytes(1009 * 8192))
        file.flush()
        os.fsync(file.fileno())
    code = KNOWN[: KNOWN.index("    for (int i = 0; i < 503")] + "    _exit(0);\n}"
    program = Program(tmp_path, code, str(path))
    producer = attach(program)
    program.go()
    told = Told(producer)
    io = told.process(program.pid, name)[WRITE]
    assert io["requests"] + io["in_flight"] + io["merged"] - io["split"] == 1009
    assert io["bytes"] == (io["requests"] + io["merged"] - io["split"]) * 4096
    assert set(told.rows["process"]["pid"].tolist()) == {program.pid}
    # The device's row has the others', too.
    assert told.device(name)[WRITE]["requests"] >= io["requests"]


def test_requests_too_large_are_split_and_add_up(loop, attach, tmp_path):
    name = loop()
    code = """
    int main(int count, char **arguments) {
        int disk = begin(arguments[1]);
        for (int i = 0; i < 7; i++) if (pwrite(disk, buffer, 8 << 20, i * (8L << 20)) != 8 << 20) _exit(3);
        _exit(0);
    }"""
    program = Program(tmp_path, code, f"/dev/{name}")
    producer = attach(program)
    before = statistics(name)
    program.go()
    counted = statistics(name) - before
    io = Told(producer).process(program.pid, name)[WRITE]
    assert io["in_flight"] or io["bytes"] == 7 * 8 * MIB
    assert (io["requests"] + io["in_flight"], io["merged"]) == (counted[4], counted[5])
    assert io["split"] > 0


def test_requests_of_others_are_the_devices_alone(loop, attach, tmp_path):
    name = loop()
    (tmp_path / "other").mkdir()
    program = Program(tmp_path, KNOWN, f"/dev/{name}")
    other = Program(tmp_path / "other", KNOWN, f"/dev/{name}")
    producer = attach(program)
    other.go()
    program.go()
    told = Told(producer)
    assert asked(told.device(name)) == {READ: 2 * 503, WRITE: 2 * 1009, FLUSH: 2}
    assert asked(told.process(program.pid, name)) == {READ: 503, WRITE: 1009}
    assert told.process(other.pid, name) == {}


def test_requests_of_kernel_threads_are_unattributed(loop, attach, tmp_path):
    below = disk_of(tmp_path)
    name = loop(tmp_path, 64 * MIB, "--direct-io=on")
    program = Program(tmp_path, KNOWN, f"/dev/{name}")
    producer = attach(program)
    program.go()
    told = Told(producer)
    # The loop device's own thread writes to the disk beneath.
    assert told.device(below)[WRITE]["unattributed"] >= 1009
    assert WRITE not in told.process(program.pid, below)


def test_errors_of_a_full_device_are_counted_by_status_and_process(stack, loop, attach, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", full], check=True)
    stack.callback(subprocess.run, ["umount", full], check=True)
    name = loop(full, 16 * MIB)
    code = """
    int main(int count, char **arguments) {
        int disk = begin(arguments[1]), failed = 0;
        for (int i = 0; i < 503; i++) failed += pwrite(disk, buffer, 4096, i * 4096L) < 0;
        dprintf(1, "%d\\n", failed);
        _exit(0);
    }"""
    program = Program(tmp_path, code, f"/dev/{name}")
    producer = attach(program)
    failed = int(program.go())
    told = Told(producer)
    assert failed > 0
    io = told.process(program.pid, name)[WRITE]
    assert asked(told.process(program.pid, name)) == {WRITE: 503}
    # An end that the kernel does not tell of may have been one with an error.
    assert failed - producer.blind_spots()["unseen_completions"] - io["in_flight"] <= io["errors"] <= failed
    assert told.device(name)[WRITE]["errors"] == io["errors"]
    (row,) = told.payloads["errors"][told.payloads["errors"]["major"] == 7]
    assert (row["requests"], row["operation"]) == (io["errors"], WRITE)
    # BLK_STS_NOSPC, or BLK_STS_IOERR where the loop driver does not tell.
    assert row["status"] in {3, 10}
    assert told.rows["errors"]["pid"].tolist() == [program.pid]


def test_requests_without_room_are_counted_without_time(loop, attach, tmp_path):
    name = loop()
    program = Program(tmp_path, KNOWN, f"/dev/{name}")
    # Fewer entries than the device has requests: what is forgotten at its end makes room.
    producer = attach(program, max_requests=64)
    program.go()
    told = Told(producer)
    device, process = told.device(name), told.process(program.pid, name)
    assert asked(device) == {READ: 503, WRITE: 1009, FLUSH: 1}
    assert producer.blind_spots()["map_lost"] > 0
    for operation in (READ, WRITE):
        assert device[operation]["device_slots"].sum() + device[operation]["untimed"] == device[operation]["requests"]
    assert 0 < process[READ]["requests"] <= 503
