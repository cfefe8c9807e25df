from __future__ import annotations

import asyncio

import pytest
from aiokafka import errors as aio
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from totals import INPUT, OUTPUT, Totals, expected

from ebbflow.config import Config, StreamConfig
from ebbflow.errors import InternalError, NetworkError, StreamInvalid
from ebbflow.stream import checkpoint as checkpoint_module
from ebbflow.stream import outbox as outbox_module
from ebbflow.stream import stage as stage_module
from ebbflow.stream.checkpoint import Checkpoint, decode
from ebbflow.stream.memory import MemoryKafka
from ebbflow.stream.metrics import StreamMetrics
from ebbflow.stream.stage import Stage
from ebbflow.topics import CHECKPOINTS, DEAD_LETTERS, LEDGER
from ebbflow.troubles import Troubles


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Bench:
    """A stage on Kafka in memory; `acked` has the offsets that Faust would commit."""

    def __init__(self, processor=Totals, kafka: MemoryKafka | None = None, **settings) -> None:
        self.kafka = kafka or MemoryKafka()
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.config = Config(stream=StreamConfig(**settings))
        self.failures: list[Exception] = []
        self.acked: list[int] = []
        self.said: list[str] = []
        self.processor = processor
        self.stage = self.make()

    def make(self) -> Stage:
        def say(event, **_):
            self.said.append(event)

        stage = Stage(
            self.processor,
            self.config,
            connect=self.kafka.connect,
            history=self.kafka,
            metrics=StreamMetrics(CollectorRegistry() if self.failures else self.registry),
            troubles=Troubles(warn=say, inform=say),
            on_failure=self.failures.append,
            highwater=lambda topic, _: len(self.kafka.topics[topic]),
            clock_s=self.clock,
            clock_unix_ns=lambda: 99,
        )
        stage.assign([(INPUT, 0)])
        return stage

    def restart(self) -> None:
        """As after kill -9: nothing is left but what Kafka has."""
        self.registry = CollectorRegistry()
        self.acked = []
        self.stage = self.make()

    def write(self, *values: bytes) -> None:
        for value in values:
            self.kafka.append(INPUT, value, timestamp_ms=len(self.kafka.topics.get(INPUT, ())))

    async def consume(self, start: int, stop: int) -> None:
        for record in self.kafka.topics[INPUT][start:stop]:
            await self.stage.consume(record, lambda offset=record.offset: self.acked.append(offset))

    async def settle(self) -> None:
        self.clock.now_s += 1000
        await self.stage.beat()

    @property
    def outputs(self) -> list[bytes]:
        return self.kafka.values(OUTPUT)

    @property
    def saved(self) -> list[Checkpoint]:
        return [decode(value) for value in self.kafka.values(CHECKPOINTS)]

    def count(self, name: str, /, **labels: str) -> float:
        return self.registry.get_sample_value(f"ebbflow_processor_{name}", {"processor": "totals"} | labels) or 0.0


NUMBERS = [b"%d" % number for number in range(20)]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(outbox_module, "_FIRST_BACKOFF_S", 0.001)
    monkeypatch.setattr(stage_module, "_RETRY_S", 0.001)


async def test_consume_until_a_checkpoint_is_due_acknowledges_nothing():
    bench = Bench()
    bench.write(*NUMBERS)
    await bench.consume(0, 20)
    assert (bench.acked, bench.saved) == ([], [])
    await bench.settle()
    assert bench.outputs == expected(NUMBERS)
    assert bench.acked == list(range(20))
    assert [checkpoint.next_offset for checkpoint in bench.saved] == [20]


async def test_consume_when_a_checkpoint_is_due_writes_it_after_the_record():
    bench = Bench()
    bench.write(*NUMBERS)
    await bench.consume(0, 5)
    bench.clock.now_s = 1.0
    await bench.consume(5, 7)
    assert (bench.acked, [checkpoint.next_offset for checkpoint in bench.saved]) == ([0, 1, 2, 3, 4, 5], [6])


async def test_beat_without_new_records_writes_nothing():
    bench = Bench()
    bench.write(*NUMBERS)
    await bench.consume(0, 20)
    await bench.settle()
    await bench.settle()
    assert len(bench.saved) == 1


async def test_acknowledgement_comes_only_after_outputs_and_checkpoint():
    bench = Bench()
    order: list[str] = []
    bench.kafka.fault = lambda topic, _: order.append(topic)
    bench.write(b"1")
    await bench.stage.consume(bench.kafka.topics[INPUT][0], lambda: order.append("ack"))
    await bench.settle()
    assert order == [OUTPUT, LEDGER, CHECKPOINTS, "ack"]


@pytest.mark.parametrize("crash", range(1, 18, 3))
async def test_restart_at_any_record_repeats_only_identical_outputs(crash):
    bench = Bench()
    bench.write(*NUMBERS)
    await bench.consume(0, crash)
    await bench.settle()
    await bench.consume(crash, crash + 2)
    await asyncio.sleep(0)  # what was sent arrives, but no checkpoint is written
    first = len(bench.outputs)
    bench.restart()
    await bench.consume(0, 20)
    await bench.settle()
    wanted = expected(NUMBERS)
    assert bench.outputs[:first] == wanted[:first]
    assert bench.outputs[first:] == wanted[len(expected(NUMBERS[:crash])) :]
    assert bench.acked == list(range(20))
    assert bench.count("skipped_total") == crash


async def test_outputs_do_not_depend_on_what_arrived_together():
    one, other = Bench(checkpoint_interval_s=1), Bench(checkpoint_interval_s=1)
    for bench, step in ((one, 1), (other, 7)):
        bench.write(*NUMBERS)
        for start in range(0, 20, step):
            await bench.consume(start, min(20, start + step))
            await bench.settle()
    assert one.outputs == other.outputs == expected(NUMBERS)


async def test_consume_known_offset_again_is_skipped_but_acknowledged():
    bench = Bench()
    bench.write(*NUMBERS)
    await bench.consume(0, 20)
    await bench.consume(10, 20)
    await bench.settle()
    assert bench.outputs == expected(NUMBERS)
    assert bench.acked == [*range(20), *range(10, 20)]


async def test_committed_offset_ahead_of_the_checkpoint_is_made_up_for():
    bench = Bench()
    bench.write(*NUMBERS)
    await bench.consume(0, 4)
    await bench.settle()
    bench.restart()
    await bench.consume(9, 20)
    await bench.settle()
    assert bench.outputs == expected(NUMBERS)


async def test_records_gone_from_kafka_are_counted_and_the_rest_goes_on():
    bench = Bench()
    bench.write(*NUMBERS)
    await bench.consume(0, 4)
    await bench.settle()
    inputs = bench.kafka.topics[INPUT]
    bench.restart()
    with capture_logs() as logs:
        bench.kafka.topics[INPUT] = []
        await bench.stage.consume(inputs[10], lambda: None)
        bench.kafka.topics[INPUT] = inputs
    assert bench.count("missing_total") == 6
    assert [line["count"] for line in logs] == [6]
    await bench.settle()
    assert bench.outputs[-1] == b"total 10 16"


async def test_topic_created_anew_begins_without_state():
    bench = Bench()
    bench.write(*NUMBERS)
    await bench.consume(0, 20)
    await bench.settle()
    del bench.kafka.topics[INPUT]
    record = bench.kafka.append(INPUT, b"5", timestamp_ms=1000)
    with capture_logs() as logs:
        await bench.stage.consume(record, lambda: None)
    await bench.settle()
    assert bench.outputs[-1] == b"total 5 5"
    assert logs[0]["event"].startswith("topic was created anew")
    assert bench.saved[-1].next_offset == 1


async def test_bad_records_become_dead_letters_and_change_nothing():
    bench = Bench()
    values = [b"0", b"bad", b"1", b"row", b"2"]
    bench.write(*values)
    await bench.consume(0, 5)
    await bench.settle()
    assert bench.outputs == expected(values)
    assert bench.kafka.values(DEAD_LETTERS) == [b"bad", b"row"]
    assert bench.acked == [0, 1, 2, 3, 4]
    assert bench.count("dead_letters_total", code="EBB601") == 1
    assert bench.count("dead_letters_total", code="EBB602") == 1
    assert bench.count("records_total") == 5


@pytest.mark.parametrize("settled", [0, 2, 4])
async def test_unexpected_exception_leaves_the_state_as_before_the_record(settled):
    bench = Bench()
    values = [b"4", b"bad", b"5", b"6", b"boom", b"7", b"boom", b"8"]
    bench.write(*values)
    with capture_logs() as logs:
        await bench.consume(0, settled)
        await bench.settle()
        await bench.consume(settled, 8)
        await bench.settle()
    assert [line["record"] for line in logs] == [f"{INPUT}/0/4"]
    assert bench.outputs == expected(values)
    assert bench.kafka.values(DEAD_LETTERS) == [b"bad", b"boom", b"boom"]
    assert bench.count("rebuilt_total") == 2
    assert bench.count("dead_letters_total", code="EBB900") == 2
    # Written at once, so that the next failure does not begin at the same place again.
    assert [checkpoint.next_offset for checkpoint in bench.saved][-3:] == [5, 7, 8]


async def test_unexpected_exception_of_a_processor_that_is_not_deterministic_starts_without_state():
    class Moody(Totals):
        calls = 0

        def process(self, record):
            Moody.calls += 1
            if Moody.calls in {3, 4}:
                raise ZeroDivisionError
            return super().process(record)

    bench = Bench(Moody)
    bench.write(*NUMBERS[:5])
    with capture_logs() as logs:
        await bench.consume(0, 5)
    await bench.settle()
    assert bench.outputs == [b"total 0 0", b"total 1 1", b"pair 0 1", b"total 3 3", b"total 4 7"]
    assert [line["log_level"] for line in logs] == ["error", "error"]
    assert bench.stage.failure is None


async def test_mostly_bad_input_stops_the_stage_before_the_record_that_is_too_much():
    bench = Bench(bad_window=10, bad_share=0.5)
    bench.write(b"1", *[b"bad"] * 9)
    await bench.consume(0, 10)
    (failure,) = bench.failures
    assert isinstance(failure, StreamInvalid)
    assert f"stopped at {INPUT}/0/6" in str(failure)
    assert "ebbflow dlq" in failure.hint
    assert len(bench.kafka.values(DEAD_LETTERS)) == 5
    assert (bench.acked, bench.saved[-1].next_offset) == ([0, 1, 2, 3, 4, 5], 6)
    assert bench.stage.problems() == [f"totals: {failure}"]


async def test_mostly_bad_input_after_a_restart_stops_at_the_same_record():
    bench = Bench(bad_window=10, bad_share=0.5)
    bench.write(b"1", *[b"bad"] * 9)
    await bench.consume(0, 10)
    for _ in range(2):
        bench.restart()
        await bench.consume(6, 10)
    assert [str(failure) for failure in bench.failures] == [str(bench.failures[0])] * 3
    assert len(bench.kafka.values(DEAD_LETTERS)) == 5


async def test_mostly_bad_input_that_can_be_read_after_a_restart_goes_on():
    bench = Bench(bad_window=10, bad_share=0.5)
    bench.write(b"1", *[b"bad"] * 6)
    await bench.consume(0, 7)
    bench.processor = type("Mended", (Totals,), {"process": lambda self, record: Totals.process(self, mend(record))})
    bench.restart()
    await bench.consume(6, 7)
    await bench.settle()
    assert bench.outputs[-1] == b"total 42 43"


def mend(record):
    from dataclasses import replace

    return replace(record, value=b"42") if record.value == b"bad" else record


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda value: b"nonsense", "corrupt"),
        (lambda value: value[:-1] + bytes([value[-1] ^ 1]), "corrupt"),
        (lambda value: checkpoint_module.encode(Checkpoint(next_offset=3, snapshot_version=7)), "version"),
        (lambda value: checkpoint_module.encode(Checkpoint(next_offset=3, snapshot_version=1)), "restore"),
    ],
)
async def test_unusable_checkpoint_is_counted_said_and_left(change, reason):
    bench = Bench()
    bench.write(*NUMBERS)
    await bench.consume(0, 5)
    await bench.settle()
    last = bench.kafka.topics[CHECKPOINTS][-1]
    bench.kafka.append(CHECKPOINTS, change(last.value), last.key)
    bench.restart()
    with capture_logs() as logs:
        await bench.consume(5, 6)
    await bench.settle()
    assert bench.outputs[-1] == b"total 5 5"
    assert bench.count("checkpoint_failures_total", reason=reason) == 1
    assert [line["offset"] for line in logs] == [5]
    assert decode(bench.kafka.values(CHECKPOINTS)[-1]).next_offset == 6


async def test_checkpoint_too_large_commits_nothing_until_it_shrinks(monkeypatch):
    bench = Bench()
    bench.write(*NUMBERS)
    monkeypatch.setattr(checkpoint_module, "MAX_BYTES", 10)
    with capture_logs() as logs:
        await bench.consume(0, 5)
        await bench.settle()
        await bench.settle()
    assert (bench.acked, bench.saved, len(logs)) == ([], [], 1)
    assert bench.stage.problems()[-1].endswith("the state is too large for a checkpoint")
    assert bench.count("checkpoint_failures_total", reason="size") >= 1
    monkeypatch.undo()
    await bench.consume(5, 6)
    await bench.settle()
    assert bench.acked == [0, 1, 2, 3, 4, 5]
    assert bench.stage.problems() == []


async def test_failed_outputs_are_sent_again_before_the_checkpoint():
    bench = Bench()
    left = [5]

    def fault(topic, _):
        left[0] -= 1
        return aio.KafkaTimeoutError() if left[0] >= 0 else None

    bench.kafka.fault = fault
    bench.write(*NUMBERS)
    await bench.consume(0, 20)
    await bench.settle()
    assert sorted(bench.outputs) == sorted(expected(NUMBERS))
    assert bench.acked == list(range(20))
    assert len(bench.said) == 2
    assert "write to test.out" in bench.said[0]
    assert bench.said[1] == "kafka: works again"


async def test_checkpoint_is_not_even_sent_before_every_output_is_delivered():
    bench = Bench()
    left = [7]
    delivered_by_then: list[int] = []

    def fault(topic, _):
        if topic == CHECKPOINTS:
            delivered_by_then.append(len(bench.outputs))
            return None
        left[0] -= 1
        return aio.KafkaTimeoutError() if left[0] >= 0 else None

    bench.kafka.fault = fault
    bench.write(*NUMBERS)
    await bench.consume(0, 20)
    await bench.settle()
    assert delivered_by_then == [len(expected(NUMBERS))]


async def test_output_too_large_becomes_a_dead_letter():
    bench = Bench()
    bench.kafka.fault = lambda topic, _: aio.MessageSizeTooLargeError() if topic == OUTPUT else None
    bench.write(b"3")
    with capture_logs() as logs:
        await bench.consume(0, 1)
        await bench.settle()
    (letter,) = bench.kafka.topics[DEAD_LETTERS]
    assert letter.value == b"total 3 3"
    assert dict(letter.headers)["ebbflow-topic"] == OUTPUT.encode()
    assert (bench.acked, len(logs), bench.count("refused_outputs_total")) == ([0], 1, 1)


async def test_dead_letter_too_large_is_counted_and_left():
    bench = Bench()
    bench.kafka.fault = lambda topic, _: aio.MessageSizeTooLargeError() if topic == DEAD_LETTERS else None
    bench.write(b"bad")
    with capture_logs() as logs:
        await bench.consume(0, 1)
        await bench.settle()
    assert (bench.acked, len(logs), bench.count("refused_outputs_total")) == ([0], 1, 1)


async def test_missing_right_ends_the_stage_without_acknowledgement():
    bench = Bench()
    bench.kafka.fault = lambda topic, _: aio.TopicAuthorizationFailedError()
    bench.write(*NUMBERS)
    await bench.consume(0, 2)
    await bench.settle()
    assert bench.acked == []
    assert [failure.code for failure in bench.failures] == ["EBB200"]
    await bench.consume(2, 20)
    await bench.settle()
    assert not await bench.stage.stop(1)


async def test_snapshot_that_fails_ends_the_stage_with_one_error():
    class Broken(Totals):
        def snapshot(self):
            if self.count:
                raise ZeroDivisionError("no snapshot")
            return super().snapshot()

    bench = Bench(Broken)
    bench.write(b"1", b"2")
    with capture_logs():
        await bench.consume(0, 1)
        await bench.settle()
    (failure,) = bench.failures
    assert isinstance(failure, InternalError)
    assert str(failure) == "totals: checkpoint: ZeroDivisionError: no snapshot"


async def test_processor_that_cannot_be_made_ends_the_stage_with_one_error():
    class Broken(Totals):
        @classmethod
        def from_config(cls, config):
            raise ZeroDivisionError("no processor")

    bench = Bench(Broken)
    bench.write(b"1")
    with capture_logs():
        await bench.consume(0, 1)
    assert str(bench.failures[0]) == f"totals on {INPUT}/0/0: ZeroDivisionError: no processor"


class Away(MemoryKafka):
    """History is away for some calls."""

    def __init__(self, failures: int, error: Exception) -> None:
        super().__init__()
        self.failures, self.error = failures, error

    async def checkpoints(self, keys):
        if self.failures:
            self.failures -= 1
            raise self.error
        return await super().checkpoints(keys)


async def test_kafka_away_while_checkpoints_are_read_is_told_once_and_waited_for():
    bench = Bench(kafka=Away(3, NetworkError("away", hint="look")))
    bench.write(b"3")
    await bench.consume(0, 1)
    await bench.settle()
    assert bench.outputs == [b"total 3 3"]
    assert bench.said == ["kafka: away", "kafka: works again"]


async def test_stop_while_kafka_is_away_gives_the_record_up():
    bench = Bench(kafka=Away(10**9, NetworkError("away")))
    bench.write(b"3")
    consuming = asyncio.ensure_future(bench.consume(0, 1))
    await asyncio.sleep(0.01)
    assert await bench.stage.stop(1.0)
    await consuming
    assert (bench.acked, bench.outputs, bench.failures) == ([], [], [])


async def test_stop_finishes_what_is_in_hand():
    bench = Bench()
    bench.write(*NUMBERS)
    await bench.consume(0, 8)
    assert await bench.stage.stop(1.0)
    await bench.consume(8, 20)
    await bench.stage.close()
    assert bench.acked == list(range(8))
    assert bench.outputs == expected(NUMBERS[:8])


async def test_stop_with_a_hung_broker_ends_in_time():
    bench = Bench()
    bench.write(*NUMBERS)
    bench.kafka.back.clear()
    await bench.consume(0, 8)
    with capture_logs() as logs:
        assert not await bench.stage.stop(0.02)
    assert "repeated" in logs[0]["event"]
    bench.kafka.back.set()


async def test_revoke_leaves_nothing_to_repeat():
    bench = Bench()
    bench.write(*NUMBERS)
    await bench.consume(0, 8)
    await bench.stage.revoke()
    assert bench.acked == list(range(8))
    assert bench.saved[-1].next_offset == 8
    await bench.consume(8, 9)  # was in Faust's hands already: not ours any more
    assert len(bench.outputs) == len(expected(NUMBERS[:8]))
    bench.stage.assign([(INPUT, 0)])
    await bench.consume(8, 20)
    await bench.settle()
    assert bench.outputs == expected(NUMBERS)


async def test_revoke_with_a_hung_broker_abandons_the_state(monkeypatch):
    monkeypatch.setattr(stage_module, "_REVOKE_S", 0.01)
    bench = Bench()
    bench.write(*NUMBERS)
    bench.kafka.back.clear()
    await bench.consume(0, 8)
    with capture_logs():
        await bench.stage.revoke()
    bench.kafka.back.set()
    bench.stage.assign([(INPUT, 0)])
    await bench.consume(0, 20)
    await bench.settle()
    assert set(bench.outputs) == set(expected(NUMBERS))
    assert bench.acked == list(range(20))


async def test_full_outbox_is_settled_before_more_is_taken(monkeypatch):
    monkeypatch.setattr(outbox_module, "MAX_WAITING_BYTES", 300)
    bench = Bench()
    bench.write(*NUMBERS)
    await bench.consume(0, 4)
    assert bench.outputs == expected(NUMBERS[:4])
    assert bench.acked == []


async def test_problems_name_records_that_wait_too_long():
    bench = Bench(stall_s=30)
    bench.write(*NUMBERS)
    await bench.consume(0, 3)
    bench.clock.now_s = 29.0
    assert bench.stage.problems() == []
    bench.clock.now_s = 31.0
    assert bench.stage.problems() == [f"totals: {INPUT}/0: 3 records uncommitted for 31 s"]
    await bench.settle()
    assert bench.stage.problems() == []


async def test_measure_shows_lag_age_and_the_processors_own_sizes():
    bench = Bench()
    bench.write(*NUMBERS)
    await bench.consume(0, 5)
    bench.clock.now_s = 0.5
    bench.stage.measure()
    labels = {"topic": INPUT, "partition": "0"}
    assert bench.count("lag_records", **labels) == 15
    assert bench.count("checkpoint_age_seconds", **labels) == 0.5
    assert bench.count("state", **labels, name="halves") == 1
    await bench.stage.stop(1)
    assert bench.registry.get_sample_value("ebbflow_processor_lag_records", {"processor": "totals", **labels}) is None


async def test_measure_without_known_end_shows_no_lag():
    bench = Bench()
    bench.stage.highwater = lambda _topic, _partition: None
    bench.write(b"1")
    await bench.consume(0, 1)
    bench.stage.measure()
    labels = {"processor": "totals", "topic": INPUT, "partition": "0"}
    assert bench.registry.get_sample_value("ebbflow_processor_lag_records", labels) is None
