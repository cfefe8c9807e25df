"""How processes end, on the real kernel: a child does known things, the producer must say exactly those.

Every test watches only the child that it started, or a cgroup of its own.
"""

import os
import signal

import pytest
from process_seen import (
    TRUE,
    Told,
    child,
    flags_of,
    memory_cgroup,
    told,
    watch,
)

from ebbflow.config import load
from ebbflow.testing.producers import attached
from producers.process import ProcessProducer

pytestmark = pytest.mark.bpf
__all__ = ["child", "told", "watch"]  # fixtures


@pytest.mark.parametrize("codes", [(0, 1, 2, 3, 7, 101, 126, 127, 128, 129, 137, 251, 254, 255)])
def test_process_exit_codes_are_those_of_wait(told, codes):
    found, _ = told(f"ready()\nfor code in {codes}: fork(lambda: os._exit(code))")
    assert [(int(e["exit_code"]), int(e["signal"])) for _, e, _ in found.of("exit")[:-1]] == [(c, 0) for c in codes]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM])
def test_process_killed_by_its_parent_names_the_killer(told, number):
    found, parent = told(
        f"""
        ready()
        pid = os.fork()
        if not pid:
            while True: signal.pause()
        os.kill(pid, {int(number)})
        os.waitpid(pid, 0)
        """
    )
    end = found.of("exit")[0][1]
    assert (int(end["signal"]), int(end["exit_code"]), int(end["signal_code"])) == (number, 0, 0)
    assert (int(end["sender_pid"]), end["sender_comm"][:6]) == (parent.pid, b"python")
    assert int(end["sender_start_boottime_ns"]) == int(found.of("inventory")[0][0]["start_boottime_ns"])


def test_process_fault_is_its_own_doing_and_core_is_as_wait_says(told, tmp_path):
    found, parent = told(
        f"""
        import resource
        os.chdir({str(tmp_path)!r})
        ready()
        def fault():
            resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))
            ctypes.string_at(0)
        pid, status, _ = fork(fault)
        print(int(os.WCOREDUMP(status)))
        pid, status, _ = fork(os.abort)
        """
    )
    fault, abort = ((row, end) for row, end, _ in found.of("exit")[:2])
    assert (int(fault[1]["signal"]), int(fault[1]["signal_code"])) == (signal.SIGSEGV, 1)
    assert int(fault[1]["sender_pid"]) == int(fault[0]["pid"])
    assert ("CORE" in flags_of(fault[0])) == bool(int(parent.said[0]))
    assert int(abort[1]["signal"]) == signal.SIGABRT


def test_process_signal_that_was_caught_is_not_what_ended_it(told):
    found, _ = told(
        """
        ready()
        signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
        def act():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        fork(act)
        """
    )
    end = found.of("exit")[0][1]
    assert [int(end[name]) for name in ("exit_code", "signal", "sender_pid")] == [7, 0, 0]


def test_process_ended_by_another_thread_is_one_exit_with_its_code(told):
    found, _ = told(
        """
        ready()
        def act():
            threading.Thread(target=lambda: os._exit(23)).start()
            time.sleep(60)
        for _ in range(7): fork(act)
        """
    )
    assert found.kinds == {"inventory": 1, "fork": 7, "exit": 8}
    assert [(int(e["exit_code"]), int(e["threads"])) for _, e, _ in found.of("exit")[:-1]] == [(23, 1)] * 7


def test_process_whose_first_thread_ends_first_is_one_exit(told):
    found, parent = told(
        """
        ready()
        def act():
            def rest():
                while open(f"/proc/self/task/{os.getpid()}/stat").read().rpartition(")")[2].split()[0] != "Z": pass
                libc.syscall(60, 7)
            threading.Thread(target=rest).start()
            libc.syscall(60, 5)
        pid, status, _ = fork(act)
        print(pid, os.waitstatus_to_exitcode(status))
        """
    )
    pid, code = map(int, parent.said)
    ((row, end, _),) = found.of("exit", pid)
    assert (int(end["exit_code"]), int(row["tid"]), int(end["threads"])) == (code, pid, 1)
    assert row["comm"][:6] == b"python"


def test_process_number_used_again_is_another_process(told):
    """clone3 with set_tid gives all children the same number in the first namespace."""
    found, parent = told(
        """
        ready()
        class Arguments(ctypes.Structure):
            _fields_ = [(name, ctypes.c_uint64) for name in
                "flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size cgroup".split()]
        wanted, codes = 0, []
        for code in range(1, 12):
            tid = ctypes.c_int(wanted)
            given = Arguments(exit_signal=17, set_tid=ctypes.addressof(tid) if wanted else 0, set_tid_size=bool(wanted))
            pid = libc.syscall(435, ctypes.byref(given), ctypes.sizeof(given))
            if not pid: os._exit(code)
            wanted = pid
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(pid, *codes)
        """
    )
    pid, *codes = map(int, parent.said)
    forks, exits = found.of("fork"), found.of("exit")[:-1]
    assert codes == list(range(1, 12))
    assert [int(row["pid"]) for row, *_ in forks] == [pid] * 11 == [int(row["pid"]) for row, *_ in exits]
    starts = [int(row["start_boottime_ns"]) for row, *_ in forks]
    assert starts == sorted(set(starts)) == [int(row["start_boottime_ns"]) for row, *_ in exits]
    assert [int(end["exit_code"]) for _, end, _ in exits] == codes
    assert len({key for key in found.processes if key[0] == pid}) == 11


def test_process_daemon_by_double_fork_is_followed_and_told_to_its_new_parent(told):
    found, parent = told(
        """
        ready()
        out, into = os.pipe()
        def act():
            os.setsid()
            first = os.getpid()
            if os.fork(): os._exit(0)
            while os.getppid() == first: pass
            os.write(into, b"%d %d" % (os.getpid(), os.getppid()))
        fork(act)
        print(os.read(out, 100).decode())
        os.read(out, 0)
        """
    )
    daemon, adopter = map(int, parent.said)
    ((_, fork, _),) = found.of("fork", daemon)
    assert int(fork["parent_pid"]) not in {parent.pid, adopter}
    end = next((end for _, end, _ in found.of("exit", daemon)), None)
    if end is not None and adopter:  # it may still be ending
        assert int(end["parent_pid"]) == adopter


THREADS = """
    ready()
    def act():
        threads = [threading.Thread(target=lambda: None) for _ in range(31)]
        for thread in threads: thread.start(); thread.join()
    fork(act)
"""


def test_process_threads_are_counted(told):
    found, _ = told(THREADS)
    assert found.kinds == {"inventory": 1, "fork": 1, "exit": 2}
    assert int(found.of("exit")[0][1]["threads"]) == 31


def test_process_threads_are_told_on_request(told):
    found, _ = told(THREADS, process__threads=True)
    assert found.kinds == {"inventory": 1, "fork": 1, "exit": 2, "thread_start": 31, "thread_end": 31}
    assert {int(r["tid"]) for r, *_ in found.of("thread_start")} == {int(r["tid"]) for r, *_ in found.of("thread_end")}


def test_process_cpu_time_and_memory_are_those_of_wait(told):
    found, parent = told(
        """
        ready()
        def act():
            data = bytearray(48 << 20)
            threads = [threading.Thread(target=lambda: sum(range(3_000_000))) for _ in range(3)]
            for thread in threads: thread.start()
            os._exit(sum(thread.join() or 0 for thread in threads))
        pid, _, used = fork(act)
        print(pid, int((used.ru_utime + used.ru_stime) * 1e9), used.ru_maxrss * 1024)
        """
    )
    pid, used_ns, rss_bytes = map(int, parent.said)
    ((_, end, _),) = found.of("exit", pid)
    assert int(end["peak_rss_bytes"]) == rss_bytes
    # What the last thread ran since the clock tick is not in it, 10 ms at the slowest tick.
    assert used_ns - 20_000_000 <= int(end["cpu_ns"]) <= used_ns + 1_000_000
    assert abs(int(end["user_ns"]) + int(end["system_ns"]) - used_ns) < 60_000_000


def test_process_out_of_memory_kill_names_victim_and_trigger(watch, child):
    with memory_cgroup("oom") as directory:
        limit = next((directory / n for n in ("memory.limit_in_bytes", "memory.max") if (directory / n).exists()), None)
        if limit is None:
            pytest.skip("memory cannot be limited in this cgroup")
        limit.write_text(str(24 << 20))
        parent = child(
            f"""
            ready()
            def act():
                open({str(directory / "cgroup.procs")!r}, "w").write(str(os.getpid()))
                data = bytearray(64 << 20)
                for at in range(0, len(data), 4096): data[at] = 1
            pid, status, _ = fork(act)
            print(pid, os.WTERMSIG(status))
            """
        )
        producer = watch(f"pid:{parent.pid}")
        pid, ended_by = map(int, parent.go())
        found = Told(producer)
    assert ended_by == signal.SIGKILL
    ((row, oom, _),) = found.of("oom")
    ((end_row, end, _),) = found.of("exit", pid)
    assert (int(row["pid"]), int(row["start_boottime_ns"])) == (pid, int(end_row["start_boottime_ns"]))
    assert (int(oom["trigger_pid"]), oom["trigger_comm"][:6]) == (pid, b"python")
    assert (int(end["signal"]), "OOM_KILLED" in flags_of(end_row)) == (signal.SIGKILL, True)
    assert 8 << 20 < int(oom["anonymous_rss_bytes"]) < 64 << 20
    assert int(oom["total_vm_bytes"]) > 64 << 20
    assert int(oom["uid"]) == os.getuid()


class OlderKernel(ProcessProducer):
    """As on a kernel whose tracepoints do not say that the group is dead, nor the victim's memory."""

    def definitions(self):
        return {**super().definitions(), "HAS_GROUP_DEAD": 0, "HAS_VICTIM_MEMORY": 0, "LEGACY_SUBSYSTEM": -1}


def test_process_on_an_older_kernel_the_last_thread_is_told_once(child):
    work = child(
        f"""
        ready()
        def act():
            for _ in range(7): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            threading.Thread(target=lambda: os._exit(23)).start()
            time.sleep(60)
        for _ in range(31): fork(act)
        run({TRUE!r})
        """
    )
    config = load(environ={}, flags={"capture.targets": [f"pid:{work.pid}"]}).config
    with attached(OlderKernel, config) as producer:
        producer.drain()
        work.go()
        found = Told(producer)
    assert found.kinds == {"inventory": 1, "fork": 32, "exec": 1, "exit": 33}
    assert [int(end["exit_code"]) for _, end, _ in found.of("exit")] == [23] * 31 + [0, 0]
    assert {int(end["legacy_cgroup_id"]) for _, end, _ in found.of("exit")} == {0}
