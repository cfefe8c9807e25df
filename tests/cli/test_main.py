from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from ebbflow import __version__, cli
from ebbflow.cli.common import Globals, load_config
from ebbflow.errors import ConfigError, NetworkError

HEAVY = {"aiokafka", "confluent_kafka", "duckdb", "fastapi", "faust", "google", "grpc", "httpx", "numpy", "pydantic"}


def run_main(monkeypatch, *arguments: str) -> int:
    """Exit status of the command."""
    monkeypatch.setattr(sys, "argv", ["ebbflow", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.fixture
def raising(monkeypatch):
    """Replace the command by one that raises."""

    def raise_in_command(error: BaseException) -> None:
        app = typer.Typer(pretty_exceptions_enable=False)

        @app.command()
        def fail() -> None:
            raise error

        monkeypatch.setattr(cli, "make_app", lambda: app)

    return raise_in_command


def test_main_version_is_the_package_s(monkeypatch, capsys):
    assert run_main(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"ebbflow {__version__}\n"


def test_main_help_names_every_command(monkeypatch, capsys):
    assert run_main(monkeypatch, "--help") == 0
    told = capsys.readouterr().out
    assert all(name in told for name in ("config", "kafka"))


def test_main_error_is_one_line_and_a_hint(monkeypatch, capsys, raising):
    raising(NetworkError("nobody answers", hint="start it"))
    assert run_main(monkeypatch) == 2
    assert capsys.readouterr() == ("", "error: nobody answers\nhint: start it\n")


def test_main_error_without_hint_is_one_line(monkeypatch, capsys, raising):
    raising(NetworkError("nobody answers"))
    assert run_main(monkeypatch) == 2
    assert capsys.readouterr().err == "error: nobody answers\n"


def test_main_file_that_cannot_be_used_is_named(monkeypatch, capsys, raising):
    raising(PermissionError(13, "Permission denied", "/nowhere"))
    assert run_main(monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: /nowhere: Permission denied\nhint: ")


def test_main_system_error_without_a_file_is_a_bug_and_stays_one(monkeypatch, raising):
    raising(OSError(22, "Invalid argument"))
    monkeypatch.setattr(sys, "argv", ["ebbflow"])
    with pytest.raises(OSError, match="Invalid argument"):
        cli.main()


def test_main_interrupted_exits_130_quietly(monkeypatch, capsys, raising):
    raising(KeyboardInterrupt())
    assert run_main(monkeypatch) == 130
    assert capsys.readouterr() == ("", "")


def test_main_reader_that_went_away_is_no_error(monkeypatch, capsys, raising):
    raising(BrokenPipeError(32, "Broken pipe"))
    assert run_main(monkeypatch) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_make_app_imports_nothing_heavy():
    code = "import sys; from ebbflow.cli import make_app; make_app(); print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert HEAVY & set(loaded) == set()


def context(*assignments: str) -> typer.Context:
    command = typer.main.get_command(cli.make_app())
    return typer.Context(command, obj=Globals(assignments=assignments))


def test_load_config_set_wins_over_environment_and_own_flags_over_all(monkeypatch):
    monkeypatch.setenv("EBBFLOW_LOG__LEVEL", "error")
    ctx = context("log.level=debug", "log.format=json", "capture.targets=pid:1,pid:2")
    config = load_config(ctx, {"log.format": "console", "store.port": None}).config
    assert (config.log.level, config.log.format, config.store.port) == ("debug", "console", 14318)
    assert config.capture.targets == ["pid:1", "pid:2"]


@pytest.mark.parametrize("assignment", ["log.level", "=debug", ""])
def test_load_config_set_without_key_and_value_is_refused(assignment):
    with pytest.raises(ConfigError, match=f"--set {assignment}: not KEY=VALUE"):
        load_config(context(assignment))


def test_load_config_value_may_hold_equals_signs():
    assert load_config(context("otlp.headers=a=b=c")).config.otlp.headers == {"a": "b=c"}


def test_main_config_file_that_is_not_there_is_named(monkeypatch, capsys):
    assert run_main(monkeypatch, "--config", "gone.toml", "config") == 2
    assert capsys.readouterr().err.startswith("error: gone.toml: No such file or directory\nhint: ")
