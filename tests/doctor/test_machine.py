import os
import socket

import pytest

from ebbflow.doctor import machine
from ebbflow.doctor.check import Status

GIB = 1 << 30


def put(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def meminfo(root, available_bytes):
    put(root, "proc/meminfo", f"MemTotal: {8 * GIB >> 10} kB\nMemAvailable: {available_bytes >> 10} kB\n")


def script(tmp_path, text):
    path = tmp_path / "java"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_clock_has_source_and_uncertainty(tmp_path):
    put(tmp_path, "sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n")
    check = machine.clock(tmp_path)
    assert check.value.startswith("tsc, unix time within ")
    assert 0 < check.details["uncertainty_ns"] < 1_000_000


def test_clock_without_a_source_says_so(tmp_path):
    assert machine.clock(tmp_path).details["source"] == "unknown source"


def test_memory_without_limit(tmp_path):
    meminfo(tmp_path, 4 * GIB)
    check = machine.memory(tmp_path)
    assert (check.status, check.value) == (Status.OK, "4.0 GiB of 8.0 GiB free, no limit")


def test_memory_little_is_a_note(tmp_path):
    meminfo(tmp_path, GIB)
    assert machine.memory(tmp_path).status is Status.NOTE


@pytest.mark.parametrize(
    ("cgroup", "file"),
    [
        ("0::/a/b\n", "sys/fs/cgroup/a/b/memory.max"),
        ("0::/a/b\n", "sys/fs/cgroup/a/memory.max"),
        ("0::/a/b\n", "sys/fs/cgroup/unified/a/memory.max"),
        ("4:memory:/docker/x\n0::/\n", "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes"),
        ("0::/\n", "sys/fs/cgroup/memory.max"),
    ],
)
def test_memory_limit_of_any_control_group_above_counts(tmp_path, cgroup, file):
    meminfo(tmp_path, 4 * GIB)
    put(tmp_path, "proc/self/cgroup", cgroup)
    put(tmp_path, file, f"{512 << 20}\n")
    check = machine.memory(tmp_path)
    assert (check.status, check.value) == (Status.NOTE, "4.0 GiB of 8.0 GiB free, limit 512 MiB")


@pytest.mark.parametrize("text", ["max\n", "9223372036854771712\n", ""])
def test_memory_no_limit_in_other_words(tmp_path, text):
    meminfo(tmp_path, 4 * GIB)
    put(tmp_path, "proc/self/cgroup", "0::/a\n")
    put(tmp_path, "sys/fs/cgroup/a/memory.max", text)
    assert machine.memory(tmp_path).details["limit_bytes"] is None


@pytest.mark.parametrize(("free", "status"), [(100 << 20, "fail"), (GIB, "note"), (9 * GIB, "ok")])
def test_disk_room_of_a_directory_that_is_not_there_yet(tmp_path, monkeypatch, free, status):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free if path == tmp_path else 0}))
    assert machine.disk(tmp_path / "not/yet", 128 << 20).status == status


@pytest.mark.parametrize(
    ("answer", "status", "value"),
    [
        ('openjdk version "17.0.15" 2025-04-15', "ok", "17.0.15"),
        ('java version "21" 2023-09-19', "ok", "21"),
        ('openjdk version "11.0.2" 2019-01-15', "fail", "11.0.2, Kafka needs 17 or later"),
        ('java version "1.8.0_292"', "fail", "1.8.0_292, Kafka needs 17 or later"),
        ("what?", "fail", "does not run: exit status 0"),
    ],
)
def test_java_version(tmp_path, answer, status, value):
    check = machine.java(script(tmp_path, f"echo '{answer}' >&2"), needed=True)
    assert (check.status, check.value, check.blocks) == (status, value, status == "fail")


def test_java_absent_where_kafka_runs_elsewhere_is_a_note(tmp_path):
    check = machine.java(str(tmp_path / "java"), needed=False)
    assert (check.status, check.hint) == (Status.NOTE, "")


def test_java_that_does_not_answer_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_JAVA_TIMEOUT_S", 0.05)
    check = machine.java(script(tmp_path, "exec sleep 5"), needed=True)
    assert check.blocks
    assert "timed out" in check.value


def test_kafka_jars_have_a_version(tmp_path):
    (tmp_path / "kafka_2.13-4.3.1.jar").touch()
    assert machine.kafka_jars(tmp_path, needed=True).value == "Apache Kafka 4.3.1"


def test_kafka_jars_missing_say_what_fetches_them(tmp_path):
    check = machine.kafka_jars(tmp_path / "libs", needed=True)
    assert (check.blocks, check.hint) == (True, "make setup")


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_port_free(listener):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    assert machine.port("store", "127.0.0.1", free, "store.port").status is Status.OK


def test_port_taken_names_who_has_it(listener):
    check = machine.port("store", "127.0.0.1", listener, "store.port")
    assert check.blocks
    assert f"(pid {os.getpid()})" in check.value
    assert "store.port" in check.hint


def test_port_taken_by_someone_unseen(listener, tmp_path):
    check = machine.port("store", "127.0.0.1", listener, "store.port", tmp_path)
    assert check.value == f"{listener} is taken by another program"


def test_port_held_by_ebbflow_is_ok(listener, monkeypatch):
    ours = type("Info", (), {"is_ours": True, "pid": 7})
    monkeypatch.setattr(machine, "find_listener", lambda number, proc: ours)
    check = machine.port("store", "127.0.0.1", listener, "store.port")
    assert (check.status, check.value) == (Status.OK, f"{listener} is held by ebbflow itself (pid 7)")


def test_port_of_an_address_that_is_not_here():
    check = machine.port("store", "192.0.2.1", 14318, "store.port")
    assert check.blocks
    assert "cannot assign" in check.value
