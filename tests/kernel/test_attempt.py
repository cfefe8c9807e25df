"""The child's own code on a BCC that is not there, or that is a fake."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import ClassVar

import pytest

from ebbflow.kernel import attempt


class FakeRing:
    def open_ring_buffer(self, callback):
        self.callback = callback


class FakeBpf:
    """Counts what is attached and fires as often as it is told."""

    made: ClassVar[list] = []
    hits = 50

    def __init__(self, src_file, cflags, usdt_contexts=()):
        self.flags, self.attached, self.ring = cflags, [], FakeRing()
        FakeBpf.made.append(self)

    def __getitem__(self, name):
        return self.ring if name == "ring" else FakeHits(self.hits)

    def ring_buffer_poll(self, timeout_ms):
        for _ in range(self.hits):
            self.ring.callback(None, b"", 8)

    def get_syscall_fnname(self, name):
        return f"__x64_sys_{name}"

    def __getattr__(self, name):
        action, _, kind = name.partition("_")
        if action not in {"attach", "detach"}:
            raise AttributeError(name)
        return lambda **_: self.attached.append(kind) if action == "attach" else self.attached.remove(kind)


class FakeHits:
    def __init__(self, count):
        self.count = count

    def __setitem__(self, key, value):
        pass

    def __getitem__(self, key):
        return types.SimpleNamespace(value=self.count)


@pytest.fixture
def bcc(monkeypatch):
    FakeBpf.made, FakeBpf.hits = [], 50
    fake = types.ModuleType("bcc")
    fake.BPF = FakeBpf
    fake.USDT = lambda pid: types.SimpleNamespace(enable_probe=lambda probe, fn_name: None)
    fake.PerfType = types.SimpleNamespace(SOFTWARE=1)
    fake.PerfSWConfig = types.SimpleNamespace(CPU_CLOCK=0)
    monkeypatch.setitem(sys.modules, "bcc", fake)
    monkeypatch.setattr(attempt, "_BURN_NS", 1000)
    return fake


NAMES = ["raw_tracepoint", "tracepoint", "ring_buffer", "uprobe", "usdt", "perf_event", "kprobe"]


def run(capfd, tmp_path, names):
    """What main reports; descriptor 2 is put back afterwards."""
    saved = os.dup(2)
    try:
        attempt.main("check.c", str(tmp_path / "log"), *names)
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_main_every_kind_reports_its_hits(bcc, capfd, tmp_path):
    reports = run(capfd, tmp_path, NAMES)
    assert [(report["name"], report["ok"], report["detail"]) for report in reports] == [
        (name, True, "50 hits") for name in NAMES
    ]


def test_main_detaches_everything_and_shares_the_plain_program(bcc, capfd, tmp_path):
    run(capfd, tmp_path, NAMES)
    assert [bpf.attached for bpf in FakeBpf.made] == [[], [], [], []]
    flags = [[flag for flag in bpf.flags if flag.startswith("-DCHECK") and "PID" not in flag] for bpf in FakeBpf.made]
    assert flags == [[], ["-DCHECK_TRACEPOINT"], ["-DCHECK_RING_BUFFER"], []]


def test_main_program_that_never_runs_is_not_ok(bcc, capfd, tmp_path):
    FakeBpf.hits = 0
    (report,) = run(capfd, tmp_path, ["uprobe"])
    assert (report["ok"], report["detail"]) == (False, "loads, but never ran")


def test_main_exception_is_reported_with_what_the_library_wrote(bcc, capfd, tmp_path, monkeypatch):
    def refuse(self):
        os.write(2, b"check.c:1:1: error: no\n")
        raise RuntimeError("Failed to compile")

    monkeypatch.setattr(attempt.Attempts, "_compile", refuse)
    (report,) = run(capfd, tmp_path, ["kprobe"])
    assert report == {"name": "kprobe", "ok": False, "detail": "Failed to compile", "log": "check.c:1:1: error: no\n"}


def test_main_without_bcc_fails_every_kind(capfd, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bcc", None)
    reports = run(capfd, tmp_path, ["uprobe", "usdt"])
    assert [report["ok"] for report in reports] == [False, False]
    assert "BCC's Python module" in reports[0]["detail"]


def test_script_runs_by_path_with_the_standard_library_alone(tmp_path):
    script = Path(attempt.__file__)
    done = subprocess.run(
        [sys.executable, "-I", "-S", script, "check.c", tmp_path / "log", "uprobe"], capture_output=True, check=True
    )
    assert json.loads(done.stdout)["ok"] is False
