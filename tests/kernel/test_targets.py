import os
import subprocess
import sys
from pathlib import Path

import pytest

from ebbflow.errors import ConfigError
from ebbflow.kernel.targets import (
    WATCHED_CGROUP,
    WATCHED_EXE,
    WATCHED_PID,
    Executable,
    Targets,
    cgroup_ids,
    cgroup_pids,
    parse_targets,
    watched_now,
)


def fake_process(proc: Path, pid: int, parent: int, exe: Path, comm: str = "x") -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "stat").write_text(f"{pid} ({comm}) S {parent} 1 1 0\n")
    (folder / "exe").symlink_to(exe)


@pytest.fixture
def proc(tmp_path):
    """init(1) -> shell(10) -> server(20) -> worker(21); other(30)."""
    proc, server, other = tmp_path / "proc", tmp_path / "server", tmp_path / "other"
    server.write_text("")
    other.write_text("")
    for pid, parent, exe in ((1, 0, other), (10, 1, other), (20, 10, server), (21, 20, server), (30, 1, other)):
        fake_process(proc, pid, parent, exe, comm="a) S 99 (b")
    return proc


def test_parse_targets_several_in_one_text_and_in_many():
    targets = parse_targets([f"pid:{os.getpid()}, port:8080", "port:443,all"])
    assert targets.everything
    assert targets.pids == (os.getpid(),)
    assert targets.ports == (8080, 443)


def test_parse_targets_nothing_is_false():
    assert not parse_targets([])
    assert not parse_targets(["", " , "])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8080", "is not a target"),
        ("exe:", "is not a target"),
        ("pid:abc", "a pid is a number"),
        ("pid:4194305", "no such process"),
        ("port:0", "1 to 65535"),
        ("port:65536", "1 to 65535"),
        ("port:http", "1 to 65535"),
        ("exe:/no/such/file", "no such file"),
        ("exe:nosuchprogram-xyz", "no such file"),
        ("cgroup:/no/such/group", "no such cgroup"),
    ],
)
def test_parse_targets_mistake_is_named_with_a_hint(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parse_targets([text])
    assert caught.value.hint


def test_parse_targets_executable_by_command_name_is_resolved():
    (executable,) = parse_targets(["exe:sh"]).executables
    status = Path("/bin/sh").resolve().stat()
    assert executable.path == Path("/bin/sh").resolve()
    assert executable.inode == status.st_ino
    assert executable.device == os.major(status.st_dev) << 20 | os.minor(status.st_dev)


def test_parse_targets_executable_by_base_name_of_a_running_program(proc):
    (executable,) = parse_targets(["exe:server"], proc).executables
    assert executable.path.name == "server"


def test_watched_now_pid_includes_descendants(proc):
    assert watched_now(Targets(pids=(20,)), proc) == {20: WATCHED_PID, 21: WATCHED_PID}
    assert set(watched_now(Targets(pids=(10,)), proc)) == {10, 20, 21}


def test_watched_now_reasons_add_up(proc, tmp_path):
    group = tmp_path / "group"
    (group / "inner").mkdir(parents=True)
    (group / "cgroup.procs").write_text("30\n")
    (group / "inner" / "cgroup.procs").write_text("21\n")
    server = Executable.of(tmp_path / "server")
    found = watched_now(Targets(pids=(21,), executables=(server,), cgroups=(group,)), proc)
    assert found == {20: WATCHED_EXE, 21: WATCHED_PID | WATCHED_EXE | WATCHED_CGROUP, 30: WATCHED_CGROUP}


def test_watched_now_vanished_process_is_passed_over(proc):
    (proc / "21" / "exe").unlink()
    (proc / "21" / "stat").unlink()
    assert set(watched_now(Targets(pids=(20,)), proc)) == {20}


def test_cgroup_ids_include_nested_groups(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert cgroup_ids(tmp_path / "a") == {(tmp_path / "a").stat().st_ino, (tmp_path / "a" / "b").stat().st_ino}
    assert cgroup_pids(tmp_path / "a") == set()


def test_parse_targets_own_interpreter_is_found_running():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        found = watched_now(parse_targets([f"pid:{child.pid}"]))
        assert found == {child.pid: WATCHED_PID}
    finally:
        child.communicate(b"\n")
