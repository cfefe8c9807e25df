"""Faults on real parts: workers are killed, partitions move, the broker dies; then everything must be accounted for."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
import urllib.error
import urllib.request

import pytest

from ebbflow.broker import free_port
from ebbflow.config import KafkaConfig
from ebbflow.ledger_reader import read_ledger

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def wait_until(condition, timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.1)


def test_killed_in_mid_load_loses_nothing_and_repeats_identically(harness, record_property):
    for _ in range(3):
        worker = harness.start(stream__checkpoint_interval_s=0.5)
        wait_until(lambda worker=worker: "processing" in worker.text)
        harness.write_for(2.5)
        worker.end(signal.SIGKILL)
    last = harness.start()
    repeats = harness.repeats(harness.wait_for_outputs())
    record_property("repeats", repeats)
    assert repeats > 0, "no kill came between outputs and their checkpoint: this proves nothing"
    assert last.end(signal.SIGTERM)[0] == 0
    # What was processed again counts once.
    ledger = asyncio.run(read_ledger(KafkaConfig(bootstrap=harness.bootstrap))).totals()
    assert ledger[harness.processor.name]["events"] == sum(map(len, harness.written.values()))


def test_workers_and_broker_killed_with_garbage_in_mid_load_lose_nothing(harness, broker):
    """The worst day: bad input that breaks the processor, two workers, both killed in turn, and the broker too."""
    first, second = harness.start(stream__bad_share=1), harness.start(stream__bad_share=1)
    wait_until(lambda: all("processing" in worker.text for worker in (first, second)))

    def load() -> None:
        for _ in range(20):
            harness.write(10, garbage)
            time.sleep(0.1)

    load()
    first.end(signal.SIGKILL)
    third = harness.start(stream__bad_share=1)
    load()
    broker.kill()
    time.sleep(1)
    second.end(signal.SIGKILL)
    broker.start()
    broker.wait_ready()
    load()
    harness.repeats(harness.wait_for_outputs(90))
    wanted = 3 * sum(map(len, harness.written.values())) // 10
    wait_until(lambda: len(harness.distinct_dead_letters()) == wanted)
    assert third.end(signal.SIGTERM)[0] == 0


def test_second_joins_and_leaves_loses_nothing_and_repeats_nothing(harness):
    first = harness.start()
    wait_until(lambda: "processing" in first.text)
    harness.write_for(2)
    second = harness.start()
    harness.write_for(6)
    assert second.end(signal.SIGTERM)[0] == 0
    harness.write_for(2)
    found = harness.wait_for_outputs()
    assert harness.repeats(found) == 0
    assert first.end(signal.SIGTERM)[0] == 0


def test_broker_killed_in_mid_load_loses_nothing(harness, broker):
    worker = harness.start()
    wait_until(lambda: "processing" in worker.text)
    harness.write_for(2)
    broker.kill()
    harness.write_for(4)
    broker.start()
    broker.wait_ready()
    harness.write_for(2)
    harness.repeats(harness.wait_for_outputs())
    assert worker.end(signal.SIGTERM)[0] == 0
    lines = [json.loads(line) for line in worker.text.splitlines()]
    assert [line["event"] for line in lines if line["level"] == "warning"] == [
        f"kafka: no broker takes connections at {harness.bootstrap}"
    ]
    assert "Traceback" not in worker.text


def test_sigterm_under_load_stops_cleanly_and_repeats_nothing(harness):
    for _ in range(2):
        worker = harness.start()
        wait_until(lambda worker=worker: "processing" in worker.text)
        harness.write_for(2)
        status, seconds = worker.end(signal.SIGTERM)
        assert status == 0
        assert seconds < 4
    harness.start()
    assert harness.repeats(harness.wait_for_outputs()) == 0


def test_sigterm_with_a_hung_broker_ends_within_five_seconds(harness, broker):
    import os

    worker = harness.start()
    wait_until(lambda: "processing" in worker.text)
    harness.write_for(1)
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        time.sleep(1)
        status, seconds = worker.end(signal.SIGTERM)
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    assert status == 1
    assert seconds < 5.5
    harness.start()
    harness.repeats(harness.wait_for_outputs())


def test_sigterm_while_waiting_for_a_dead_member_ends_cleanly_without_traceback(harness):
    worker = harness.start()
    wait_until(lambda: "processing" in worker.text)
    worker.end(signal.SIGKILL)
    for wait_s in (0.0, 1.0, 2.0):
        port = free_port()
        worker = harness.start(health__processor_port=port)
        wait_until(lambda port=port: answers(port))
        time.sleep(wait_s)
        status, seconds = worker.end(signal.SIGTERM)
        assert status == 0
        assert seconds < 5
        assert "Traceback" not in worker.text


def test_idle_commits_everything(harness):
    worker = harness.start()
    harness.write(37)
    harness.wait_for_outputs()
    wait_until(lambda: harness.committed() == dict.fromkeys(range(4), 37), 10)
    assert worker.end(signal.SIGTERM)[0] == 0


def garbage(number: int) -> bytes:
    """Of ten records one is refused, one breaks the processor, one has a bad row."""
    return {3: b"bad %d", 5: b"boom %d", 7: b"row %d"}.get(number % 10, b"%d pad") % number


def test_garbage_goes_to_dead_letters_exactly(harness):
    worker = harness.start()
    harness.write(50, garbage)
    assert harness.repeats(harness.wait_for_outputs()) == 0
    wait_until(lambda: len(harness.dead_letters()) == 4 * 15)
    codes = [headers["ebbflow-code"] for _, headers in harness.dead_letters()]
    assert {code: codes.count(code) for code in set(codes)} == {b"EBB601": 20, b"EBB900": 20, b"EBB602": 20}
    wait_until(lambda: harness.committed() == dict.fromkeys(range(4), 50))
    assert "Traceback" not in worker.text
    assert worker.end(signal.SIGTERM)[0] == 0


def test_most_of_the_input_bad_stops_and_stays_there(harness):
    harness.write(30)
    harness.write(60, lambda n: b"bad %d" % n)
    harness.producer.flush(10)
    for _ in range(2):
        worker = harness.start(stream__bad_window=20)
        assert worker.process.wait(30) == 2
        assert f"stopped at {harness.input}/" in worker.text
        assert "hint: look at them with `ebbflow dlq`" in worker.text
    assert len(harness.dead_letters()) <= 4 * 10
    assert max(harness.committed().values()) <= 40
    harness.start(stream__bad_window=20, stream__bad_share=1)
    wait_until(lambda: len(harness.dead_letters()) == 4 * 60)
    assert harness.repeats(harness.wait_for_outputs()) == 0


def test_corrupt_checkpoint_starts_without_state_and_says_so(harness):
    worker = harness.start()
    harness.write(10)
    harness.wait_for_outputs()
    assert worker.end(signal.SIGTERM)[0] == 0
    harness.spoil_checkpoints(b"nonsense")
    worker = harness.start()
    harness.producer.produce(harness.input, b"10 pad", partition=0)
    harness.producer.flush(10)
    wait_until(lambda: b"total 10 10" in [value for _, value, _ in harness.read(harness.output, 4)])
    assert "checkpoint cannot be used" in worker.text


def test_kafka_away_at_start_says_so_once_and_waits(harness, broker):
    broker.kill()
    worker = harness.start()
    wait_until(lambda: "warning" in worker.text)
    time.sleep(3)
    lines = [json.loads(line) for line in worker.text.splitlines()]
    assert len(lines) == 1
    assert "ebbflow kafka" in lines[0]["hint"]
    broker.start()
    broker.wait_ready()
    harness.write(5)
    harness.repeats(harness.wait_for_outputs())
    assert worker.end(signal.SIGTERM)[0] == 0


def test_stopped_while_kafka_is_away_ends_cleanly(harness, broker):
    broker.kill()
    worker = harness.start()
    wait_until(lambda: "warning" in worker.text)
    status, seconds = worker.end(signal.SIGTERM)
    broker.start()
    broker.wait_ready()
    assert status == 0
    assert seconds < 5


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def ready(port: int) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_broker_away_is_alive_but_not_ready(harness, broker):
    port = free_port()
    worker = harness.start(health__processor_port=port)
    wait_until(lambda: "processing" in worker.text)
    assert ready(port)[0] == 200
    broker.kill()
    wait_until(lambda: ready(port)[0] == 503, 10)
    assert b"no broker takes connections" in ready(port)[1]
    broker.start()
    broker.wait_ready()
    wait_until(lambda: ready(port)[0] == 200)


def test_health_port_taken_is_one_clear_error(harness, broker):
    worker = harness.start(health__processor_port=broker.port)
    assert worker.process.wait(20) == 2
    assert worker.text.startswith(f"error: health endpoint 127.0.0.1:{broker.port}: Address already in use")
