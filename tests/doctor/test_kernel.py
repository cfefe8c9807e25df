from pathlib import Path

import pytest

from ebbflow.doctor import kernel
from ebbflow.doctor.check import Status
from ebbflow.kernel.capabilities import CAPABILITIES
from ebbflow.kernel.check import Attempt

RELEASE = "6.18.44-x"
ALL = list(CAPABILITIES)


def put(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_capabilities_are_in_the_kernels_order():
    numbers = {name: CAPABILITIES.index(name) for name in ("CHOWN", "SYS_PTRACE", "SYS_ADMIN", "PERFMON", "BPF")}
    assert numbers == {"CHOWN": 0, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "PERFMON": 38, "BPF": 39}
    assert len(CAPABILITIES) == 41


@pytest.mark.parametrize(
    ("release", "status"), [("6.18.44", "ok"), ("5.8.0-rc1", "ok"), ("5.7.19", "fail"), ("4.19.0-26-amd64", "fail")]
)
def test_kernel_version_has_ring_buffers_or_not(release, status):
    check = kernel.kernel_version(release)
    assert (check.status, check.blocks) == (status, status == "fail")


@pytest.mark.parametrize(("machine", "blocks"), [("x86_64", False), ("aarch64", True)])
def test_architecture_only_x86_64(machine, blocks):
    assert kernel.architecture(machine).blocks is blocks


def test_btf_missing_blocks_with_hint(tmp_path):
    check = kernel.btf(tmp_path / "vmlinux")
    assert check.blocks
    assert "CONFIG_DEBUG_INFO_BTF" in check.hint


@pytest.mark.skipif(not Path("/sys/kernel/btf/vmlinux").exists(), reason="this kernel has no BTF")
def test_btf_of_this_kernel_has_every_offset():
    check = kernel.btf()
    assert check.status is Status.OK
    assert check.details["types"] > 10_000


def test_tracefs_mounted_says_where(tmp_path):
    put(tmp_path, "proc/self/mounts", "sysfs /sys sysfs rw 0 0\ntracefs /sys/kernel/tracing tracefs rw 0 0\n")
    assert kernel.tracefs(tmp_path).value == "mounted at /sys/kernel/tracing"


def test_tracefs_mounted_elsewhere_blocks(tmp_path):
    put(tmp_path, "proc/self/mounts", "tracefs /srv/chroot/sys/kernel/tracing tracefs rw 0 0\n")
    check = kernel.tracefs(tmp_path)
    assert (check.blocks, check.value) == (True, "mounted at /srv/chroot/sys/kernel/tracing only")


def test_tracefs_not_mounted_blocks_with_the_command(tmp_path):
    check = kernel.tracefs(tmp_path)
    assert (check.blocks, check.hint) == (True, "mount -t tracefs tracefs /sys/kernel/tracing")


@pytest.mark.parametrize(
    ("text", "value", "blocks"),
    [
        ("[none] integrity confidentiality\n", "none", False),
        ("none [integrity] confidentiality\n", "integrity", False),
        ("none integrity [confidentiality]\n", "confidentiality: programs may not read kernel memory", True),
    ],
)
def test_lockdown_levels(tmp_path, text, value, blocks):
    put(tmp_path, "sys/kernel/security/lockdown", text)
    check = kernel.lockdown(tmp_path)
    assert (check.value, check.blocks) == (value, blocks)


def test_lockdown_without_securityfs_is_a_note(tmp_path):
    assert kernel.lockdown(tmp_path).status is Status.NOTE


def test_lockdown_without_the_file_is_not_built_in(tmp_path):
    put(tmp_path, "proc/self/mounts", "securityfs /sys/kernel/security securityfs rw 0 0\n")
    assert kernel.lockdown(tmp_path).value == "not built into this kernel"


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        ("0000000000000000", []),
        ("000000c000200000", ["SYS_ADMIN", "PERFMON", "BPF"]),
        ("000001ffffffffff", ALL),
        ("0000040000000001", ["CHOWN", "42"]),
    ],
)
def test_effective_capabilities_from_the_mask(tmp_path, mask, names):
    put(tmp_path, "proc/self/status", f"Name:\tx\nCapPrm:\tffff\nCapEff:\t{mask}\nCapBnd:\t1\n")
    assert kernel.effective_capabilities(tmp_path) == names


@pytest.mark.parametrize(
    ("effective", "value", "blocks"),
    [
        (ALL, "all", False),
        ([name for name in ALL if name != "SYS_RESOURCE"], "all but SYS_RESOURCE", False),
        (["SYS_ADMIN"], "SYS_ADMIN", False),
        (["PERFMON", "BPF"], "PERFMON, BPF", False),
        (["BPF"], "BPF; needs SYS_ADMIN, or BPF and PERFMON", True),
        ([], "none; needs SYS_ADMIN, or BPF and PERFMON", True),
    ],
)
def test_capabilities_enough_or_not(effective, value, blocks):
    check = kernel.capabilities(effective)
    assert (check.value, check.blocks) == (value, blocks)
    assert check.details["effective"] == effective


@pytest.mark.parametrize(
    ("text", "effective", "status"),
    [("2\n", [], "ok"), ("3\n", [], "note"), ("4\n", ["PERFMON"], "ok"), ("-1\n", [], "ok"), (None, [], "note")],
)
def test_perf_event_paranoid_matters_without_the_capability(tmp_path, text, effective, status):
    if text:
        put(tmp_path, "proc/sys/kernel/perf_event_paranoid", text)
    assert kernel.perf_event_paranoid(tmp_path, effective).status == status


@pytest.mark.parametrize(("text", "status"), [("0\n", "note"), ("1\n", "ok"), ("2\n", "ok"), (None, "note")])
def test_unprivileged_bpf_open_to_all_is_a_note(tmp_path, text, status):
    if text:
        put(tmp_path, "proc/sys/kernel/unprivileged_bpf_disabled", text)
    assert kernel.unprivileged_bpf(tmp_path).status == status


@pytest.fixture
def no_kernel_source(monkeypatch):
    monkeypatch.delenv("BCC_KERNEL_SOURCE", raising=False)


@pytest.mark.parametrize(("found", "status"), [(RELEASE, "ok"), ("6.1.0-56-amd64", "note")])
def test_headers_real_or_linked(tmp_path, no_kernel_source, found, status):
    build = f"lib/modules/{RELEASE}/build/include/generated/utsrelease.h"
    put(tmp_path, build, f'#define UTS_RELEASE "{found}"\n')
    check = kernel.headers(tmp_path, RELEASE)
    assert (check.status, check.details["release"]) == (status, found)


def test_headers_without_a_release_are_taken_as_real(tmp_path, no_kernel_source):
    (tmp_path / f"lib/modules/{RELEASE}/build/include").mkdir(parents=True)
    assert kernel.headers(tmp_path, RELEASE).status is Status.OK


def test_headers_missing_block_with_the_command(tmp_path, no_kernel_source):
    check = kernel.headers(tmp_path, RELEASE)
    assert (check.blocks, check.hint) == (True, "make setup")


def test_headers_in_the_kernel_do(tmp_path, no_kernel_source):
    put(tmp_path, "sys/kernel/kheaders.tar.xz", "")
    assert kernel.headers(tmp_path, RELEASE).status is Status.OK


def test_headers_of_the_environment_do(tmp_path, monkeypatch):
    monkeypatch.setenv("BCC_KERNEL_SOURCE", "/opt/kheaders")
    assert "BCC_KERNEL_SOURCE" in kernel.headers(tmp_path, RELEASE).value


def test_program_that_runs_is_ok():
    check = kernel.program(Attempt("uprobe", ok=True, detail="50 hits"), ALL)
    assert (check.name, check.status, check.value) == ("program.uprobe", "ok", "loads and runs (50 hits)")


@pytest.mark.parametrize(
    ("name", "detail", "effective", "blocks", "hint"),
    [
        ("raw_tracepoint", "Operation not permitted", [], True, "run it as root: sudo make run"),
        ("ring_buffer", "BCC's Python module: No module named 'bcc'", [], True, "make setup"),
        ("ring_buffer", "no kernel headers to compile with", ALL, True, "make setup"),
        (
            "tracepoint",
            "open(/sys/kernel/tracing/x): No such file",
            ALL,
            True,
            "mount -t tracefs tracefs /sys/kernel/tracing",
        ),
        ("uprobe", "crashed with SIGSEGV", ALL, False, "see the reason above and docs/doctor.md"),
    ],
)
def test_program_that_fails_says_what_mends_it(name, detail, effective, blocks, hint):
    check = kernel.program(Attempt(name, ok=False, detail=detail), effective)
    assert (check.blocks, check.hint) == (blocks, hint)


def test_program_kprobe_is_never_needed():
    check = kernel.program(Attempt("kprobe", ok=False, detail="no kprobe_events"), ALL)
    assert (check.status, check.needed) == (Status.NOTE, False)
    assert "CONFIG_KPROBES" in check.hint
