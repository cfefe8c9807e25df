from __future__ import annotations

import os
import signal
import sys

import pytest
from typer.testing import CliRunner

from ebbflow.cli import make_app, run
from ebbflow.errors import DependencyError
from ebbflow.run import conductor, data_directory, preflight, stopping, supervision
from ebbflow.run.board import Board
from ebbflow.run.history import State


class Recorded:
    """Every part of a run, replaced: what was done, in order."""

    def __init__(self):
        self.done: list[str] = []
        self.error: BaseException | None = None
        self.states = {"sink": State(name="sink", state="RUNNING", pid=7)}
        self.answers = False

    def supervisor(self, directory):
        self.directory = directory
        recorded = self

        class Supervisor:
            pid = 4_000_000
            answers = recorded.answers

            def states(self):
                return recorded.states

        return Supervisor()

    def conductor(self, plan, supervisor, probes, say, check):
        recorded = self
        recorded.plan = plan

        class Conductor:
            def start(self, *, outlives_us):
                recorded.done.append("start in background" if outlives_us else "start")
                check()
                say("up")

            def watch(self, seconds):
                recorded.done.append(f"watch {seconds:g}")
                if recorded.error is not None:
                    raise recorded.error

            class totals:  # noqa: N801
                spans = 5

                @staticmethod
                def losses():
                    return {"kernel": 0}

        return Conductor()


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    recorded = Recorded()
    monkeypatch.setenv("EBBFLOW_COMPONENT", "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(supervision, "Supervisor", recorded.supervisor)
    monkeypatch.setattr(conductor, "Conductor", recorded.conductor)
    monkeypatch.setattr(stopping, "stop", lambda _: recorded.done.append("stop"))
    monkeypatch.setattr(preflight, "require_rights_and_ports", lambda _: recorded.done.append("look"))
    monkeypatch.setattr(preflight, "require_machine", lambda _: recorded.done.append("check"))
    monkeypatch.setattr("ebbflow.run.orphans.take_orphans", lambda: None)
    return recorded


def invoke(*arguments):
    return CliRunner().invoke(make_app(), arguments)


def test_run_interrupted_stops_everything_with_status_0(recorded):
    recorded.error = KeyboardInterrupt()
    result = invoke("run")
    assert result.exit_code == 0
    assert recorded.done == ["look", "start", "check", "watch 5", "stop"]
    assert result.output.splitlines()[:2] == ["up", "stopping"]


def test_run_stopped_by_down_ends_with_status_0(recorded):
    recorded.error = conductor.StoppedElsewhere()
    result = invoke("run")
    assert result.exit_code == 0
    assert "stopped by another command" in result.output


def test_run_part_cannot_be_kept_running_stops_everything_with_status_1(recorded):
    recorded.error = DependencyError("sink cannot be kept running", hint="see its log")
    result = invoke("run")
    assert result.exit_code == 1
    assert recorded.done[-1] == "stop"
    assert result.output.splitlines()[-2:] == ["error: sink cannot be kept running", "hint: see its log"]


@pytest.mark.parametrize(
    "arguments",
    [("run", "--targets", "prt:1"), ("--set", "kafka.bootstrp=x", "run"), ("--set", "kafka.bootstrap=x", "run")],
)
def test_run_user_mistake_is_status_2(recorded, arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "error: " in result.output
    assert recorded.done == []


def test_run_second_in_the_same_directory_is_status_2(recorded, tmp_path):
    with data_directory.claimed(tmp_path / "x"):
        result = invoke("run", "--data-dir", "x")
    assert result.exit_code == 2
    assert f"pid {os.getpid()}" in result.output


def test_run_beside_one_in_the_background_is_status_2(recorded):
    recorded.answers = True
    result = invoke("run")
    assert result.exit_code == 2
    assert "pid 4000000" in result.output
    assert recorded.done == []


def test_run_detach_leaves_it_running(recorded, tmp_path):
    result = invoke("run", "--detach", "--data-dir", "here")
    assert result.exit_code == 0
    assert recorded.done == ["look", "start in background", "check"]
    assert f"`ebbflow down --data-dir {tmp_path}/here` stops it" in result.output


def test_run_detach_failed_start_stops_everything(recorded, monkeypatch):
    def check(_):
        raise DependencyError("btf: none")

    monkeypatch.setattr(preflight, "require_machine", check)
    assert invoke("run", "--detach").exit_code == 1
    assert recorded.done == ["look", "start in background", "stop"]


def test_run_without_targets_plans_the_demo(recorded, tmp_path):
    recorded.error = KeyboardInterrupt()
    invoke("run")
    plan = recorded.plan
    assert plan.demo is not None
    assert plan.demo.directory == tmp_path / ".run/demo"
    assert (plan.runs_kafka, plan.runs_store) == (True, True)
    assert plan.environment["EBBFLOW_STORE__PATH"] == str(tmp_path / ".run/store.duckdb")
    assert plan.config.health.sink_port in plan.config.capture.exclude_ports


def test_run_settings_reach_the_parts_environment(recorded, tmp_path):
    recorded.error = KeyboardInterrupt()
    (tmp_path / "my.toml").write_text('[otlp]\nendpoint = "http://127.0.0.1:4318"\n')
    arguments = ("--config", "my.toml", "--set", "log.level=debug", "run", "--targets", "port:8080,port:8081")
    invoke(*arguments, "--no-kafka")
    plan = recorded.plan
    assert plan.demo is None
    assert (plan.runs_kafka, plan.runs_store) == (False, False)
    assert plan.environment["EBBFLOW_CONFIG"] == str(tmp_path / "my.toml")
    assert plan.environment["EBBFLOW_LOG__LEVEL"] == "debug"
    assert plan.environment["EBBFLOW_CAPTURE__TARGETS"] == "port:8080,port:8081"
    assert plan.config.capture.targets == ["port:8080", "port:8081"]


def test_run_kafka_elsewhere_is_not_started(recorded):
    recorded.error = KeyboardInterrupt()
    invoke("--set", "kafka.bootstrap=kafka.example:9092", "run", "--targets", "port:8080")
    assert recorded.plan.runs_kafka is False


def test_print_lines_tells_spans_and_losses(recorded, capsys):
    found = recorded.conductor(None, None, None, None, None)
    looks = iter([None, None, KeyboardInterrupt()])

    def watch(seconds):
        error = next(looks)
        if error is not None:
            raise error

    found.watch = watch
    with pytest.raises(KeyboardInterrupt):
        run.print_lines(found)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(" 5 spans " in line and line.endswith("lost: nothing") for line in lines)


def test_show_on_a_terminal_draws_top_and_looks_after_the_parts(recorded, monkeypatch, capsys):
    from ebbflow.cli import top

    looked = []

    def show_live(watch, interval_s, *, sleep):
        monkeypatch.setattr(watch, "_ask", lambda: None)
        watch.look()
        looked.append((interval_s, watch.notice[10:]))
        sleep(interval_s)

    monkeypatch.setattr(top, "show_live", show_live)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    board = Board(print)
    invoke("run", "--detach")
    found = recorded.conductor(recorded.plan, None, None, board.say, lambda: None)
    monkeypatch.setattr(board, "recent", lambda: ["10:00:00  sink ended"])
    run.show(found, recorded.plan, board)
    assert looked == [(1.0, "sink ended")]
    assert recorded.done[-1] == "watch 1"


def test_mark_as_ours_begins_again_with_the_mark(monkeypatch):
    monkeypatch.delenv("EBBFLOW_COMPONENT", raising=False)
    started = []
    monkeypatch.setattr(run.os, "execve", lambda path, argv, environ: started.append((path, argv, environ)))
    run.mark_as_ours()
    ((path, argv, environ),) = started
    assert path == argv[0] == sys.executable
    assert argv[1:] == sys.orig_argv[1:]
    assert environ["EBBFLOW_COMPONENT"] == "run"


def test_down_nothing_there_says_so(recorded):
    result = invoke("down")
    assert result.exit_code == 0
    assert result.output == "nothing runs in .run\n"


def test_down_stops_what_is_there(recorded):
    recorded.answers = True
    result = invoke("down", "--data-dir", "x")
    assert result.output == "stopped\n"
    assert recorded.done == ["stop"]


def test_status_lists_the_parts(recorded):
    recorded.answers = True
    result = invoke("run", "--status")
    assert result.exit_code == 0
    assert result.output.split() == ["sink", "running", "7"]
    recorded.states = {"sink": State(name="sink", state="FATAL")}
    assert invoke("run", "--status").exit_code == 1


def test_status_nothing_there_is_status_1(recorded):
    result = invoke("run", "--status")
    assert result.exit_code == 1
    assert result.output == "nothing runs in .run\n"


def test_stop_signals_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with run.stop_signals(signal.SIG_IGN):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is before
