from __future__ import annotations

import configparser
import os
import shlex
import signal
import time
from pathlib import Path
from xmlrpc.client import Fault

import pytest
from run_fakes import make_plan

from ebbflow.errors import ConfigError, DependencyError
from ebbflow.run.history import State
from ebbflow.run.parts import RANKS, Part, make_parts
from ebbflow.run.stopping import stop
from ebbflow.run.supervision import Supervisor, configuration


def read(text):
    parser = configparser.ConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(text)
    return parser


def test_configuration_starts_nothing_by_itself(tmp_path):
    parts = make_parts(make_plan(tmp_path))
    sections = read(configuration(parts, tmp_path))
    programs = [sections[f"program:{part.name}"] for part in parts]
    assert {program["autostart"] for program in programs} == {"false"}
    assert {program["autorestart"] for program in programs} == {"true"}
    assert [shlex.split(program["command"]) for program in programs] == [part.argv for part in parts]
    assert [int(program["priority"]) for program in programs] == [RANKS[part.name] for part in parts]


def test_configuration_percent_sign_is_kept():
    part = Part(name="sink", command=("a%b",))
    assert read(configuration([part], Path("/x%y")))["supervisord"]["logfile"] == "/x%y/logs/supervisord.log"
    assert read(configuration([part], Path("/x")))["program:sink"]["command"].endswith(" a%b")


def test_supervisor_long_path_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="too long for a socket"):
        Supervisor(tmp_path / ("x" * 100))


def test_supervisor_nobody_there_does_not_answer(tmp_path):
    supervisor = Supervisor(tmp_path)
    assert not supervisor.answers
    with pytest.raises(DependencyError, match="does not answer"):
        supervisor.states()
    supervisor.shutdown(0.1)


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """A supervisor whose calls are recorded, and answered by `answers`."""
    supervisor, calls, answers = Supervisor(tmp_path), [], {}

    def call(method, *arguments):
        calls.append((method, *arguments))
        answer = answers.get(method)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(supervisor, "_call", call)
    return supervisor, calls, answers


def test_calls_are_those_of_the_api(scripted):
    supervisor, calls, _ = scripted
    supervisor.start("sink")
    supervisor.ask_to_stop("sink")
    supervisor.ask_to_end("sink")
    supervisor.kill("sink")
    assert calls == [
        ("startProcess", "sink", False),
        ("stopProcess", "sink", False),
        ("signalProcess", "sink", "TERM"),
        ("signalProcess", "sink", "KILL"),
    ]


def test_calls_on_what_does_not_run_are_no_error(scripted):
    supervisor, calls, answers = scripted
    answers |= dict.fromkeys(("stopProcess", "signalProcess"), Fault(70, "NOT_RUNNING"))
    supervisor.ask_to_stop("sink")
    supervisor.ask_to_end("sink")
    supervisor.kill("sink")
    assert len(calls) == 3


def test_start_no_such_program_is_told(scripted):
    supervisor, _, answers = scripted
    answers["startProcess"] = Fault(20, "NO_FILE: nginx")
    with pytest.raises(DependencyError, match="nginx cannot be started: NO_FILE"):
        supervisor.start("nginx")


def test_states_reads_every_part(scripted):
    supervisor, _, answers = scripted
    info = {"name": "sink", "statename": "BACKOFF", "pid": 0, "exitstatus": 2, "spawnerr": "Exited too quickly"}
    answers["getAllProcessInfo"] = [info]
    expected = State(name="sink", state="BACKOFF", exit_status=2, spawn_error="Exited too quickly")
    assert supervisor.states() == {"sink": expected}


def wait_for(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def is_alive(pid):
    """A zombie that nobody has reaped yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


STUBBORN = ("sh", "-c", "trap '' TERM; echo waiting; while :; do sleep 0.1; done")


@pytest.fixture
def real(tmp_path):
    supervisor = Supervisor(tmp_path)
    yield supervisor
    stop(supervisor, 1.0)


@pytest.mark.slow
def test_real_supervisor_restarts_what_was_killed_and_stops_the_stubborn(real):
    parts = [Part(name="sink", command=("sleep", "300")), Part(name="load", command=STUBBORN, ours=False)]
    real.launch(parts, {"EBBFLOW_LOG__LEVEL": "info"}, outlives_us=False)
    assert {state.state for state in real.states().values()} == {"STOPPED"}
    for part in parts:
        real.start(part.name)
    wait_for(lambda: "waiting" in real.log_file("load").read_text())
    first = real.states()["sink"].pid
    wait_for(lambda: Path(f"/proc/{first}/cmdline").read_bytes().startswith(b"sleep"))
    environ = Path(f"/proc/{first}/environ").read_bytes().split(b"\0")
    assert {b"EBBFLOW_COMPONENT=sink", b"EBBFLOW_LOG__LEVEL=info"} <= set(environ)
    wait_for(lambda: real.states()["sink"].state == "RUNNING")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: real.states()["sink"].pid not in {0, first})
    pids = [state.pid for state in real.states().values()]
    begun_s = time.monotonic()
    stop(real, 2.0)
    assert time.monotonic() - begun_s < 2.5
    assert not real.answers
    assert [is_alive(pid) for pid in pids] == [False, False]


@pytest.mark.slow
def test_real_supervisor_killed_takes_its_parts_along(real):
    real.launch([Part(name="sink", command=("sleep", "300"))], {}, outlives_us=True)
    real.start("sink")
    pid = real.states()["sink"].pid
    wait_for(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep"))
    os.kill(real.pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid))


@pytest.mark.slow
def test_real_supervisor_ends_orphans(real):
    part = Part(name="shop", command=("sh", "-c", f"sleep 301 & echo $! >{real.directory}/pid; wait"), ours=False)
    real.launch([part], {}, outlives_us=False)
    real.start("shop")
    wait_for(lambda: (real.directory / "pid").exists() and (real.directory / "pid").read_text().strip())
    orphan = int((real.directory / "pid").read_text())
    stop(real)
    assert not is_alive(orphan)


def test_launch_that_does_not_come_up_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("ebbflow.run.supervision.sys.executable", "/bin/false")
    with pytest.raises(DependencyError, match="does not start") as caught:
        Supervisor(tmp_path).launch([], {}, outlives_us=False)
    assert "supervisord.log" in caught.value.hint
