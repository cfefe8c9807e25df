"""The Faust side without a broker: what the agent does with events, and what it is told."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import faust
import pytest
from aiokafka import errors as aio
from faust.types import TP
from faust.types.auth import AuthProtocol
from prometheus_client import CollectorRegistry
from totals import INPUT, Totals

from ebbflow.config import Config, KafkaConfig, StreamConfig
from ebbflow.errors import InternalError
from ebbflow.stream import runner as runner_module
from ebbflow.stream.metrics import StreamMetrics
from ebbflow.stream.runner import Runner, _connect, _credentials
from ebbflow.troubles import Troubles


class FakeStage:
    def __init__(self):
        self.consumed, self.assigned, self.calls = [], [], []

    async def consume(self, record, ack):
        self.consumed.append((record, ack))

    def assign(self, partitions):
        self.assigned = sorted(partitions)

    async def revoke(self):
        self.calls.append("revoke")

    async def stop(self, timeout_s):
        self.calls.append("stop")
        return True

    async def close(self):
        self.calls.append("close")


class FakeApp:
    crashed = False
    crash_reason = None

    def __init__(self, fault=None):
        self.fault = fault
        self.calls = []
        self.consumer = SimpleNamespace(commit=self.commit, highwater=lambda tp: {0: 42}[tp.partition])

    async def start(self):
        if self.fault:
            raise self.fault

    async def stop(self):
        self.calls.append("app stop")

    async def commit(self):
        self.calls.append("commit")


@pytest.fixture
def failures():
    return []


@pytest.fixture
async def runner(failures):
    troubles = Troubles(warn=lambda *_, **__: None, inform=lambda *_, **__: None)
    runner = Runner(Totals, Config(), StreamMetrics(CollectorRegistry()), troubles, failures.append)
    runner.real_app, runner._app = runner._app, FakeApp()
    runner.real_stage, runner.stage = runner.stage, FakeStage()
    runner.stage.name = "totals"
    return runner


async def test_app_settings_are_the_measured_ones(runner):
    conf = runner.real_app.conf
    assert (conf.id, conf.processing_guarantee.value) == ("ebbflow-totals", "at_least_once")
    assert [str(url) for url in conf.broker] == ["kafka://127.0.0.1:19092"]
    assert (conf.web_enabled, conf.stream_wait_empty, conf.topic_allow_declare) == (False, False, False)
    assert (conf.broker_session_timeout, conf.broker_rebalance_timeout) == (10.0, 15.0)
    (agent,) = runner.real_app.agents.values()
    assert (agent.concurrency, agent.channel.topics) == (1, (INPUT,))


async def test_app_makes_no_folders(runner, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner.real_app._create_directories()
    assert list(tmp_path.iterdir()) == []


class FakeStream(faust.Stream):
    def __init__(self, events):
        self.given = events

    def noack(self):
        return self

    async def events(self):
        for event in self.given:
            yield event


def event(offset: int, headers) -> SimpleNamespace:
    message = SimpleNamespace(
        topic=INPUT, partition=3, offset=offset, timestamp=1_700_000_000.123, key=b"k", value=b"v", headers=headers
    )
    return SimpleNamespace(message=message, value=b"v", key=b"k", ack=object())


@pytest.mark.parametrize("headers", [[("h", b"1")], {"h": b"1"}])
async def test_agent_hands_records_over_and_keeps_no_payload(runner, headers):
    runner._stopping = True
    given = event(7, headers)
    await runner._consume(FakeStream([given]))
    ((record, ack),) = runner.stage.consumed
    assert (record.topic, record.partition, record.offset) == (INPUT, 3, 7)
    assert (record.timestamp_ms, record.key, record.value) == (1_700_000_000_123, b"k", b"v")
    assert record.headers == (("h", b"1"),)
    assert ack is given.ack
    assert (given.value, given.key, given.message.value, given.message.headers) == (None, None, None, None)


async def test_agent_that_ends_while_running_is_a_failure(runner, failures):
    await runner._consume(FakeStream([]))
    assert [str(failure) for failure in failures] == ["totals: Faust ended the stream"]


async def test_agent_that_ends_while_stopping_is_none(runner, failures):
    await runner.stop()
    await runner._consume(FakeStream([]))
    assert failures == []


async def test_rebalance_reaches_the_stage(runner):
    await runner._on_assigned(None, {TP(INPUT, 2), TP(INPUT, 0)}, signal=None)
    assert runner.stage.assigned == [(INPUT, 0), (INPUT, 2)]
    await runner._on_revoked(None, set(), signal=None)
    assert runner.stage.calls == ["revoke"]
    assert runner._app.calls == ["commit"]


async def test_revoke_with_a_hung_broker_does_not_wait_for_the_commit(runner, monkeypatch):
    monkeypatch.setattr(runner_module, "_COMMIT_S", 0.01)
    runner._app.consumer.commit = asyncio.Event().wait
    await runner._on_revoked(None, set(), signal=None)
    assert runner.stage.calls == ["revoke"]


async def test_signals_of_the_app_are_connected(runner):
    await runner.real_app.on_partitions_assigned.send({TP(INPUT, 1)})
    assert runner.stage.assigned == [(INPUT, 1)]


async def test_stop_settles_then_leaves_the_group(runner):
    assert await runner.stop()
    assert (runner.stage.calls, runner._app.calls) == (["stop", "close"], ["app stop"])
    assert runner.has_left


async def test_stop_does_not_wait_for_a_member_that_cannot_leave(runner, monkeypatch):
    monkeypatch.setattr(runner_module, "_LEAVE_S", 0.01)
    assert not runner.has_left
    runner._app.stop = asyncio.Event().wait
    assert await runner.stop()
    assert not runner.has_left
    runner._leaving.cancel()


async def test_start_that_faust_refuses_is_one_error(runner):
    runner._app = FakeApp(RuntimeError("no"))
    with pytest.raises(InternalError, match="totals: Faust gave up: RuntimeError: no"):
        await runner.start()


async def test_crash_is_told_when_there_is_one(runner):
    await runner.start()
    assert runner.crash is None
    runner._app.crashed, runner._app.crash_reason = True, ValueError("x")
    assert str(runner.crash) == "totals: Faust gave up: ValueError: x"


async def test_highwater_unknown_is_none(runner):
    assert (runner._highwater(INPUT, 0), runner._highwater(INPUT, 1)) == (42, None)


def test_credentials_follow_the_protocol():
    assert _credentials(KafkaConfig()) is None
    assert _credentials(KafkaConfig(security_protocol="SSL")).protocol == AuthProtocol.SSL
    plain = _credentials(KafkaConfig(security_protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password="p"))
    assert (plain.protocol, plain.username, plain.password) == (AuthProtocol.SASL_PLAINTEXT, "u", "p")
    both = _credentials(KafkaConfig(security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-256"))
    assert (both.protocol, both.mechanism.value) == (AuthProtocol.SASL_SSL, "SCRAM-SHA-256")


class FakeProducer:
    def __init__(self, fault=None):
        self.fault, self.calls = fault, []

    async def start(self):
        self.calls.append("start")
        if self.fault:
            raise self.fault

    async def stop(self):
        self.calls.append("stop")


async def test_connect_gives_a_started_producer(monkeypatch):
    producer = FakeProducer()
    monkeypatch.setattr(runner_module, "make_producer", lambda *_, **__: producer)
    assert await _connect(KafkaConfig()) is producer
    assert producer.calls == ["start"]


async def test_connect_that_fails_leaves_no_producer_behind(monkeypatch):
    producer = FakeProducer(aio.KafkaConnectionError())
    monkeypatch.setattr(runner_module, "make_producer", lambda *_, **__: producer)
    with pytest.raises(aio.KafkaConnectionError):
        await _connect(KafkaConfig())
    assert producer.calls == ["start", "stop"]


def test_session_timeout_is_a_setting():
    config = Config(stream=StreamConfig(session_timeout_s=20))
    conf = runner_module._make_app(Totals, config).conf
    assert (conf.broker_session_timeout, conf.broker_rebalance_timeout) == (20.0, 30.0)
