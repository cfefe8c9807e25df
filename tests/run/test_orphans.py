from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from ebbflow.run.orphans import children, end_orphans, end_with_parent, wait_until_gone

# A grandchild whose parent ends at once.
ORPHAN = ["sh", "-c", "sleep 300 & echo $!"]


def keeper():
    """A process that takes orphans, and the orphan it has."""
    code = "import subprocess, sys; subprocess.run(sys.argv[1:]); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", code, *ORPHAN],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=end_with_parent,  # noqa: PLW1509 - no thread runs
    )  # fmt: skip
    return process, int(process.stdout.readline())


def finish(process):
    process.stdin.close()
    process.stdout.close()
    process.wait()


def wait_for(condition, timeout_s=5.0):
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_end_orphans_ends_what_fell_to_a_process():
    process, orphan = keeper()
    assert wait_for(lambda: children(process.pid) == [orphan])
    os.kill(orphan, 0)
    # Its keeper does not reap it: it stays as a zombie, which is found again until the time is over.
    assert end_orphans(process.pid, timeout_s=0.05) == 1
    assert Path(f"/proc/{orphan}/stat").read_text().split()[2] == "Z"
    finish(process)


def test_end_orphans_keeps_what_is_named():
    process, orphan = keeper()
    assert wait_for(lambda: children(process.pid) == [orphan])
    assert end_orphans(process.pid, keep=[orphan]) == 0
    assert Path(f"/proc/{orphan}/stat").read_text().split()[2] != "Z"
    end_orphans(process.pid, timeout_s=0.05)
    finish(process)


def test_children_of_no_process_is_empty():
    assert children(4_000_000) == []


def test_wait_until_gone_reaps_a_child():
    process = subprocess.Popen(["sleep", "300"])
    process.kill()
    wait_until_gone(process.pid, 5.0)
    assert not Path(f"/proc/{process.pid}").exists()
    process.wait()


def test_wait_until_gone_gives_up_in_time():
    begun_s = time.monotonic()
    wait_until_gone(os.getpid(), 0.05)
    assert 0.05 <= time.monotonic() - begun_s < 2.0
