"""Forks and execs, on the real kernel: a child does known things, the producer must say exactly those.

Every test watches only the child that it started, or a cgroup of its own.
"""

import json
import os
import sys
from pathlib import Path

import pytest
from process_seen import (
    TRUE,
    Told,
    child,
    flags_of,
    told,
    watch,
)

pytestmark = pytest.mark.bpf
__all__ = ["child", "told", "watch"]  # fixtures


def test_process_23_forks_are_23_forks_and_23_exits(told):
    found, parent = told("ready(); print(*[fork(lambda: None)[0] for _ in range(23)])")
    assert found.kinds == {"inventory": 1, "fork": 23, "exit": 24}
    forks, exits = found.of("fork"), found.of("exit")
    assert [int(row["pid"]) for row, *_ in forks] == [int(pid) for pid in parent.said]
    assert {(int(f["parent_pid"]), int(f["parent_start_boottime_ns"])) for _, f, _ in forks} == {
        (parent.pid, int(found.of("inventory")[0][0]["start_boottime_ns"]))
    }
    upids = [(int(row["pid"]), int(row["start_boottime_ns"])) for row, *_ in forks]
    assert sorted(upids) == sorted((int(r["pid"]), int(r["start_boottime_ns"])) for r, *_ in exits[:-1])
    assert all(0 < int(row["since_ns"]) < int(row["time_ns"]) for row, *_ in exits)
    # A child that only forked is what its parent is, though it was gone before anybody could look.
    assert {found.process(row).exe for row, *_ in forks} == {str(Path(sys.executable).resolve())}


def test_process_23_true_are_23_of_each_kind(told):
    found, _ = told(f"ready()\nfor _ in range(23): run({TRUE!r})")
    assert found.kinds == {"inventory": 1, "fork": 23, "exec": 23, "exit": 24}
    assert all("SHARES_MEMORY" in flags_of(row) for row, *_ in found.of("fork"))
    for row, head, tail in found.of("exec"):
        assert (tail[: int(head["filename_bytes"])], found.argv(head, tail)) == (TRUE.encode(), [TRUE.encode(), b""])
        assert (int(head["arguments"]), int(head["uid"]), int(head["gid"])) == (1, os.getuid(), os.getgid())
        assert (row["comm"], head["parent_comm"][:6]) == (b"true", b"python")
        assert int(head["exe_inode"]) == Path(TRUE).stat().st_ino
        assert found.process(row).command_line == TRUE
    for row, head, _ in found.of("exit")[:-1]:
        assert (int(head["executions"]), int(head["exit_code"]), int(head["signal"])) == (1, 0, 0)
        assert int(row["since_ns"]) < int(head["exec_ns"]) < int(row["time_ns"])


def test_process_1009_in_a_fast_loop_are_all_told(told):
    found, _ = told(f"ready()\nfor _ in range(1009): run({TRUE!r})")
    assert found.kinds == {"inventory": 1, "fork": 1009, "exec": 1009, "exit": 1010}


def test_process_more_than_fit_into_the_ring_are_lost_by_number(watch, child):
    work = child(f"ready()\nfor _ in range(101): run({TRUE!r})")
    producer = watch(f"pid:{work.pid}", capture__event_ring_bytes=8192)
    work.go()
    found = Told(producer)
    assert producer.captured() == 3 * 101 + 2
    assert producer.lost() == producer.captured() - len(found.rows) > 0


def test_process_exec_from_a_thread_takes_the_processs_number(told):
    found, parent = told(
        f"""
        ready()
        def act():
            def execute():
                os.write(1, b"%d " % threading.get_native_id())
                os.execv({TRUE!r}, ["true"])
            threading.Thread(target=execute).start()
            time.sleep(60)
        print(fork(act)[0])
        """
    )
    tid, pid = map(int, parent.said)
    ((row, head, _),) = found.of("exec")
    assert (int(row["pid"]), int(row["tid"]), int(head["old_tid"])) == (pid, pid, tid)
    assert found.kinds == {"inventory": 1, "fork": 1, "exec": 1, "exit": 2}


def test_process_exec_that_fails_is_no_event(told, tmp_path):
    found, _ = told(
        f"""
        ready()
        def act():
            try: os.execv({str(tmp_path / "nothing")!r}, ["x"])
            except OSError: pass
        fork(act)
        """
    )
    assert found.kinds == {"inventory": 1, "fork": 1, "exit": 2}


def test_process_exec_again_keeps_start_and_tells_the_old_name(told):
    found, _ = told("ready()\nfork(lambda: os.execv('/bin/sh', ['sh', '-c', 'exec true']))")
    first, second = found.of("exec")
    assert int(first[0]["start_boottime_ns"]) == int(second[0]["start_boottime_ns"])
    assert (first[1]["old_comm"][:6], second[1]["old_comm"], second[0]["comm"]) == (b"python", b"sh", b"true")
    assert int(found.of("exit")[0][1]["executions"]) == 2


def test_process_script_has_its_interpreter(told, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh -e\nexit 3\n")
    script.chmod(0o755)
    found, _ = told(f"ready()\nrun({str(script)!r}, '--dry')")
    ((row, head, tail),) = found.of("exec")
    names, interpreter = int(head["filename_bytes"]), int(head["interpreter_bytes"])
    assert tail[:names] == os.fsencode(script)
    assert tail[names : names + interpreter] == b"/bin/sh"
    assert found.argv(head, tail) == [b"/bin/sh", b"-e", os.fsencode(script), b"--dry", b""]
    assert flags_of(row) == {"SCRIPT"}
    assert found.process(row).service_name == "job"
    assert int(head["exe_inode"]) == Path("/bin/sh").stat().st_ino


def test_process_long_arguments_are_cut_and_counted(told):
    found, _ = told(f"ready()\nrun({TRUE!r}, 'a' * 1500, 'b' * 2000)", process__arguments_bytes=128)
    ((row, head, tail),) = found.of("exec")
    assert int(head["arguments_total_bytes"]) == len(TRUE) + 1 + 1501 + 2001
    assert int(head["arguments_bytes"]) == 128
    assert found.argv(head, tail) == [TRUE.encode(), b"a" * (127 - len(TRUE))]
    assert (flags_of(row), int(head["arguments"])) == ({"CUT_ARGUMENTS"}, 3)


def test_process_without_arguments_reads_none(told):
    found, _ = told(f"run({TRUE!r}, ready())", "private", process__arguments_bytes=0)
    ((_, head, tail),) = found.of("exec")
    assert (tail, int(head["arguments_bytes"])) == (TRUE.encode(), 0)
    assert int(head["arguments_total_bytes"]) == len(TRUE) + 1 + len("private") + 1
    assert b"private" not in found.bytes


def test_process_secrets_never_reach_a_batch_and_the_environment_is_not_read(told):
    words = [
        "--password=hunter2001", "--token", "hunter2002", "https://bob:hunter2003@example.org/?api_key=hunter2004",
        "PGPASSWORD=hunter2005", "-H", "Authorization: Bearer hunter2006", "X-Api-Key: hunter2007",
        "curl -u bob:hunter2008 --secret hunter2009", '{"password": "hunter2010"}', "--colour=hunter2011",
    ]  # fmt: skip
    # By standard input: the child's own command line is told, too.
    found, _ = told(
        f"""
        import json
        words = json.loads(ready())
        os.environ["SECRET"] = words.pop()
        run({TRUE!r}, *words)
        """,
        json.dumps([*words, "hunter2012"]),
        redaction__parameters=["colour"],
    )
    ((row, head, tail),) = found.of("exec")
    assert not flags_of(row)
    assert len(found.argv(head, tail)) == len(words) + 2
    assert b"hunter" not in found.bytes
    assert b"bob:*" in found.bytes


def test_process_secret_cut_in_the_middle_is_masked(told):
    word = f"x://bob:hunter20{'z' * 200}@h"
    found, _ = told(f"run({TRUE!r}, ready())", word, process__arguments_bytes=40)
    assert b"hunter" not in found.bytes
    assert b"x://*" in found.bytes


def test_process_without_redaction_arguments_are_as_they_came(told):
    found, _ = told(f"run({TRUE!r}, '--token=' + ready(), b'\\xff')", "abc", redaction__enabled=False)
    ((_, head, tail),) = found.of("exec")
    assert found.argv(head, tail) == [TRUE.encode(), b"--token=abc", b"\xff", b""]
