import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from ebbflow.cli import make_app, probes
from ebbflow.errors import PermissionDenied
from ebbflow.kernel import attached, objects
from ebbflow.kernel.attached import Attachment, Owner
from ebbflow.kernel.objects import LoadedMap, LoadedProgram

CHECKOUT = Path(__file__).parents[2]


def owner(runs=0, run_time_ns=0):
    programs = [
        LoadedProgram(40, "on_exit", "raw_tracepoint", "aa", 4096, runs, run_time_ns, 0),
        LoadedProgram(41, "messages", "raw_tracepoint", "bb", 4096, 0, 0, 0),
    ]
    places = [Attachment("raw_tracepoint", "sys_exit", 40, 1), Attachment("raw_tracepoint", "sys_enter", 40, 2)]
    maps = [LoadedMap(50, "events", "ringbuf", 0, 0, 4096, 1 << 20)]
    return Owner(7, "ebbflow produce sockets", programs, maps, places)


@pytest.fixture
def kernel(monkeypatch):
    """What the kernel tells, look by look."""
    looks = []
    monkeypatch.setattr(attached, "require_rights", lambda: None)
    monkeypatch.setattr(attached, "owners", lambda **_: looks.pop(0))
    monkeypatch.setattr(objects, "always_counting", lambda: False)
    monkeypatch.setattr(objects, "bpf", lambda *_: (os.open("/dev/null", os.O_RDONLY), b""))
    monkeypatch.setattr(probes.time, "sleep", lambda _: None)
    return looks


def invoke(*arguments):
    result = CliRunner().invoke(make_app(), ["probes", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_probes_lists_each_and_says_how_to_have_counts(kernel):
    kernel.append(([owner()], 0))
    lines = invoke().splitlines()
    assert lines[1].split() == ["raw_tracepoint", "sys_exit", "on_exit", "7", "40", "-", "-", "-"]
    assert lines[2].split() == ["raw_tracepoint", "sys_enter", "x2", "on_exit", "7", "40", '"', '"', '"']
    assert "not attached" in lines[3]
    assert lines[4] == "7  ebbflow produce sockets: 2 programs, 1 maps, 1.0 MiB"
    assert "--stats 5s" in lines[5]


def test_probes_stats_are_of_the_time_alone(kernel):
    kernel += [([owner(1_000, 500_000)], 0), ([owner(3_000, 2_500_000)], 0)]
    lines = invoke("--stats", "2s").splitlines()
    assert lines[1].split()[-3:] == ["2,000", "1,000", "0.10"]
    assert len(lines) == 5


def test_probes_stats_of_a_program_that_is_new_count_from_nothing(kernel):
    kernel += [([], 0), ([owner(30, 3_000)], 0)]
    assert invoke("--stats", "1s").splitlines()[1].split()[-3:] == ["30", "100", "0.00"]


def test_probes_json_has_a_stable_shape(kernel):
    kernel.append(([owner()], 3))
    shown = orjson.loads(invoke("--json"))
    assert (shown["counting"], shown["seconds"], shown["unseen_processes"]) == (False, None, 3)
    (process,) = shown["processes"]
    assert process["probes"][0] == {
        "kind": "raw_tracepoint", "target": "sys_exit", "times": 1, "program_id": 40, "function": "on_exit",
    }  # fmt: skip
    assert process["programs"][0]["runs"] is None
    assert process["maps"][0]["memory_bytes"] == 1 << 20


def test_probes_nothing_attached_and_processes_unseen_are_said(kernel):
    kernel.append(([], 2))
    assert invoke().splitlines() == [
        "Nothing is attached.",
        "2 processes could not be looked at: CAP_SYS_PTRACE is missing",
    ]


def test_probes_stats_of_no_time_are_refused():
    with pytest.raises(Exception, match="longer than nothing"):
        probes._seconds("0s")


def test_probes_without_rights_is_a_typed_error(monkeypatch):
    def refuse():
        raise PermissionDenied("no")

    monkeypatch.setattr(attached, "require_rights", refuse)
    with pytest.raises(PermissionDenied):
        CliRunner().invoke(make_app(), ["probes"], catch_exceptions=False)


HOLD = """
import os, sys; from pathlib import Path; from ebbflow.kernel.loader import Program
program = Program(Path("tests/kernel/probed.c"), {"PID": os.getpid()})
program.probes.attach_tracepoint("syscalls:sys_enter_getppid", "on_tracepoint")
print("ready", flush=True)
for line in sys.stdin:
    for _ in range(1009): os.getppid()
    print("done", flush=True)
"""


@pytest.mark.bpf
def test_probes_of_a_running_process_count_as_bpftool_does():
    command = [sys.executable, "-c", HOLD]
    environment = {**os.environ, "EBBFLOW_COMPONENT": "test", "PYTHONPATH": str(CHECKOUT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        with objects.statistics():
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
        shown = orjson.loads(invoke("--json"))
        one = next(one for one in shown["processes"] if one["pid"] == process.pid)
        targets = {probe["function"]: probe["target"] for probe in one["probes"]}
        assert targets["on_tracepoint"] == "syscalls:sys_enter_getppid"
        (told,) = [program for program in attached.owner(process.pid).programs if program.name == "on_tracepoint"]
        output = subprocess.run(["bpftool", "-j", "prog", "show", "id", str(told.id)], capture_output=True, check=True)
        assert told.runs == orjson.loads(output.stdout)["run_cnt"]
        assert told.runs >= 1009
        process.stdin.close()
        process.wait(timeout=10)
