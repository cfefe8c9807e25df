"""What the tests of the cpu producer start, and how they read what it published."""

import os
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np

from ebbflow.kernel.event_rows import event_batch
from ebbflow.producing.frames import StackFormat

CODE = Path(__file__).with_name("cpu_work.c")
FLAGS = [
    "-O1", "-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer", "-fno-inline", "-fno-optimize-sibling-calls",
]  # fmt: skip
WITHOUT_FRAME_POINTERS = ["-O1", "-fomit-frame-pointer", "-fno-inline", "-fno-optimize-sibling-calls"]
SHARES = {"seventy": 0.7, "twenty": 0.2, "ten": 0.1}
POLL_S, LONGEST_S = 0.05, 30.0


def build(path: Path, flags=FLAGS) -> Path:
    subprocess.run(["gcc", *flags, "-pthread", CODE, "-o", path], check=True)
    return path


class Worker:
    """A process that says "ready", works after `go`, says what it did, and waits until it is dismissed."""

    def __init__(self, *command, favoured=False, folder=None) -> None:
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=folder,
        )
        self.pid = self.process.pid
        if favoured:
            # What is not preempted is sampled evenly: the error of a share is then far below the binomial one.
            os.setpriority(os.PRIO_PROCESS, self.pid, -20)
            with suppress(OSError):  # only where the scheduler groups by session
                Path(f"/proc/{self.pid}/autogroup").write_text("-20")
        assert self.process.stdout.readline() == "ready\n"

    def go(self, producer) -> list[float]:
        """Let it work while the producer drains. Returns the numbers that it says in the end."""
        self.start()
        line = self.answer(producer)
        self.wait_asleep()
        return [float(word) for word in line.split()]

    def answer(self, producer) -> str:
        """Drain until it says something: a line."""
        deadline_s = time.monotonic() + LONGEST_S
        os.set_blocking(self.process.stdout.fileno(), False)
        while not (line := self.process.stdout.readline()):
            assert time.monotonic() < deadline_s
            producer.drain()
            time.sleep(POLL_S)
        return line

    def start(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def wait_asleep(self) -> None:
        """Until it waits for its input: then nothing of it changes any more."""
        deadline_s = time.monotonic() + LONGEST_S
        while self.status("State")[0] != "S" or self._call() != "0":  # read(2)
            assert time.monotonic() < deadline_s
            time.sleep(POLL_S)

    def _call(self) -> str:
        return Path(f"/proc/{self.pid}/syscall").read_text().split()[0]

    def status(self, name: str) -> str:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return line.split(":", 1)[1].strip()
        raise KeyError(name)

    def switches(self) -> tuple[int, int]:
        """Voluntary and involuntary ones of the first thread."""
        return int(self.status("voluntary_ctxt_switches")), int(self.status("nonvoluntary_ctxt_switches"))

    def dismiss(self) -> None:
        self.process.kill()
        self.process.communicate()


class Seen:
    """One row with a stack: its functions, leaf first, and its head."""

    def __init__(self, row, head, kernel, user) -> None:
        self.row, self.head, self.kernel, self.user = row, head, kernel, user
        self.flags = int(row["flags"])

    @property
    def functions(self) -> list[str]:
        return [frame.function for frame in (*self.kernel, *self.user)]

    def has(self, function: str) -> bool:
        return function in self.functions


class Profile:
    """Everything that a producer published, decoded."""

    def __init__(self, producer, *, detach=False) -> None:
        if detach:
            producer.detach()
        while producer.drain():
            pass
        producer.aggregate()
        producer.housekeeping()
        self.layout = producer.layout
        self.stacks = {"sample": [], "off": []}
        self.structs = {"wake": [], "queue": [], "run": []}
        self.kinds = Counter()
        self.envelopes = []
        for batch in producer.batches(everything=True):
            self._add(event_batch(batch.value, producer.layout))
        assert (producer.captured(), producer.lost(), producer.held()) == (sum(self.kinds.values()), 0, 0)

    def _add(self, batch) -> None:
        assert not batch.invalid
        self.envelopes.append(batch.envelope)
        processes = {
            (process.pid, process.start_boottime_ns): index for index, process in enumerate(batch.envelope.processes, 1)
        }
        frames = {(frame.process, frame.address): frame for frame in batch.envelope.frames}
        form = StackFormat(self.layout)
        for index, row in enumerate(batch.rows):
            kind = self.layout.names[int(row["kind"])]
            self.kinds[kind] += 1
            if kind in self.structs:
                self.structs[kind].append((row, np.frombuffer(batch.payload(index), self.layout.payload(kind))[0]))
            if kind not in self.stacks:
                continue
            payload = batch.payload(index)
            kernel, user = form.split(int(row["kind"]), payload)
            process = processes[int(row["pid"]), int(row["start_boottime_ns"])]
            head = np.frombuffer(payload, self.layout.payload(kind), count=1)[0]
            self.stacks[kind].append(
                Seen(row, head, [frames[0, a] for a in kernel], [frames[process, a] for a in user])
            )

    @property
    def samples(self) -> list[Seen]:
        return self.stacks["sample"]

    @property
    def waits(self) -> list[Seen]:
        return self.stacks["off"]

    def sampled(self, functions) -> dict[str, float]:
        """Shares of samples with each of these functions in their stack."""
        return {name: sum(seen.has(name) for seen in self.samples) / len(self.samples) for name in functions}

    def waited(self, functions, states=(1,)) -> dict[str, tuple[int, int]]:
        """Waits and ns at stacks with each of these functions."""
        found = {}
        for name in functions:
            chosen = [seen.head for seen in self.waits if seen.has(name) and int(seen.head["state"]) in states]
            found[name] = sum(int(h["waits"]) for h in chosen), sum(int(h["total_ns"]) for h in chosen)
        return found

    def count_waits(self, *states) -> int:
        return sum(int(seen.head["waits"]) for seen in self.waits if int(seen.head["state"]) in states)

    def run(self, name: str) -> int:
        return sum(int(run[name]) for _, run in self.structs["run"])
