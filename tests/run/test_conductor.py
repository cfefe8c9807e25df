from __future__ import annotations

import pytest
from run_fakes import FakeProbes, FakeSupervisor, make_plan

from ebbflow.errors import DependencyError, NetworkError
from ebbflow.run import conductor as module
from ebbflow.run.conductor import Conductor, StoppedElsewhere


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    for name in ("_POLL_S", "_LOOK_S", "_TOTALS_S"):
        monkeypatch.setattr(module, name, 0.0)
    monkeypatch.setattr(module, "_READY_S", 0.02)
    monkeypatch.setattr(module, "_FIRST_SPAN_S", 0.02)


@pytest.fixture
def supervisor(tmp_path):
    (tmp_path / "logs").mkdir()
    return FakeSupervisor(tmp_path)


def make(tmp_path, supervisor, probes=None, check=lambda: None, **plan):
    lines = []
    conductor = Conductor(make_plan(tmp_path, **plan), supervisor, probes or FakeProbes(), lines.append, check)
    conductor.totals.get = lambda _: ""
    return conductor, lines


def steps(lines):
    return [line.split()[2] for line in lines]


def test_start_demo_goes_by_readiness(tmp_path, supervisor):
    conductor, lines = make(tmp_path, supervisor)
    conductor.start()
    assert supervisor.calls[0] == ("launch", "foreground")
    assert supervisor.named("start") == ["kafka", "store", "shop", "nginx", "producer", "processor", "sink", "load"]
    assert steps(lines) == [
        "checks", "nginx", "kafka", "topics", "store", "processor", "sink", "producer", "load", "spans"
    ]  # fmt: skip
    assert lines[3].endswith("topics     2, 1 of them new")


def test_start_targets_has_no_demo(tmp_path, supervisor):
    conductor, lines = make(tmp_path, supervisor, demo=False, flags={"capture.targets": "port:8080,pid:1"})
    conductor.start(outlives_us=True)
    assert supervisor.calls[0] == ("launch", "background")
    assert supervisor.named("start") == ["kafka", "store", "producer", "processor", "sink"]
    assert steps(lines) == ["checks", "kafka", "topics", "store", "processor", "sink", "producer"]
    assert lines[-1].endswith("watches port:8080, pid:1")


def test_start_elsewhere_uses_their_kafka_and_backend(tmp_path, supervisor):
    flags = {"otlp.endpoint": "http://127.0.0.1:4318"}
    conductor, lines = make(tmp_path, supervisor, demo=False, runs_kafka=False, runs_store=False, flags=flags)
    conductor.start()
    assert supervisor.named("start") == ["producer", "processor", "sink"]
    assert "exports to http://127.0.0.1:4318" in lines[-2]


def test_start_check_fails_starts_nothing_more(tmp_path, supervisor):
    def check():
        raise DependencyError("btf: none")

    conductor, _ = make(tmp_path, supervisor, check=check)
    with pytest.raises(DependencyError, match="btf: none"):
        conductor.start()
    assert "producer" not in supervisor.named("start")


def test_start_kafka_away_is_told(tmp_path, supervisor):
    conductor, _ = make(tmp_path, supervisor, FakeProbes(kafka=False), runs_kafka=False)
    with pytest.raises(NetworkError, match="no broker"):
        conductor.start()


def test_start_part_ends_fails_with_its_last_words(tmp_path, supervisor):
    supervisor.log_file("store").write_text("error: the disk is full\nhint: free some\n")
    supervisor.on_states = lambda: supervisor.set("store", "BACKOFF", exit_status=2)
    conductor, _ = make(tmp_path, supervisor, FakeProbes(ready=False))
    with pytest.raises(DependencyError, match="store cannot start: it ended with status 2: the disk is full") as caught:
        conductor.start()
    assert caught.value.hint == "free some"


def test_start_part_never_ready_names_its_log(tmp_path, supervisor):
    conductor, _ = make(tmp_path, supervisor, FakeProbes(ready=False))
    with pytest.raises(DependencyError, match="nginx is not ready after") as caught:
        conductor.start()
    assert caught.value.hint == f"see {tmp_path}/logs/nginx.log"


def test_start_no_span_in_time_goes_on(tmp_path, supervisor):
    conductor, lines = make(tmp_path, supervisor, FakeProbes(spans=False))
    conductor.start()
    assert steps(lines)[-1] == "load"


def test_start_forgets_what_was_said_before_kafka_was_up(tmp_path, supervisor):
    supervisor.log_file("producer").write_text('{"level":"warning","event":"Kafka is away"}\n')
    conductor, lines = make(tmp_path, supervisor)
    conductor.start()
    said = len(lines)
    conductor.watch(0.001)
    assert lines[said:] == []


@pytest.fixture
def running(tmp_path, supervisor):
    conductor, lines = make(tmp_path, supervisor)
    conductor.start()
    conductor.watch(0.001)
    lines.clear()
    return conductor, lines


def test_watch_part_started_again_is_told_in_one_line(running, supervisor):
    conductor, lines = running
    supervisor.set("sink", "STARTING", pid=999)
    conductor.watch(0.001)
    assert lines == ["sink ended, started again (pid 999)"]


def test_watch_shows_warnings_of_logs(running, supervisor):
    conductor, lines = running
    supervisor.log_file("sink").write_text('{"level":"warning","event":"late"}\n{"level":"info","event":"fine"}\n')
    conductor.watch(0.001)
    assert lines == ["sink: warning: late"]


def test_watch_gives_up_with_last_words(running, supervisor):
    conductor, _ = running
    supervisor.log_file("processor").write_text("Traceback\nRuntimeError: no\n")
    supervisor.set("processor", "FATAL", exit_status=1)
    with pytest.raises(
        DependencyError, match="cannot be kept running: it ended with status 1: RuntimeError: no"
    ) as caught:
        conductor.watch(1)
    assert caught.value.hint.endswith("processor.log")


def test_watch_stopped_by_another_command_ends(running, supervisor):
    conductor, _ = running
    supervisor.set("load", "STOPPED")
    with pytest.raises(StoppedElsewhere):
        conductor.watch(1)


def test_watch_demo_started_again_is_watched_again(tmp_path, running, supervisor):
    conductor, _ = running
    supervisor.set("nginx", "RUNNING", pid=999)
    conductor.watch(0.001)
    assert supervisor.named("end") == []
    (tmp_path / "demo/nginx.pid").write_text("999\n")
    (tmp_path / "demo/shop.pid").write_text(f"{supervisor.current['shop'].pid}\n")
    conductor.watch(0.001)
    conductor.watch(0.001)
    assert supervisor.named("end") == ["producer"]


def test_watch_reads_totals(running):
    conductor, _ = running
    conductor.totals.get = lambda _: "ebbflow_sink_exported_total 5\n"
    conductor.watch(0.001)
    assert conductor.totals.spans == 5
