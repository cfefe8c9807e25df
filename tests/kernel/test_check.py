import json
import sys

import pytest

from ebbflow.kernel.check import MECHANISMS, Attempt, child_command, one_line, parse_reports, try_programs


def child(*steps):
    """A child that does one step a name: its line on stdout, or Python code."""

    def command(log, names):
        code = "\n".join(steps[MECHANISMS.index(name)] for name in names)
        return [sys.executable, "-S", "-c", f"import os, sys\nlog = {str(log)!r}\n{code}"]

    return command


def says(name, *, ok=True, detail="50 hits", log=""):
    return f"print({json.dumps(json.dumps({'name': name, 'ok': ok, 'detail': detail, 'log': log}))}, flush=True)"


def test_try_programs_all_well_takes_one_child():
    attempts = try_programs(MECHANISMS[:2], command=child(*map(says, MECHANISMS)))
    assert attempts == [Attempt(name, ok=True, detail="50 hits") for name in MECHANISMS[:2]]


def test_try_programs_crash_fails_one_and_goes_on():
    crash = "open(log, 'w').write('libbpf: oh no\\n'); os.kill(os.getpid(), 11)"
    attempts = try_programs(MECHANISMS[:3], command=child(says(MECHANISMS[0]), crash, says(MECHANISMS[2])))
    assert [attempt.ok for attempt in attempts] == [True, False, True]
    assert attempts[1] == Attempt(MECHANISMS[1], ok=False, detail="crashed with SIGSEGV: libbpf: oh no")


def test_try_programs_exit_fails_one_and_goes_on():
    attempts = try_programs(MECHANISMS[:2], command=child("os._exit(3)", says(MECHANISMS[1])))
    assert [attempt.detail for attempt in attempts] == ["ended with status 3", "50 hits"]


def test_try_programs_early_end_fails_what_was_not_answered():
    attempts = try_programs(MECHANISMS[:1], command=child("pass"))
    assert attempts == [Attempt(MECHANISMS[0], ok=False, detail="ended without an answer")]


def test_try_programs_no_answer_in_time_fails_one():
    attempts = try_programs(MECHANISMS[:1], command=child("sys.stdin = None\nwhile True: pass"), timeout_s=0.05)
    assert attempts == [Attempt(MECHANISMS[0], ok=False, detail="no answer in 0.05 s")]


def test_parse_reports_passes_over_foreign_and_cut_lines():
    output = b'hello\n{"name": "x"}\n[1]\n{"name": "x", "ok": true, "detail": "1 hits", "log": ""}\n{"name": "y", "ok'
    assert parse_reports(output) == [Attempt("x", ok=True, detail="1 hits")]


def test_parse_reports_failure_has_the_reason():
    output = json.dumps({"name": "x", "ok": False, "detail": "Failed", "log": "a.c:1:2: error: no struct\n"}).encode()
    assert parse_reports(output + b"\n") == [Attempt("x", ok=False, detail="no struct")]


@pytest.mark.parametrize(
    ("detail", "log", "expected"),
    [
        ("Failed to compile", "check.c:3:1: error: unknown type\ncheck.c:9:1: error: other\n", "unknown type"),
        ("Failed", "modprobe: x\nUnable to find kernel headers. Try rebuilding\n", "no kernel headers to compile with"),
        ("not traceable", "open(x): No such file or directory\n", "open(x): No such file or directory"),
        ("cannot attach b'x'", "processed 20 insns\n", "cannot attach x"),
        ("", "one\ntwo\n", "two"),
        ("", "", ""),
        ("long" * 100, "", "long" * 75),
    ],
)  # fmt: skip
def test_one_line_chooses_what_tells_most(detail, log, expected):
    assert one_line(detail, log) == expected


def test_child_command_runs_a_file_that_exists(tmp_path):
    command = child_command(tmp_path / "log", ["uprobe"])
    assert command[-2:] == [str(tmp_path / "log"), "uprobe"]
    assert all(path.endswith((".py", ".c")) for path in command[2:4])


@pytest.mark.bpf
def test_try_programs_on_this_kernel_what_the_main_job_needs_runs():
    attempts = {attempt.name: attempt for attempt in try_programs()}
    assert list(attempts) == list(MECHANISMS)
    assert [attempts[name].ok for name in ("raw_tracepoint", "tracepoint", "ring_buffer")] == [True, True, True]
    assert all(attempt.detail for attempt in attempts.values())


@pytest.mark.bpf
def test_try_programs_without_rights_says_so_for_each():
    def as_nobody(log, names):
        log.parent.chmod(0o777)
        return ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *child_command(log, names)]

    attempts = try_programs(("raw_tracepoint", "uprobe"), command=as_nobody)
    assert attempts == [
        Attempt(name, ok=False, detail="Operation not permitted") for name in ("raw_tracepoint", "uprobe")
    ]
