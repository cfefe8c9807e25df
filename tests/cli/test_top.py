import io
import socket

import orjson
import pytest
from typer.testing import CliRunner

from ebbflow.cli import make_app
from ebbflow.cli.top import Watch, print_looks, show_live, write_lines
from ebbflow.config import StoreConfig
from ebbflow.errors import ConfigError, NetworkError
from ebbflow.store.database import Database
from ebbflow.store.decode import rows_of
from ebbflow.store.queries import Top
from ebbflow.store.samples import make_http_spans, make_request
from ebbflow.store.views.text import make_console

TOP = Top(window_s=10.0, end_unix_nano=0, newest_unix_nano=0, arrived_unix_nano=0, rows=[], losses={"refused": 1})


@pytest.fixture
def options(tmp_path):
    database = Database(tmp_path / "s.duckdb")
    decoded = rows_of(make_request(make_http_spans(40, seed=1)), 2_000_000_000_000_000_000)
    database.insert(decoded.rows, decoded.resources)
    database.close()
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield ["--set", f"store.port={bound.getsockname()[1]}", "--set", f"store.path={tmp_path / 's.duckdb'}"]


def invoke(options, *arguments) -> str:
    result = CliRunner().invoke(make_app(), [*options, "top", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_top_once_prints_a_line_for_every_route(options):
    lines = invoke(options, "--once").splitlines()
    assert len(lines) == 4
    assert all(" shop server '/" in line for line in lines)


def test_top_once_json_is_one_object(options):
    found = orjson.loads(invoke(options, "--once", "--json", "--window", "20s"))
    assert found["window_s"] == 20.0
    assert sum(row["count"] for row in found["rows"]) == 40


@pytest.mark.parametrize("arguments", [["--window", "0"], ["--interval", "0"], ["--window", "long"]])
def test_top_lengths_that_are_none_are_told(options, arguments):
    with pytest.raises(ConfigError):
        invoke(options, *arguments)


class ScriptedWatch(Watch):
    """Looks that follow a script: a Top, or an error."""

    def __init__(self, *script, losses=dict):
        super().__init__(StoreConfig(), 10.0, losses)
        self._script = list(script)

    def _ask(self) -> Top:
        found = self._script.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def test_watch_first_look_that_fails_is_an_error():
    with pytest.raises(NetworkError):
        ScriptedWatch(NetworkError("gone")).look()


def test_watch_later_look_that_fails_keeps_the_last_with_a_notice():
    watch = ScriptedWatch(TOP, NetworkError("gone"), TOP)
    assert watch.look() is TOP
    assert (watch.look(), watch.notice) == (TOP, "gone")
    assert (watch.look(), watch.notice) == (TOP, "")


def test_watch_losses_of_the_pipeline_come_before_the_stores(options, tmp_path):
    port = int(options[1].partition("=")[2])
    watch = Watch(StoreConfig(path=tmp_path / "s.duckdb", port=port), 10.0, lambda: {"kernel": 7})
    assert watch.look().losses == {"kernel": 7}


def test_print_looks_one_each_interval(capsys):
    slept = []
    watch = ScriptedWatch(TOP, NetworkError("gone"))
    print_looks(watch, 1.5, write_lines, looks=2, sleep=slept.append)
    output = capsys.readouterr()
    assert output.out.splitlines() == ["--:--:-- no spans in the last 10 s", "lost: refused 1"] * 2
    assert output.err == "store: gone\n"
    assert slept == [1.5]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_show_live_draws_each_look(monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("ebbflow.store.views.text.make_console", lambda: make_console(terminal))
    show_live(ScriptedWatch(TOP, NetworkError("gone")), 0.1, looks=2, sleep=lambda _: None)
    assert terminal.getvalue().count("no spans in the last 10 s") >= 2
    assert "gone" in terminal.getvalue()


def test_top_terminal_gets_the_live_view(options, monkeypatch):
    shown = []
    monkeypatch.setattr("ebbflow.cli.top.show_live", lambda watch, interval_s: shown.append(interval_s))
    monkeypatch.setattr("ebbflow.cli.top.is_terminal", lambda: True)
    invoke(options, "--interval", "2s")
    assert shown == [2.0]
