"""What goes wrong at users': one clear line with a hint, or counted dead letters. Never a traceback, never a stall."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer
from e2e.client import Client, Request
from e2e.harness import CHECKOUT, Pipeline, exchange, wait_until

from ebbflow.broker import HOST, free_port
from ebbflow.topics import CATALOGUE, CHECKPOINTS, OTLP_SPANS, RAW_SOCKETS

pytestmark = pytest.mark.e2e

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
WITHOUT_BTF = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf && exec "$@"', "sh")


def run(*arguments: str, wrapped: tuple[str, ...] = (), **settings: object) -> subprocess.CompletedProcess[str]:
    """The command in a world of its own: no settings from outside."""
    flags = [word for key, value in settings.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]
    command = [*wrapped, str(CHECKOUT / ".venv/bin/python"), "-m", "ebbflow.cli", *flags, *arguments]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EBBFLOW_")}
    return subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, env=environment, check=False
    )


def assert_one_error_with_a_hint(ended: subprocess.CompletedProcess[str], *words: str, status: int = 2) -> None:
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    hints = [line for line in ended.stderr.splitlines() if line.startswith("hint: ")]
    assert (ended.returncode, len(errors), len(hints)) == (status, 1, 1), ended.stderr
    assert all(word in errors[0] + hints[0] for word in words), ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def checks(ended: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in ended.stdout + ended.stderr
    return ended.stdout


# Rights and kernel.


def test_producer_as_nobody_says_what_right_is_missing():
    ended = run("producer", "sockets", "--pid", "1", wrapped=NOBODY)
    assert_one_error_with_a_hint(ended, "sudo ebbflow")


def test_producer_without_btf_says_so():
    ended = run("producer", "sockets", "--pid", str(os.getpid()), wrapped=WITHOUT_BTF)
    assert_one_error_with_a_hint(ended, "no BTF", "CONFIG_DEBUG_INFO_BTF")


@pytest.mark.parametrize(("world", "missing"), [(NOBODY, "capabilities"), (WITHOUT_BTF, "btf")])
def test_doctor_says_no_and_why(world, missing):
    ended = run("doctor", wrapped=world)
    assert ended.returncode == 1
    assert missing in checks(ended).lower()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("producer", "sockets"), ("nothing to watch", "--pid")),
        (("producer", "sockets", "--pid", "4194303"), ("4194303", "pgrep")),
        (("producer", "nonsense"), ("nonsense", "sockets")),
        (("--set", "capture.nonsense=1", "producer", "sockets"), ("capture.nonsense",)),
        (("--set", "otlp.traces_endpoint=nonsense", "sink", "traces"), ("nonsense",)),
    ],
)
def test_command_that_cannot_be_meant_is_told(arguments, words):
    assert_one_error_with_a_hint(run(*arguments), *words)


# Ports.


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as listener:
        yield listener.getsockname()[1]


def test_kafka_port_taken(tmp_path):
    with taken_port() as port:
        ended = run("kafka", "--port", str(port), "--data-dir", str(tmp_path))
    assert_one_error_with_a_hint(ended, str(port), "ss -ltnp")


def test_store_port_taken(tmp_path):
    with taken_port() as port:
        ended = run("store", store__port=port, store__path=tmp_path / "store.duckdb")
    assert_one_error_with_a_hint(ended, str(port))


def test_health_port_taken():
    with taken_port() as port:
        ended = run("producer", "sockets", "--pid", str(os.getpid()), health__producer_port=port)
    assert_one_error_with_a_hint(ended, str(port))


def test_store_port_of_somebody_silent_is_told_to_who_asks_the_store(tmp_path):
    with taken_port() as port:
        ended = run("traces", store__port=port, store__path=tmp_path / "none.duckdb")
    assert_one_error_with_a_hint(ended, str(port), "store.port")


# Kafka.


@pytest.mark.parametrize("command", ["topics", "ledger", "dlq"])
def test_command_without_kafka_says_where_it_should_be(command):
    port = free_port()
    assert_one_error_with_a_hint(run(command, kafka__bootstrap=f"{HOST}:{port}"), str(port), "kafka.bootstrap")


@pytest.mark.slow
def test_parts_started_without_kafka_wait_and_then_work(pipeline, nginx):
    server = nginx()
    parts = [pipeline.part("store"), pipeline.part("processor", "requests"), pipeline.part("sink", "traces")]
    parts.append(pipeline.producer(f"pid:{server.pid}"))
    for part in parts[1:]:
        part.wait_for("does not answer" if part.name.startswith("producer") else "EBB400")
    with Client(server.port) as client:
        assert client.exchange([Request("GET", "/items/early")]) == [200]
    pipeline.kafka()
    wait_for_spans(pipeline, {("GET", "/items/early", 200)})
    for part in parts[1:]:
        assert part.running
        assert part.hints() == 1


def wait_for_spans(pipeline: Pipeline, wanted: set) -> None:
    wait_until(lambda: wanted <= {exchange(span) for span in pipeline.spans()}, 40, f"spans {wanted}")


@contextmanager
def small_disk(path: Path, size: str):
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_kafka_on_a_disk_without_room_says_so_at_once(tmp_path):
    with small_disk(tmp_path / "disk", "64m") as disk:
        ended = run("kafka", "--port", str(free_port()), "--data-dir", str(disk))
    assert_one_error_with_a_hint(ended, "no room", "df -h")


@pytest.mark.slow
def test_disk_that_fills_under_kafka_is_told_and_the_rest_waits(pipeline, nginx, tmp_path):
    server = nginx()
    with small_disk(tmp_path / "disk", "512m") as disk:
        where = ("--port", str(pipeline.broker.port), "--controller-port", str(free_port()), "--data-dir", str(disk))
        broker = pipeline.part("kafka", *where)
        broker.wait_for("Kafka is ready")
        pipeline.run("topics")
        pipeline.store()
        behind = [pipeline.processor(), pipeline.sink(), pipeline.producer(f"pid:{server.pid}")]
        with Client(server.port) as client:
            assert client.exchange([Request("GET", "/items/before")]) == [200]
            wait_for_spans(pipeline, {("GET", "/items/before", 200)})
            fill(disk)
            assert broker.process.wait(60) == 2
            assert broker.text.count("error: ") == broker.text.count("hint: ") == 1
            assert "no room" in broker.text
            assert client.exchange([Request("GET", "/items/meanwhile")]) == [200]
            for part in behind:
                part.wait_for('"level":"warning"')
            (disk / "filler").unlink()
            pipeline.part("kafka", *where).wait_for("Kafka is ready", 60)
            assert client.exchange([Request("GET", "/items/after")]) == [200]
        wait_for_spans(pipeline, {("GET", f"/items/{when}", 200) for when in ("before", "meanwhile", "after")})
        assert all(part.running for part in behind)
        pipeline.end()


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(1 << 20))
        except OSError:
            return


# Garbage.


def garbage(good: bytes) -> dict[str, bytes | None]:
    source = random.Random(7)
    return {
        "random": source.randbytes(300),
        "empty": b"",
        "null": None,
        "truncated": good[: len(good) // 2],
        "huge": source.randbytes(900_000),
    }


def put(pipeline: Pipeline, topic: str, values: list[bytes | None], partitions: int) -> None:
    """Every value to every partition."""
    producer = Producer({"bootstrap.servers": pipeline.broker.bootstrap, "log_level": 0})
    for partition in range(partitions):
        for value in values:
            producer.produce(topic, value, b"somebody else's key", partition=partition)
    assert producer.flush(30) == 0


def test_garbage_in_every_topic_is_dead_letters_and_the_stream_goes_on(pipeline, nginx):
    server = nginx()
    pipeline.start()
    pipeline.producer(f"pid:{server.pid}")
    with Client(server.port) as client:
        client.exchange([Request("GET", "/items/before")])
        wait_for_spans(pipeline, {("GET", "/items/before", 200)})
        good = {
            topic: max((record.value for record in pipeline.records(topic)), key=len)
            for topic in (RAW_SOCKETS, OTLP_SPANS)
        }
        for topic in CATALOGUE:
            bad = garbage(good.get(topic.name, b'{"stage":"requests","source":'))
            put(pipeline, topic.name, list(bad.values()), topic.partitions or 4)
        client.exchange([Request("GET", "/items/after")])
        wait_for_spans(pipeline, {("GET", "/items/after", 200)})
        totals = pipeline.wait_settled()
    letters = Counter((letter["topic"], letter["stage"], letter["code"]) for letter in pipeline.dead_letters())
    assert letters == {
        (RAW_SOCKETS, "requests", "EBB601"): 20,
        (OTLP_SPANS, "sink.traces", "EBB600"): 12,
        ("", "", ""): 5,
    }
    assert totals["requests"]["bad_records"] == 20
    assert [exchange(span)[1] for span in pipeline.spans()] == ["/items/before", "/items/after"]


@pytest.mark.slow
def test_garbage_in_place_of_a_checkpoint_costs_the_state_and_nothing_else(pipeline, nginx):
    server = nginx()
    pipeline.start()
    pipeline.producer(f"pid:{server.pid}")
    with Client(server.port) as client:
        client.exchange([Request("GET", "/items/before")])
        wait_for_spans(pipeline, {("GET", "/items/before", 200)})
        pipeline.stop("processor")
        producer = Producer({"bootstrap.servers": pipeline.broker.bootstrap, "log_level": 0})
        for partition in range(4):
            producer.produce(CHECKPOINTS, b"garbage", f"requests|{RAW_SOCKETS}|{partition}".encode())
        assert producer.flush(30) == 0
        processor = pipeline.processor()
        client.exchange([Request("GET", "/items/after")])
        wait_for_spans(pipeline, {("GET", "/items/after", 200)})
    processor.wait_for("checkpoint cannot be used")
