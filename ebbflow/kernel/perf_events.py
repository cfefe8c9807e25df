"""Opens what takes several perf events, or several attempts: all or none."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable

from ebbflow.kernel.system_calls import PerfFlag, PerfType, open_perf_event

_ATTEMPTS, _PAUSE_S = 5, 0.01


def open_user_probe(
    kind: int, program: int, path: str, config: int, offset: int, *, pid: int = -1, cpu: int = -1
) -> int:
    """A uprobe at an offset of a file.

    Again after EINVAL: seen on 6.18, once in some hundred, while other processes put probes at the same place.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return open_perf_event(kind, program, config=config, name=path, config2=offset, pid=pid, cpu=cpu)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        time.sleep(_PAUSE_S)
    return open_perf_event(kind, program, config=config, name=path, config2=offset, pid=pid, cpu=cpu)


def open_cpu_samples(program: int, frequency_hz: int, cpus: Iterable[int]) -> list[int]:
    """The CPU clock of each CPU, whoever runs."""
    return _each(cpus, lambda cpu: _sample(program, frequency_hz, -1, cpu, PerfFlag(0)))


def open_thread_samples(program: int, frequency_hz: int, threads: Iterable[int], cpu: int) -> list[int]:
    """The CPU clock while one of the threads runs, or a thread that they start."""
    return _each(threads, lambda tid: _sample_thread(program, frequency_hz, tid, cpu))


def _sample_thread(program: int, frequency_hz: int, tid: int, cpu: int) -> int:
    try:
        return _sample(program, frequency_hz, tid, cpu, PerfFlag.INHERIT | PerfFlag.INHERIT_THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:  # before 5.13: children of the process are sampled, too
            raise
        return _sample(program, frequency_hz, tid, cpu, PerfFlag.INHERIT)


def _sample(program: int, frequency_hz: int, pid: int, cpu: int, flags: PerfFlag) -> int:
    return open_perf_event(PerfType.SOFTWARE, program, frequency_hz=frequency_hz, flags=flags, pid=pid, cpu=cpu)


def _each(places: Iterable[int], attach: Callable[[int], int]) -> list[int]:
    held: list[int] = []
    try:
        for place in places:
            held.append(attach(place))  # noqa: PERF401 - what is held must be known when the next one fails
    except OSError:
        close_all(held)
        raise
    return held


def close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
