"""Checks of what the machine has: clock, memory, disk, Java, Kafka's jars, free ports."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from ebbflow.clock import read_clock_point
from ebbflow.containers import parse_cgroups
from ebbflow.doctor.check import Check, Status, fail, note, ok
from ebbflow.doctor.listeners import find_listener
from ebbflow.doctor.text import read, size

SETUP = "make setup"
# Kafka's heap and the rest of its process, four Python processes, ring and buffer at their default sizes.
ENOUGH_MEMORY_BYTES = 1536 << 20
ENOUGH_DISK_BYTES = 2 << 30
OLDEST_JAVA = 17
_WIDE_CLOCK_NS = 100_000
_JAVA_TIMEOUT_S = 20.0
_UNLIMITED_BYTES = 1 << 60


def clock(root: Path) -> Check:
    source = read(root / "sys/devices/system/clocksource/clocksource0/current_clocksource").strip() or "unknown source"
    point = read_clock_point()
    value = f"{source}, unix time within {point.uncertainty_ns / 1000:.1f} µs"
    make = note if point.uncertainty_ns > _WIDE_CLOCK_NS else ok
    return make("clock", value, needed=True, source=source, uncertainty_ns=point.uncertainty_ns)


def memory(root: Path) -> Check:
    total, available = _meminfo(root, "MemTotal"), _meminfo(root, "MemAvailable")
    limit = min(_cgroup_limits(root), default=None)
    usable = min(available, limit or available)
    value = f"{size(available)} of {size(total)} free, {f'limit {size(limit)}' if limit else 'no limit'}"
    details: dict[str, Any] = {"total_bytes": total, "available_bytes": available, "limit_bytes": limit}
    if usable < ENOUGH_MEMORY_BYTES:
        hint = f"{size(ENOUGH_MEMORY_BYTES)} are comfortable with Kafka on this machine"
        return note("memory", value, hint=hint, **details)
    return ok("memory", value, **details)


def disk(directory: Path, minimum_bytes: int) -> Check:
    """Room where Kafka and the store keep their data; `directory` need not exist yet."""
    place = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    value = f"{size(free)} free in {place}"
    hint = f"free some space: df -h {place}"
    if free < minimum_bytes:
        return fail("disk", f"{value}, Kafka needs {size(minimum_bytes)}", hint=hint, needed=True, free_bytes=free)
    if free < ENOUGH_DISK_BYTES:
        return note("disk", value, hint=hint, needed=True, free_bytes=free)
    return ok("disk", value, needed=True, free_bytes=free)


def java(command: str = "java", *, needed: bool) -> Check:
    """A Java runtime that can run Kafka, where Kafka is run here."""
    try:
        done = subprocess.run([command, "-version"], capture_output=True, timeout=_JAVA_TIMEOUT_S, check=False)
    except FileNotFoundError:
        return _absent("java", "not installed", needed=needed)
    except (OSError, subprocess.TimeoutExpired) as error:
        return _absent("java", f"does not run: {error}", needed=needed)
    version = re.search(rb'version "([^"]+)"', done.stderr + done.stdout)
    if version is None:
        return _absent("java", f"does not run: exit status {done.returncode}", needed=needed)
    text = version[1].decode("ascii", "replace")
    if int(re.match(r"\d*", text)[0] or 0) < OLDEST_JAVA:  # type: ignore[index]
        return _absent("java", f"{text}, Kafka needs {OLDEST_JAVA} or later", needed=needed)
    return ok("java", text, needed=needed)


def kafka_jars(libs: Path, *, needed: bool) -> Check:
    versions = [found[1] for jar in libs.glob("kafka_*.jar") if (found := re.search(r"-([\d.]+)\.jar", jar.name))]
    if versions:
        return ok("kafka.jars", f"Apache Kafka {versions[0]}", needed=needed)
    return _absent("kafka.jars", f"not in {libs}", needed=needed)


def port(name: str, host: str, number: int, setting: str, proc: Path = Path("/proc")) -> Check:
    """An address that `make run` will listen on: free, held by an ebbflow that runs already, or not to be had."""
    check, error = f"port.{name}", _try_to_listen(host, number)
    if not error:
        return ok(check, f"{number} is free", needed=True, port=number)
    if error != errno.EADDRINUSE:
        hint = f"set {setting} to another"
        return fail(check, f"{host}:{number}: {os.strerror(error).lower()}", needed=True, hint=hint, port=number)
    holder = find_listener(number, proc)
    if holder is not None and holder.is_ours:
        return ok(check, f"{number} is held by ebbflow itself (pid {holder.pid})", needed=True, port=number)
    who = f"{holder.service.name} (pid {holder.pid})" if holder is not None else "another program"
    hint = f"see who it is: ss -ltnp 'sport = :{number}'; stop it, or set {setting} to another"
    return fail(check, f"{number} is taken by {who}", needed=True, hint=hint, port=number)


def _absent(name: str, value: str, *, needed: bool) -> Check:
    status = Status.FAIL if needed else Status.NOTE
    return Check(name=name, status=status, value=value, needed=needed, hint=SETUP if needed else "")


def _try_to_listen(host: str, number: int) -> int:
    """0, or the errno of the refusal."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            return error.errno or errno.EADDRNOTAVAIL
    return 0


def _meminfo(root: Path, key: str) -> int:
    found = re.search(rf"^{key}:\s*(\d+) kB", read(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def _cgroup_limits(root: Path) -> list[int]:
    """Memory limits that hold for this process: of its control groups and of those above them, versions 1 and 2."""
    groups = root / "sys/fs/cgroup"
    limits = []
    for path in parse_cgroups(read(root / "proc/self/cgroup")).paths:
        relative = Path(path.lstrip("/"))
        for above in (relative, *relative.parents):
            files = (groups / above / "memory.max", groups / "unified" / above / "memory.max")
            texts = [read(file).strip() for file in (*files, groups / "memory" / above / "memory.limit_in_bytes")]
            limits += [int(text) for text in texts if text.isdecimal() and int(text) < _UNLIMITED_BYTES]
    return limits
