import logging

import pytest
import structlog
from typer.testing import CliRunner

from ebbflow.cli import make_app
from ebbflow.errors import ConfigError


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


class Part:
    def __init__(self, config):
        self.config = config

    @classmethod
    def from_config(cls, config):
        return cls(config)


@pytest.fixture
def ran(monkeypatch):
    """What was run, in place of running it."""
    calls = []

    def get(group, name):
        if name == "nobody":
            raise ConfigError("there is no such part", hint="known: none")
        return type(name, (Part,), {"name": name, "group": group})

    def run_producers(parts, config):
        calls.append(("producer", *(part.__name__ for part in parts), config))
        return 0

    def run_processors(parts, config):
        calls.append(("processor", *(part.__name__ for part in parts), config))
        return 1

    async def run_sink(part, config):
        calls.append(("sink", part.__name__, config))

    monkeypatch.setattr("ebbflow.discovery.get", get)
    monkeypatch.setattr("ebbflow.producing.runner.run_producers", run_producers)
    monkeypatch.setattr("ebbflow.stream.worker.run_processors", run_processors)
    monkeypatch.setattr("ebbflow.sink.run_sink", run_sink)
    return calls


def run(*arguments: str):
    return CliRunner().invoke(make_app(), arguments, catch_exceptions=False)


def test_produce_targets_become_settings(ran):
    result = run("produce", "sockets", "--pid", "7", "--port", "80", "--port", "81", "--exe", "/a", "--cgroup", "/b")
    assert result.exit_code == 0
    ((kind, name, config),) = ran
    assert (kind, name) == ("producer", "sockets")
    assert config.capture.targets == ["pid:7", "port:80", "port:81", "exe:/a", "cgroup:/b"]


def test_produce_all_watches_everything(ran):
    run("produce", "sockets", "--all")
    assert ran[0][2].capture.targets == ["all"]


def test_produce_several_features_run_in_one_process(ran):
    run("produce", "sockets", "tcp", "sockets", "--all")
    assert ran[0][:3] == ("producer", "sockets", "tcp")


def test_producer_is_another_name_of_produce_and_takes_the_settings(ran):
    run("--set", "capture.targets=port:9", "producer", "sockets")
    assert ran[0][2].capture.targets == ["port:9"]


def test_processor_several_run_in_one_process_and_its_status_is_ours(ran):
    result = run("processor", "requests", "red", "requests")
    assert result.exit_code == 1
    assert ran[0][:3] == ("processor", "requests", "red")


def test_sink_runs(ran):
    assert run("sink", "traces").exit_code == 0
    assert ran[0][:2] == ("sink", "traces")


@pytest.mark.parametrize("kind", ["produce", "processor", "sink"])
def test_unknown_name_is_a_clear_error(ran, kind):
    with pytest.raises(ConfigError):
        run(kind, "nobody")
    assert ran == []
