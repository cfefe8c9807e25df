from __future__ import annotations

import asyncio

import pytest
from aiokafka import errors as aio

from ebbflow.component import Output
from ebbflow.errors import ConfigError, InternalError, NetworkError, PermissionDenied, Rejected
from ebbflow.stream import outbox as outbox_module
from ebbflow.stream.memory import MemoryKafka
from ebbflow.stream.outbox import Outbox


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(outbox_module, "_FIRST_BACKOFF_S", 0.001)


class Troubles(list):
    def __call__(self, error):
        self.append(error)


@pytest.fixture
def kafka():
    return MemoryKafka()


@pytest.fixture
def reports():
    return Troubles()


@pytest.fixture
def refused():
    return []


@pytest.fixture
def outbox(kafka, reports, refused):
    def on_refused(output, error):
        refused.append((output, error))
        return [Output("dlq", None, b"short")]

    return Outbox(kafka.connect, on_refused=on_refused, report=reports)


def outputs(*values: bytes) -> list[Output]:
    return [Output("t", b"k", value, (("h", b"1"),)) for value in values]


def fail_first(kafka: MemoryKafka, error: BaseException, times: int, *, value: bytes = b"") -> None:
    left = [times]

    def fault(_topic, sent):
        if left[0] and sent.startswith(value):
            left[0] -= 1
            return error
        return None

    kafka.fault = fault


async def test_settle_outputs_are_in_kafka_in_order(outbox, kafka):
    outbox.add(outputs(b"1", b"2"))
    outbox.add(outputs(b"3"))
    await outbox.settle()
    assert kafka.values("t") == [b"1", b"2", b"3"]
    assert (kafka.topics["t"][0].key, kafka.topics["t"][0].headers) == (b"k", (("h", b"1"),))


async def test_settle_after_send_sends_nothing_twice(outbox, kafka):
    outbox.add(outputs(b"1"))
    await outbox.send()
    outbox.add(outputs(b"2"))
    await outbox.settle()
    await outbox.settle()
    assert kafka.values("t") == [b"1", b"2"]


async def test_settle_waits_for_acknowledgement(outbox, kafka):
    kafka.back.clear()
    outbox.add(outputs(b"1"))
    settling = asyncio.ensure_future(outbox.settle())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not settling.done()
    kafka.back.set()
    await settling
    assert kafka.values("t") == [b"1"]


async def test_settle_failed_output_is_sent_until_delivered(outbox, kafka, reports):
    fail_first(kafka, aio.KafkaTimeoutError(), 3, value=b"2")
    outbox.add(outputs(b"1", b"2", b"3"))
    await outbox.settle()
    assert kafka.values("t") == [b"1", b"3", b"2"]
    assert [type(error) for error in reports] == [NetworkError] * 3 + [type(None)]
    assert kafka.connections == 1


async def test_settle_broken_producer_is_replaced(outbox, kafka):
    fail_first(kafka, aio.OutOfOrderSequenceNumber(), 1)
    outbox.add(outputs(b"1"))
    await outbox.settle()
    assert kafka.values("t") == [b"1"]
    assert kafka.connections == 2


async def test_settle_cancelled_delivery_is_sent_again(outbox, kafka):
    fail_first(kafka, asyncio.CancelledError(), 1)
    outbox.add(outputs(b"1"))
    await outbox.settle()
    assert kafka.values("t") == [b"1"]


async def test_settle_connection_refused_tries_again(kafka, reports):
    attempts = []

    async def connect():
        attempts.append(1)
        if len(attempts) < 3:
            raise aio.KafkaConnectionError
        return await kafka.connect()

    outbox = Outbox(connect, on_refused=lambda *_: [], report=reports)
    outbox.add(outputs(b"1"))
    await outbox.settle()
    assert kafka.values("t") == [b"1"]
    assert len(attempts) == 3


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (aio.TopicAuthorizationFailedError(), PermissionDenied),
        (ConfigError("kafka.ssl_cafile: no such file"), ConfigError),
        (TypeError("value must be bytes"), InternalError),
    ],
)
async def test_settle_what_stays_wrong_is_raised_and_nothing_forgotten(outbox, kafka, error, ours):
    fail_first(kafka, error, 1)
    outbox.add(outputs(b"1"))
    with pytest.raises(ours):
        await outbox.settle()
    await outbox.settle()
    assert kafka.values("t") == [b"1"]


async def test_settle_too_large_output_is_replaced(outbox, kafka, refused):
    fail_first(kafka, aio.MessageSizeTooLargeError(), 1, value=b"big")
    outbox.add(outputs(b"1", b"big", b"2"))
    await outbox.settle()
    assert kafka.values("t") == [b"1", b"2"]
    assert kafka.values("dlq") == [b"short"]
    assert [(output.value, type(error)) for output, error in refused] == [(b"big", Rejected)]


class RefusingAtOnce(MemoryKafka):
    """Refuses by its own check of the size, before anything is sent, as aiokafka does."""

    async def send(self, topic, value, *, key, headers):
        if value == b"big":
            raise aio.MessageSizeTooLargeError
        return await super().send(topic, value, key=key, headers=headers)


async def test_settle_output_refused_by_the_client_is_replaced(refused, reports):
    kafka = RefusingAtOnce()

    def on_refused(output, error):
        refused.append(output.value)
        return [Output("dlq", None, b"short")]

    outbox = Outbox(kafka.connect, on_refused=on_refused, report=reports)
    outbox.add(outputs(b"1", b"big", b"2"))
    await outbox.settle()
    assert (kafka.values("t"), kafka.values("dlq"), refused) == ([b"1", b"2"], [b"short"], [b"big"])


async def test_settle_given_up_keeps_outputs_and_the_producers_work(outbox, kafka):
    kafka.back.clear()
    outbox.add(outputs(b"1"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await outbox.settle()
    kafka.back.set()
    await outbox.settle()
    assert kafka.values("t") == [b"1"]


async def test_is_full_follows_what_waits(outbox, monkeypatch):
    monkeypatch.setattr(outbox_module, "MAX_WAITING_BYTES", 1000)
    outbox.add(outputs(b"1" * 400))
    assert not outbox.is_full
    outbox.add(outputs(b"1" * 400))
    assert outbox.is_full
    await outbox.settle()
    assert not outbox.is_full


async def test_close_lets_the_producer_go(outbox, kafka):
    outbox.add(outputs(b"1"))
    await outbox.settle()
    await outbox.close()
    await outbox.close()
    outbox.add(outputs(b"2"))
    await outbox.settle()
    assert kafka.connections == 2
