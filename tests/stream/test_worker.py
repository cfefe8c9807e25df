"""The process around the stages, with Kafka and Faust replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs
from totals import Totals

from ebbflow.config import Config, HealthConfig, KafkaConfig
from ebbflow.errors import ConfigError, InternalError, NetworkError, StreamInvalid
from ebbflow.stream import worker as worker_module
from ebbflow.stream.worker import _unlisted, _unreachable, run_processors


class FakeStage:
    name = "totals"

    def __init__(self, world):
        self.world = world

    async def beat(self):
        self.world.beats += 1
        if self.world.beats == 2:
            self.world.on_second_beat()

    def measure(self):
        self.world.measured += 1

    def problems(self):
        return []


class Exited(BaseException):
    """In place of the end of the process."""


class FakeRunner:
    def __init__(self, world, on_failure):
        self.world, self.on_failure, self.stage = world, on_failure, FakeStage(world)

    async def start(self):
        if self.world.start_fault:
            raise self.world.start_fault

    @property
    def crash(self):
        return self.world.crash

    async def stop(self):
        if self.world.hangs:
            await asyncio.Event().wait()
        return self.world.clean

    @property
    def has_left(self):
        return self.world.leaves


class World:
    """What the worker meets."""

    def __init__(self):
        self.beats = self.measured = 0
        self.start_fault = self.crash = None
        self.clean, self.hangs, self.leaves = True, False, True
        self.attempts: list[Exception | None] = []
        self.created: list[list[str]] = []
        self.runners: list[FakeRunner] = []
        self.armed = []
        self.on_second_beat = lambda: os.kill(os.getpid(), signal.SIGTERM)

    async def check_reachable(self, _config):
        error = self.attempts.pop(0) if self.attempts else None
        if error:
            raise error

    async def create_topics(self, _config, topics):
        self.created.append([topic.name for topic in topics])

    async def unreachable(self, _config):
        return None

    def runner(self, _processor, _config, _metrics, _troubles, on_failure):
        self.runners.append(FakeRunner(self, on_failure))
        return self.runners[-1]


@pytest.fixture
def world(monkeypatch):
    world = World()
    monkeypatch.setattr(worker_module, "check_reachable", world.check_reachable)
    monkeypatch.setattr(worker_module, "create_topics", world.create_topics)
    monkeypatch.setattr(worker_module, "_unreachable", world.unreachable)
    monkeypatch.setattr(worker_module, "Runner", world.runner)
    monkeypatch.setattr(worker_module, "_arm", world.armed.append)
    monkeypatch.setattr(worker_module, "_BEAT_S", 0.001)
    monkeypatch.setattr(worker_module, "_KNOCK_S", 0.005)
    monkeypatch.setattr(worker_module, "_STOP_S", 0.02)
    return world


def test_run_until_sigterm_is_status_0_and_arms_the_deadline(world):
    assert run_processors([Totals, Totals], Config()) == 0
    assert len(world.runners) == 2
    assert world.beats >= 2
    assert len(world.armed) == 1


def test_run_creates_the_catalogue_and_inputs_it_does_not_know(world):
    run_processors([Totals], Config())
    assert world.created[0][-1] == "test.in"
    assert "ebbflow.checkpoints" in world.created[0]


def test_run_with_kafka_away_says_so_once_and_waits(world):
    world.attempts = [NetworkError("away", hint="look")] * 3
    with capture_logs() as logs:
        assert run_processors([Totals], Config()) == 0
    assert [line["event"] for line in logs] == ["kafka: away", "kafka: works again", "processing", "stopping"]
    assert logs[0]["hint"] == "look"


def test_run_stopped_while_kafka_is_away_is_status_0(world, monkeypatch):
    world.attempts = [NetworkError("away")] * 1000

    async def knock_once(_config):
        os.kill(os.getpid(), signal.SIGINT)
        raise NetworkError("away")

    monkeypatch.setattr(worker_module, "check_reachable", knock_once)
    assert run_processors([Totals], Config()) == 0
    assert world.runners == []


def test_run_stopped_while_kafka_hangs_does_not_wait_for_it(world, monkeypatch):
    async def hang(_config):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    monkeypatch.setattr(worker_module, "check_reachable", hang)
    assert run_processors([Totals], Config()) == 0


def test_run_with_wrong_settings_raises(world):
    world.attempts = [ConfigError("no such file")]
    with pytest.raises(ConfigError, match="no such file"):
        run_processors([Totals], Config())


def test_run_failure_of_a_stage_stops_and_is_raised(world):
    world.on_second_beat = lambda: world.runners[0].on_failure(StreamInvalid("mostly bad"))
    with pytest.raises(StreamInvalid, match="mostly bad"):
        run_processors([Totals], Config())


def test_run_faust_that_cannot_start_is_raised(world):
    world.start_fault = InternalError("Faust gave up")
    with pytest.raises(InternalError, match="Faust gave up"):
        run_processors([Totals], Config())


def test_run_faust_that_crashes_is_raised(world):
    world.on_second_beat = lambda: setattr(world, "crash", InternalError("Faust crashed"))
    with pytest.raises(InternalError, match="Faust crashed"):
        run_processors([Totals], Config())


def test_run_a_duty_that_breaks_ends_the_process(world):
    def explode():
        raise ZeroDivisionError("a gauge")

    world.on_second_beat = explode
    with pytest.raises(InternalError, match="ZeroDivisionError: a gauge"):
        run_processors([Totals], Config())


def test_run_stop_that_leaves_work_is_status_1(world):
    world.clean = False
    assert run_processors([Totals], Config()) == 1


@pytest.fixture
def exits(monkeypatch):
    statuses = []

    def leave(status):
        statuses.append(status)
        raise Exited

    monkeypatch.setattr(worker_module.os, "_exit", leave)
    return statuses


def test_run_stop_that_hangs_ends_the_process_with_status_1(world, exits):
    world.hangs, world.leaves = True, False
    with capture_logs() as logs, pytest.raises(Exited):
        run_processors([Totals], Config())
    assert exits == [1]
    assert logs[-1]["event"] == "did not stop in time"


@pytest.mark.parametrize(("clean", "status"), [(True, 0), (False, 1)])
def test_run_faust_that_does_not_leave_is_not_waited_for(world, exits, clean, status):
    world.clean, world.leaves = clean, False
    with pytest.raises(Exited):
        run_processors([Totals], Config())
    assert exits == [status]


def test_run_failure_with_faust_that_does_not_leave_is_told_before_the_end(world, exits):
    world.leaves = False
    world.on_second_beat = lambda: world.runners[0].on_failure(StreamInvalid("mostly bad", hint="look"))
    with capture_logs() as logs, pytest.raises(Exited):
        run_processors([Totals], Config())
    assert exits == [2]
    assert (logs[-1]["event"], logs[-1]["hint"]) == ("mostly bad", "look")


def test_run_health_port_taken_is_a_clear_error(world):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = Config(health=HealthConfig(processor_port=taken.getsockname()[1]))
        with pytest.raises(ConfigError, match="Address already in use"):
            run_processors([Totals], config)


def test_deadline_ends_the_process_as_if_killed(world, exits):
    run_processors([Totals], Config())
    with capture_logs() as logs, pytest.raises(Exited):
        world.armed[0]()
    assert exits == [1]
    assert "nothing is lost" in logs[0]["event"]


def test_arm_calls_after_the_deadline(monkeypatch):
    import threading

    monkeypatch.setattr(worker_module, "_KILL_S", 0.001)
    called = threading.Event()
    worker_module._arm(called.set)
    assert called.wait(5)


def test_unlisted_names_only_inputs_outside_the_catalogue():
    mixed = type("Mixed", (Totals,), {"inputs": ("ebbflow.raw.sockets", "b", "a")})
    assert [topic.name for topic in _unlisted([mixed, Totals])] == ["a", "b", "test.in"]


async def test_unreachable_open_port_is_none():
    with socket.create_server(("127.0.0.1", 0)) as open_port:
        port = open_port.getsockname()[1]
        assert await _unreachable(KafkaConfig(bootstrap=f"127.0.0.1:1, 127.0.0.1:{port}")) is None


async def test_unreachable_closed_port_names_it():
    error = await _unreachable(KafkaConfig(bootstrap="127.0.0.1:1"))
    assert isinstance(error, NetworkError)
    assert "127.0.0.1:1" in str(error)
    assert "ebbflow doctor" in error.hint


@pytest.mark.parametrize(("error", "level"), [(asyncio.CancelledError(), "debug"), (OSError("gone"), "error")])
def test_thread_that_ends_with_an_exception_is_told_in_one_line(error, level):
    from ebbflow.stream.worker import _thread_ended

    with capture_logs() as logs:
        _thread_ended(SimpleNamespace(exc_type=type(error), exc_value=error, thread=SimpleNamespace(name="consumer")))
    ((told),) = logs
    assert (told["log_level"], told["thread"]) == (level, "consumer")
