"""What runs inside the guest (started by `init`, as root): every check, one JSON object a line on stdout.

    {"group": "start", "name": RELEASE, …}     first
    {"group": "mechanism" | "feature" | "hook", "name": …, "status": "ok" | "failed" | "absent", "detail": …}
    {"group": "end", …}                        last: without it the run did not come to its end

Runs as well on the machine itself: `python tests/vm/guest.py`. Each feature has a process of its own, so that what
crashes or hangs fails alone. Several run at a time, one more than there are CPUs, for some always wait: a guest is
slow, an emulated compiler takes sixteen times as long.
"""

from __future__ import annotations

import json
import os
import platform
import select
import signal
import sys
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
sys.path[0] = str(CHECKOUT / "tests")
sys.path.insert(1, str(CHECKOUT))

from vm.results import Check  # noqa: E402 - found by the path above

TIMEOUT_S = 240.0


@dataclass(frozen=True, slots=True)
class Job:
    """Checks that share a process; `group` and `name` say what failed when it dies."""

    group: str
    name: str
    run: Callable[[], Iterable[Check]]


@dataclass(slots=True)
class Running:
    job: Job
    pid: int
    output: int
    deadline_s: float


def mechanisms(names: Sequence[str]) -> Iterator[Check]:
    """What `ebbflow doctor` tries."""
    from ebbflow.kernel.check import try_programs

    for attempt in try_programs(names, timeout_s=TIMEOUT_S):
        yield Check("mechanism", attempt.name, "ok" if attempt.ok else "failed", attempt.detail)


def feature(name: str) -> Iterator[Check]:
    """Load and attach a producer, let a small workload run, compare the counts."""
    from vm.checks import FEATURES, measure
    from vm.observe import observe

    from ebbflow.discovery import find
    from ebbflow.errors import EbbflowError

    known = FEATURES[name]
    kind = find("producers").get(name)
    if kind is None:
        yield Check("feature", name, "absent")
        return
    try:
        rows, hooks = observe(kind, known)
    except EbbflowError as error:
        yield Check("feature", name, "failed", f"{type(error).__name__}: {error}")
        return
    wrong, counts = measure(known, rows)
    yield Check("feature", name, "failed" if wrong else "ok", counts)
    yield from (Check("hook", hook, "ok", name) for hook in hooks)


def early_jobs(wanted: Container[str]) -> list[Job]:
    """What needs none of the heavy imports, and can begin before them."""
    from ebbflow.kernel.check import MECHANISMS

    names = [name for name in MECHANISMS if not wanted or "mechanism" in wanted or name in wanted]
    return [Job("mechanism", "all", partial(mechanisms, names))] if names else []


def jobs(wanted: Container[str]) -> list[Job]:
    """The rest, the longest first. `wanted`: names of groups or of checks; everything when it is empty."""
    from vm.checks import FEATURES

    made = [Job("feature", name, partial(feature, name)) for name in FEATURES]
    return [job for job in made if not wanted or job.group in wanted or job.name in wanted]


def run(todo: list[Job], at_a_time: int, tell: Callable[[Check], object], started: Iterable[Running] = ()) -> None:
    """Run jobs, several at a time, and tell each check as soon as its job has ended; some may run already."""
    running = {one.output: one for one in started}
    while todo or running:
        while todo and len(running) < at_a_time:
            one = start(todo.pop(0))
            running[one.output] = one
        next_s = min(one.deadline_s for one in running.values())
        ready, _, _ = select.select(list(running), [], [], max(0.0, next_s - time.monotonic()))
        ended = ready or [one.output for one in running.values() if one.deadline_s <= time.monotonic()]
        for output in ended:
            for check in finish(running.pop(output), timed_out=not ready):
                tell(check)


def start(job: Job) -> Running:
    """Fork: everything heavy is imported once, before."""
    output, own = os.pipe()
    pid = os.fork()
    if pid:
        os.close(own)
        return Running(job, pid, output, time.monotonic() + TIMEOUT_S)
    os.close(output)
    os.setpgid(0, 0)  # so that its workload ends with it
    checks = []
    try:
        checks = [asdict(check) for check in job.run()]
    except Exception as error:  # noqa: BLE001 - whatever it was belongs into the table
        checks = [asdict(Check(job.group, job.name, "failed", f"{type(error).__name__}: {error}"))]
    finally:
        # In one write, at the end: the parent reads when the pipe has something, and a pipe holds 64 KiB.
        os.write(own, json.dumps(checks).encode())
        os._exit(0)


def finish(one: Running, *, timed_out: bool) -> Iterator[Check]:
    """What a job reported, or how it ended."""
    if timed_out:
        os.killpg(one.pid, signal.SIGKILL)
    text = b"".join(iter(lambda: os.read(one.output, 65536), b"")) if not timed_out else b""
    os.close(one.output)
    _, status = os.waitpid(one.pid, 0)
    if text:
        yield from (Check(**check) for check in json.loads(text))
    else:
        how = f"no answer in {TIMEOUT_S:g} s" if timed_out else f"ended by signal {os.WTERMSIG(status)}"
        yield Check(one.job.group, one.job.name, "failed", how)


def tell(**report: object) -> None:
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def main(*wanted: str) -> None:
    tell(group="start", name=platform.release(), status="ok", detail=platform.version())
    started_s = time.monotonic()
    early = [start(job) for job in early_jobs(wanted)]
    import bcc  # noqa: F401 - and what follows: once, before the forks

    from ebbflow.discovery import find

    find("producers")
    run(jobs(wanted), 1 + (os.cpu_count() or 1), lambda check: tell(**asdict(check)), early)
    tell(group="end", name="checks", status="ok", detail=f"{time.monotonic() - started_s:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
