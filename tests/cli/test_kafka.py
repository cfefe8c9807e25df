from __future__ import annotations

import os
import signal

import pytest

from ebbflow.cli import kafka
from ebbflow.errors import ConfigError, DependencyError


class FakeBroker:
    """Runs until it is asked whether it is alive for the nth time; then `ending` happens."""

    bootstrap, pid, log_file = "127.0.0.1:1", 42, "kafka.log"

    def __init__(self, ending) -> None:
        self.calls: list[str] = []
        self.ending = ending

    def start(self) -> None:
        self.calls.append("start")

    def wait_ready(self) -> None:
        self.calls.append("ready")

    def check_alive(self) -> None:
        self.calls.append("check")
        self.ending()

    def stop(self) -> None:
        self.calls.append("stop")


@pytest.fixture(autouse=True)
def _handlers(monkeypatch):
    monkeypatch.setattr(kafka, "_POLL_S", 0.001)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_stops_the_broker_on_a_signal(number, capsys):
    broker = FakeBroker(lambda: os.kill(os.getpid(), number))
    kafka.serve(broker)
    assert broker.calls == ["start", "ready", "check", "stop"]
    assert capsys.readouterr().out == "Kafka is ready at 127.0.0.1:1 (pid 42, log kafka.log)\n"


def test_serve_broker_that_ends_is_an_error():
    def end() -> None:
        raise DependencyError("Kafka ended")

    broker = FakeBroker(end)
    with pytest.raises(DependencyError, match="Kafka ended"):
        kafka.serve(broker)
    assert broker.calls[-1] == "stop"


@pytest.mark.parametrize(("bootstrap", "port"), [("127.0.0.1:19092", 19092), ("localhost:1, other:2", 1)])
def test_local_port_is_the_first_broker_s(bootstrap, port):
    assert kafka.local_port(bootstrap) == port


@pytest.mark.parametrize("bootstrap", ["kafka-1:9092", "10.0.0.1:9092", "[::1]:9092"])
def test_local_port_of_another_machine_is_refused(bootstrap):
    with pytest.raises(ConfigError, match="not this machine's loopback") as caught:
        kafka.local_port(bootstrap)
    assert "--port" in caught.value.hint
