"""Can the main job run on this machine, and if not, what mends it.

    kernel     what the kernel offers, and whether this process may use it
    program.*  each kind of BPF program, tried in a child process
    machine    clock, memory, disk, Java, Kafka's jars, free ports
    services   Kafka, the OTLP backend

The main job is the path of `make run`: capture, publish, process, export. A failure that does not stand in its way is
shown and does not count.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ebbflow import broker
from ebbflow.config import Config
from ebbflow.doctor import kernel, machine, services
from ebbflow.doctor.check import Check, Status
from ebbflow.kernel.check import Attempt, try_programs

__all__ = ["Check", "Status", "examine", "main_job_problems"]

DATA_DIRECTORY = Path(".run")
_ROOT = Path("/")
_PARTS = ("producer", "processor", "sink")


def examine(
    config: Config, *, root: Path = _ROOT, programs: Callable[[], Sequence[Attempt]] = try_programs
) -> list[Check]:
    """Every check, in the order in which they are shown; takes about three seconds, most of them for clang.

    Args:
        config: whose Kafka, backend and ports are looked at.
        root: the file system that the kernel's files are read from.
        programs: tries the kinds of BPF programs.
    """
    effective = kernel.effective_capabilities(root)
    with ThreadPoolExecutor(1) as pool:
        attempts = pool.submit(programs)
        before = _kernel_checks(root, effective)
        after = [*_machine_checks(config, root), services.otlp(config.otlp, config.store)]
        return [*before, *(kernel.program(attempt, effective) for attempt in attempts.result()), *after]


def main_job_problems(config: Config) -> list[Check]:
    """The failures that keep the main job from running; empty when it can run."""
    return [check for check in examine(config) if check.blocks]


def _kernel_checks(root: Path, effective: list[str]) -> list[Check]:
    system = platform.uname()
    return [
        kernel.kernel_version(system.release),
        kernel.architecture(system.machine),
        kernel.btf(root / "sys/kernel/btf/vmlinux"),
        kernel.tracefs(root),
        kernel.lockdown(root),
        kernel.capabilities(effective),
        kernel.perf_event_paranoid(root, effective),
        kernel.unprivileged_bpf(root),
        kernel.headers(root, system.release),
    ]


def _machine_checks(config: Config, root: Path) -> list[Check]:
    """Java, jars and Kafka's ports only matter where `make run` is to start Kafka."""
    reachable = services.kafka(config.kafka)
    ours = services.is_local(config.kafka.bootstrap) and not reachable.details.get("reachable")
    return [
        machine.clock(root),
        machine.memory(root),
        machine.disk(DATA_DIRECTORY, broker.MIN_FREE_BYTES),
        machine.java(needed=ours),
        machine.kafka_jars(broker.LIBS, needed=ours),
        reachable,
        *_ports(config, kafka_is_ours=ours),
    ]


def _ports(config: Config, *, kafka_is_ours: bool) -> list[Check]:
    port, health = services.first_port(config.kafka.bootstrap), config.health
    wanted = [(part, health.host, getattr(health, f"{part}_port"), f"health.{part}_port") for part in _PARTS]
    if kafka_is_ours and port:
        names = (("kafka", port), ("kafka_controller", port + 1))
        wanted += [(name, broker.HOST, number, "kafka.bootstrap") for name, number in names]
    if not (config.otlp.endpoint or config.otlp.traces_endpoint):
        wanted.append(("store", config.store.host, config.store.port, "store.port"))
    return [machine.port(*which) for which in wanted if which[2]]
