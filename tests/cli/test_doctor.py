import io
import json

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from ebbflow import doctor as library
from ebbflow.cli import doctor
from ebbflow.cli.common import Globals
from ebbflow.doctor.check import fail, note, ok

CHECKS = [
    ok("kernel", "6.18", needed=True),
    note("headers", "of 6.1", needed=True),
    note("lockdown", "unknown", hint="mount -t securityfs securityfs /sys/kernel/security"),
    fail("otlp", "http://backend:4318: connection refused", hint="start it"),
]
BLOCKING = [
    fail("tracefs", "not mounted", needed=True, hint="mount -t tracefs tracefs /sys/kernel/tracing"),
    fail("program.uprobe", "[oops]", needed=True, hint="mount -t tracefs tracefs /sys/kernel/tracing"),
]


def invoke(*arguments, settings=()):
    app = typer.Typer()
    doctor.register(app)
    app.callback()(lambda: None)
    return CliRunner().invoke(app, ["doctor", *arguments], obj=Globals(None, settings))


@pytest.fixture
def checks(monkeypatch):
    found = list(CHECKS)
    monkeypatch.setattr(library, "examine", lambda config: found)
    return found


def shown(checks):
    output = io.StringIO()
    doctor.show(checks, Console(file=output, width=80))
    return output.getvalue()


def test_doctor_main_job_can_run_exits_0_despite_other_failures(checks):
    result = invoke()
    assert result.exit_code == 0
    assert "The main job can run here." in result.output


def test_doctor_needed_check_fails_exits_1(checks):
    checks += BLOCKING
    result = invoke("--json")
    assert result.exit_code == 1
    assert json.loads(result.output)["can_run"] is False


def test_doctor_json_has_the_documented_shape(checks):
    result = json.loads(invoke("--json").output)
    assert result["can_run"] is True
    assert result["checks"][0] == {
        "name": "kernel", "status": "ok", "value": "6.18", "needed": True, "hint": "", "details": {},
    }  # fmt: skip
    assert [check["status"] for check in result["checks"]] == ["ok", "note", "note", "fail"]


def test_doctor_bad_setting_exits_1_with_a_hint(checks):
    result = invoke(settings=("kafka.bootstrop=x",))
    assert result.exit_code == 1
    assert "hint: did you mean kafka.bootstrap?" in result.output


def test_show_fits_80_columns_but_for_commands():
    lines = shown([*CHECKS, *BLOCKING, note("memory", "much " * 40)]).splitlines()
    assert max(len(line) for line in lines) <= 80


def test_show_one_cure_for_several_findings_is_said_once():
    text = shown(BLOCKING)
    assert text.count("  mount -t tracefs tracefs /sys/kernel/tracing\n") == 1
    assert "for tracefs, program.uprobe" in text
    assert "The main job cannot run here: 2 needed checks fail." in text


def test_show_terminal_without_utf8_gets_words():
    raw = io.BytesIO()
    output = io.TextIOWrapper(raw, encoding="ascii", errors="replace")
    doctor.show(CHECKS, Console(file=output, width=80))
    output.flush()
    words = [line.split()[:2] for line in raw.getvalue().decode().splitlines()[1:5]]
    assert words == [["ok", "kernel"], ["note", "headers"], ["note", "lockdown"], ["fail", "otlp"]]


def test_show_values_are_not_markup():
    assert "[oops]" in shown(BLOCKING)


def test_show_long_command_stays_on_one_line():
    command = "mount " + "x" * 100
    assert f"  {command}\n" in shown([note("a", "b", hint=command)])
