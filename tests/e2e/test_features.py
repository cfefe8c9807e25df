"""Several features in one process, on a real Kafka: their counts, books and rights, and what they leave behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from e2e.harness import CHECKOUT, Pipeline, wait_until
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData

from ebbflow.broker import free_port
from ebbflow.kernel.capabilities import KEPT_FOR_ATTACHING, kept_for_draining, mask_in, mask_of
from ebbflow.kernel.event_rows import event_batch
from ebbflow.kernel.layout import BPF_DIRECTORY, event_layout
from ebbflow.ledger import FEATURES
from ebbflow.topics import OTLP_METRICS, raw_topic

pytestmark = pytest.mark.e2e

CONNECTS, CHILDREN, CALLS = 23, 19, 1009
WORK = f"""
import os, socket, subprocess, sys
print("ready", flush=True); sys.stdin.readline()
listener = socket.create_server(("127.0.0.1", 0))
for _ in range({CONNECTS}):
    client = socket.create_connection(listener.getsockname()); server, _ = listener.accept()
    client.sendall(b"x" * 101); server.recv(200); client.close(); server.close()
for _ in range({CHILDREN}):
    subprocess.run(["/bin/true"], check=True)
for _ in range({CALLS}):
    os.getppid()
sum(range(20_000_000))
print("done", flush=True); sys.stdin.readline()
"""


class Work:
    """A process that does a bit of everything when it is told to."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"

    def step(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def work():
    made = Work()
    yield made
    made.end()


def produce(pipeline: Pipeline, *features: str, pid: int, **settings: object):
    name = f"producer-{len(pipeline.parts)}"
    part = pipeline.part("produce", *features, name=name, capture__targets=f"pid:{pid}", **settings)
    part.wait_for('"event":"watching"', 60)
    return part


def kinds_of(pipeline: Pipeline, feature: str) -> Counter[str]:
    """How many rows of each kind the feature's topic holds; every row must make sense."""
    layout, counts = event_layout(BPF_DIRECTORY / f"{feature}.h"), Counter()
    for record in pipeline.records(raw_topic(feature)):
        batch = event_batch(record.value, layout)
        assert batch.invalid == 0, batch.letters
        counts.update(layout.names[int(kind)] for kind in batch.rows["kind"])
    return counts


def capabilities_by_thread(pid: int) -> dict[str, int]:
    """Effective and permitted capabilities of every thread, as masks."""
    statuses = {path.parent.name: path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")}
    return {thread: mask_in(status, "CapEff") | mask_in(status, "CapPrm") for thread, status in statuses.items()}


def kernel_objects(pid: int) -> tuple[set[str], set[str]]:
    """Ids of the programs and maps that a process holds."""
    programs, maps = set(), set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        text = info.read_text()
        programs |= set(re.findall(r"^prog_id:\t(\d+)", text, re.MULTILINE))
        maps |= set(re.findall(r"^map_id:\t(\d+)", text, re.MULTILINE))
    return programs, maps


def existing(kind: str) -> set[str]:
    listed = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, text=True, check=True).stdout
    return {str(entry["id"]) for entry in json.loads(listed)}


def test_features_of_one_process_count_exactly_and_balance_their_books(pipeline, work, measured):
    pipeline.kafka()
    port = free_port()
    part = produce(
        pipeline,
        *FEATURES,
        pid=work.process.pid,
        health__producer_port=port,
        producer__report_s=1,
        capture__interval_s=1,
    )
    work.step()
    time.sleep(2.5)  # two intervals, and a report
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        metrics = answer.read().decode()
    assert part.end() == 0
    for feature in FEATURES:
        assert f'ebpf_events_total{{feature="{feature}"}}' in metrics
    ledger = pipeline.ledger()
    for feature in FEATURES:
        books = ledger[f"producer.{feature}"]
        assert books["captured"] == books["lost"] + books["dropped"] + books["published"], (feature, books)
        assert (books["lost"], books["dropped"], books["buffered"]) == (0, 0, 0), (feature, books)
    counts = {feature: kinds_of(pipeline, feature) for feature in FEATURES if feature != "sockets"}
    measured(rows={feature: dict(kinds) for feature, kinds in counts.items()})
    for feature, kinds in counts.items():
        assert kinds.total() == ledger[f"producer.{feature}"]["published"]
    assert (counts["tcp"]["connect"], counts["tcp"]["accept"]) == (CONNECTS, CONNECTS)
    assert (counts["process"]["fork"], counts["process"]["exec"], counts["process"]["exit"]) == (CHILDREN,) * 3
    assert counts["cpu"]["sample"] > 0
    reports = [MetricsData.FromString(record.value) for record in pipeline.records(OTLP_METRICS)]
    names = {metric.name for report in reports for metric in report.resource_metrics[0].scope_metrics[0].metrics}
    assert {"ebpf_events_total", "ebpf_events_lost_total", "ebpf_map_usage_percent"} <= names


def test_features_keep_only_the_rights_that_draining_needs(pipeline, work):
    pipeline.kafka()
    allowed = mask_of(kept_for_draining(os.uname().release))
    part = produce(pipeline, "sockets", "tcp", pid=work.process.pid)
    masks = capabilities_by_thread(part.pid)
    assert len(masks) > 1  # librdkafka has threads of its own
    assert {thread: hex(mask) for thread, mask in masks.items() if mask & ~allowed} == {}
    assert part.end() == 0
    part = produce(pipeline, "memory", pid=work.process.pid)
    allowed |= mask_of(KEPT_FOR_ATTACHING) | mask_of(["SYSLOG", "CHECKPOINT_RESTORE"])
    assert {thread: hex(mask) for thread, mask in capabilities_by_thread(part.pid).items() if mask & ~allowed} == {}


def test_features_killed_leave_nothing_attached(pipeline, work):
    pipeline.kafka()
    part = produce(pipeline, *FEATURES, pid=work.process.pid)
    programs, maps = kernel_objects(part.pid)
    assert len(programs) > 20
    assert programs <= existing("prog")
    part.kill()
    wait_until(lambda: not programs & existing("prog") and not maps & existing("map"), 10, "the kernel letting go")


def test_features_second_producer_of_one_is_refused_clearly(pipeline, work):
    pipeline.kafka()
    produce(pipeline, "sockets", pid=work.process.pid)
    second = pipeline.run("produce", "tcp", "sockets", check=False, capture__targets=f"pid:{work.process.pid}")
    assert second.returncode == 2
    assert "sockets is already published" in second.stderr
    assert "hint: stop the other one" in second.stderr
    assert "Traceback" not in second.stderr
    third = produce(pipeline, "tcp", pid=work.process.pid)
    assert third.running


def test_features_unknown_one_is_refused_with_those_that_exist():
    command = [sys.executable, "-m", "ebbflow.cli", "produce", "nonsense", "--all"]
    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert all(feature in ended.stderr for feature in FEATURES)
