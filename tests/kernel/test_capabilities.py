import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ebbflow.errors import PermissionDenied
from ebbflow.kernel import capabilities
from ebbflow.kernel.capabilities import kept_for_draining, mask_in, mask_of, names_of, require_for_loading

CHECKOUT = Path(__file__).parents[2]
STATUS = "Name:\tx\nCapPrm:\tff\nCapEff:\t0000000000000005\nCapBnd:\t000001fffeffffff\n"


def test_mask_is_read_from_status_text():
    assert mask_in(STATUS, "CapBnd") == 0x1FFFEFFFFFF
    assert names_of(mask_in(STATUS)) == ["CHOWN", "DAC_READ_SEARCH"]
    assert mask_in("Name:\tx\n") == 0


def test_names_and_masks_are_inverse_also_for_what_is_not_known():
    assert names_of(1 << 39 | 1 << 50) == ["BPF", "50"]
    assert mask_of(["50", "BPF", "BPF"]) == 1 << 39 | 1 << 50


@pytest.mark.parametrize("enough", [["SYS_ADMIN"], ["PERFMON", "BPF"]])
def test_require_for_loading_enough_is_silent(enough):
    require_for_loading(enough)


@pytest.mark.parametrize(
    ("held", "missing"), [([], "CAP_BPF and CAP_PERFMON"), (["BPF"], "CAP_PERFMON"), (["PERFMON"], "CAP_BPF")]
)
def test_require_for_loading_names_what_is_missing(held, missing):
    with pytest.raises(PermissionDenied, match=f": {missing} missing") as caught:
        require_for_loading(held)
    assert "sudo" in caught.value.hint


@pytest.mark.parametrize(
    ("release", "later", "kept"),
    [
        ("6.18.44-x", False, {"SYS_PTRACE", "DAC_READ_SEARCH"}),
        ("5.19.0", False, {"SYS_PTRACE", "DAC_READ_SEARCH"}),
        ("5.18.19", False, {"SYS_PTRACE", "DAC_READ_SEARCH", "BPF"}),
        ("6.18.44-x", True, {"SYS_PTRACE", "DAC_READ_SEARCH", "SYS_ADMIN"}),
    ],
)
def test_kept_for_draining_depends_on_the_kernel_and_gives_reasons(release, later, kept):
    found = kept_for_draining(release, attaches_later=later)
    assert set(found) == kept
    assert all(found.values())


def test_threads_with_more_names_them_and_what_they_hold(tmp_path):
    for thread, permitted in ((10, "5"), (11, "4")):
        folder = tmp_path / "10" / "task" / str(thread)
        folder.mkdir(parents=True)
        (folder / "status").write_text(f"CapPrm:\t{permitted}\nCapEff:\t0\nCapBnd:\tff\n")
    assert capabilities.threads_with_more(["DAC_READ_SEARCH"], 10, tmp_path) == {10: ["CHOWN"]}


DROP_AND_TELL = """
import json
from ebbflow.kernel.capabilities import drop_all_but
remain = drop_all_but(["KILL"])
print(json.dumps([sorted(remain.effective), sorted(remain.permitted)]))
"""


def test_dropped_is_never_more_than_there_was():
    """Root keeps the one, everyone else had none."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    output = subprocess.run(
        [sys.executable, "-c", DROP_AND_TELL], capture_output=True, check=True, env=environment
    ).stdout
    kept = ["KILL"] if "KILL" in capabilities.read_capabilities().permitted else []
    assert json.loads(output) == [kept, kept]


@pytest.fixture
def stranger():
    """A process of another user, with a secret in its environment."""
    command = ["setpriv", "--reuid", "65534", "--clear-groups", "env", "-i", "SECRET=x", "sleep", "60"]
    process = subprocess.Popen(command)
    status = Path(f"/proc/{process.pid}/comm")
    while status.read_text() != "sleep\n":
        os.sched_yield()
    yield process.pid
    process.kill()
    process.wait()


def drained(pid, *keep):
    """What a child can do after it dropped all but `keep`. OpenBLAS would start a thread before the drop."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", str(Path(__file__).with_name("drained.py")), str(pid), *keep]
    output = subprocess.run(command, capture_output=True, check=True, env=environment, timeout=60).stdout
    return json.loads(output)


@pytest.mark.bpf
def test_dropped_to_draining_leaves_what_draining_needs_and_no_more(stranger):
    keep = sorted(capabilities.KEPT_FOR_DRAINING)
    told = drained(stranger, *keep)
    assert told["effective"] == told["permitted"] == told["bounding"] == told["started"] == keep
    assert told["threads_with_more"], "the thread started before the drop, and it alone"
    assert told["hits"] == 23
    assert told["drained_bytes"] == 23 * 16
    assert told["written"] == "None"
    assert told["environ"] == "SECRET=x"
    assert told["load"].startswith("PermissionDenied: loading BPF programs needs CAP_SYS_ADMIN, or CAP_BPF")
    assert told["attach"].startswith("PermissionDenied: uprobe ")


@pytest.mark.bpf
@pytest.mark.parametrize("missing", sorted(capabilities.KEPT_FOR_DRAINING))
def test_dropped_further_cannot_read_environments_of_others(stranger, missing):
    told = drained(stranger, *set(capabilities.KEPT_FOR_DRAINING) - {missing})
    assert told["environ"].startswith("PermissionError")
    assert told["hits"] == 23


@pytest.mark.bpf
def test_dropped_but_for_attaching_later_can_attach(stranger):
    assert drained(stranger, *kept_for_draining(os.uname().release, attaches_later=True))["attach"] == "uprobe"
