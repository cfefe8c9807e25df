"""Which processes are told of, what they are, and what other tools see of them, on the real kernel.

Every test watches only the child that it started, or a cgroup of its own.
"""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from process_seen import (
    TRUE,
    Told,
    child,
    flags_of,
    lines_until,
    memory_cgroup,
    programs_on,
    told,
    tool,
    wait_attached,
    watch,
)

pytestmark = pytest.mark.bpf
__all__ = ["child", "told", "watch"]  # fixtures


def test_process_inventory_has_what_ran_before_with_the_same_start(watch, child):
    parent = child(
        """
        children = []
        for _ in range(5):
            pid = os.fork()
            if not pid:
                signal.pause()
            children.append(pid)
        zombie = os.fork()
        if not zombie: os._exit(0)
        os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
        for _ in range(2): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        ready(zombie, *children)
        for pid in children: os.kill(pid, 9)
        for _ in children: os.wait()
        os._exit(0)
        """
    )
    producer = watch(f"pid:{parent.pid}")
    zombie, *children = map(int, parent.said)
    parent.go()
    found = Told(producer)
    assert found.kinds == {"inventory": 7, "exit": 6}
    listed = {int(row["pid"]): (row, head) for row, head, _ in found.of("inventory")}
    assert listed.keys() == {parent.pid, zombie, *children}
    assert {int(head["parent_pid"]) for _, head in listed.values()} == {os.getpid(), parent.pid}
    assert (int(listed[parent.pid][1]["threads"]), int(listed[children[0]][1]["threads"])) == (3, 1)
    assert flags_of(listed[zombie][0]) == {"ZOMBIE"}
    for row, *_ in found.of("exit"):
        assert int(listed[int(row["pid"])][0]["start_boottime_ns"]) == int(row["start_boottime_ns"])
        assert int(listed[int(row["pid"])][0]["since_ns"]) == int(row["since_ns"])
    assert all("python" in found.process(listed[pid][0]).exe for pid in children)


def test_process_inventory_of_many_is_whole_and_told_once(watch, child):
    parent = child(
        """
        children = []
        for _ in range(211):
            pid = os.fork()
            if not pid: signal.pause()
            children.append(pid)
        ready()
        for pid in children: os.kill(pid, 9)
        """
    )
    producer = watch(f"pid:{parent.pid}")
    producer._list()  # asked again, it has nothing new
    found = Told(producer)
    assert found.kinds == {"inventory": 212}
    assert producer.blind_spots()["unfinished_inventories"] == 0
    parent.go()


def test_process_in_a_container_is_recognised_though_it_is_gone(told):
    container = f"{os.getpid():064x}"
    with memory_cgroup(container) as directory:
        found, _ = told(
            f"""
            ready()
            def act():
                open({str(directory / "cgroup.procs")!r}, "w").write(str(os.getpid()))
                os.execv({TRUE!r}, ["true"])
            for _ in range(3): fork(act)
            """
        )
        executed = [found.process(row) for row, *_ in found.of("exec")]
    assert [process.container_id for process in executed] == [container] * 3
    assert {process.service_name for process in executed} == {container[:12]}
    assert {process.cgroup.rpartition("/")[2] for process in executed} == {container}


def test_process_that_comes_into_a_watched_cgroup_is_listed_then_followed(watch, child):
    with memory_cgroup("joined") as directory:
        guest = child(f"ready()\nrun({TRUE!r})")
        producer = watch(f"cgroup:{directory}")
        (directory / "cgroup.procs").write_text(str(guest.pid))
        guest.go()
        found = Told(producer)
    if found.kinds["inventory"]:  # the tracepoint gives no number of version 1's cgroups before the next look
        assert flags_of(found.of("inventory")[0][0]) <= {"JOINED"}
    assert found.kinds == {"inventory": 1, "fork": 1, "exec": 1, "exit": 2}


def test_process_watched_by_its_program_begins_and_ends_with_exec(watch, child, tmp_path):
    program = tmp_path / "target"
    shutil.copy("/bin/sh", program)
    work = child(f"ready()\nrun({str(program)!r}, '-c', ': ; exec {TRUE}')\nrun({str(program)!r}, '-c', 'exit 5')")
    found_by = watch(f"exe:{program}")
    work.go()
    found = Told(found_by)
    assert found.kinds == {"exec": 3, "exit": 1}
    began, left, again = found.of("exec")
    assert (flags_of(began[0]), flags_of(left[0]), flags_of(again[0])) == (set(), {"UNWATCHED"}, set())
    assert int(began[0]["pid"]) == int(left[0]["pid"])
    assert int(found.of("exit")[0][1]["exit_code"]) == 5


def test_process_no_room_to_follow_is_counted_and_ends_are_told(told):
    found, _ = told(
        """
        ready()
        waiting = []
        for _ in range(71):
            pid = os.fork()
            if not pid: signal.pause(); os._exit(0)
            waiting.append(pid)
        for pid in waiting: os.kill(pid, 9); os.waitpid(pid, 0)
        """,
        process__max_processes=64,
    )
    assert found.kinds == {"inventory": 1, "fork": 71, "exit": 72}
    untracked = [row for row, *_ in found.of("exit") if "UNTRACKED" in flags_of(row)]
    assert len(untracked) == 72 - 64


def test_process_execsnoop_and_exitsnoop_see_the_same(watch, child):
    work = child(f"ready()\nfor _ in range(23): run({TRUE!r}, 'witness-{os.getpid()}')\nready()")
    producer = watch(f"pid:{work.pid}")
    seen = programs_on("tracepoint__syscalls__sys_exit_execve"), programs_on("sched_process_exit")
    execs, exits = tool("execsnoop"), tool("exitsnoop")
    try:
        wait_attached(execs, "tracepoint__syscalls__sys_exit_execve", seen[0])
        wait_attached(exits, "sched_process_exit", seen[1])
        work.process.stdin.write("\n")
        work.process.stdin.flush()
        mine = f"witness-{os.getpid()}"
        theirs = [line.split() for line in lines_until(execs, 23, mine) if mine in line]
        pids = {fields[1] for fields in theirs}
        ended = [line for line in lines_until(exits, 23, f" {work.pid} ") if f" {work.pid} " in line]
    finally:
        for process in (execs, exits):
            process.kill()
            process.communicate()
    found = Told(producer)
    assert {str(int(row["pid"])) for row, *_ in found.of("exec")} == pids
    assert (len(theirs), found.kinds["exec"], found.kinds["exit"]) == (23, 23, 23)
    assert len([line for line in ended if line.split()[0].isalnum()]) == 23
    work.go()


def test_process_strace_counts_the_same_calls(watch, child):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    log = Path(f"/tmp/ebbflow-strace-{os.getpid()}")
    shell = f"read x; for i in 1 2 3 4 5 6 7; do ( {TRUE} ); {TRUE}; done; exit 0"
    work = subprocess.Popen(
        [
            "strace",
            "-f",
            "-e",
            "trace=execve,clone,fork,vfork,clone3,exit_group",
            "-o",
            str(log),
            "/bin/sh",
            "-c",
            shell,
        ],
        stdin=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 20
        while not log.exists() or "execve" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        producer = watch(f"pid:{work.pid}")
        work.communicate(b"\n", timeout=30)
        lines = log.read_text().splitlines()
    finally:
        work.kill()
        log.unlink()
    found = Told(producer)
    executed = len([line for line in lines if re.search(r" (execve\(|<... execve resumed).*= 0$", line)]) - 1
    born = len(
        [line for line in lines if re.search(r" (<\.\.\. )?(clone|clone3|fork|vfork)(\(| resumed).*= \d+$", line)]
    )
    ended = len([line for line in lines if "+++ exited with" in line])
    assert found.kinds["exec"] == executed == 14
    assert (found.kinds["fork"], found.kinds["exit"] - 1) == (born, ended)  # strace itself is watched, too
