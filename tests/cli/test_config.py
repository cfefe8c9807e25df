from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from ebbflow.cli import make_app
from ebbflow.config import Config, load


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def invoke(*arguments: str) -> str:
        result = runner.invoke(make_app(), arguments)
        assert result.exit_code == 0, result.output
        return result.output

    return invoke


def test_config_table_has_a_row_for_every_setting(run):
    keys = [line.split()[0] for line in run("config").splitlines()[1:]]
    assert keys == [setting.key for setting in load(environ={}).settings()]


def test_config_table_long_value_is_cut_and_whole_as_json(run, monkeypatch):
    targets = ",".join(f"pid:{number}" for number in range(100))
    monkeypatch.setenv("EBBFLOW_CAPTURE__TARGETS", targets)
    (row,) = [line for line in run("config").splitlines() if line.startswith("capture.targets")]
    assert "pid:0,pid:1" in row
    assert "…" in row
    assert "pid:99" in run("config", "--json")


def test_config_table_says_where_a_value_came_from(run, monkeypatch):
    monkeypatch.setenv("EBBFLOW_CAPTURE__TARGETS", "pid:1,port:80")
    monkeypatch.setenv("EBBFLOW_OTLP__HEADERS", "token=hunter2")
    rows = {line.split()[0]: line.split()[1:3] for line in run("--set", "log.level=debug", "config").splitlines()}
    assert rows["capture.targets"] == ["pid:1,port:80", "EBBFLOW_CAPTURE__TARGETS"]
    assert rows["otlp.headers"] == ["token=********", "EBBFLOW_OTLP__HEADERS"]
    assert rows["log.level"] == ["debug", "command"]
    assert rows["kafka.ssl_cafile"] == ["-", "default"]


def test_config_json_can_be_read_back(run, monkeypatch):
    monkeypatch.setenv("EBBFLOW_KAFKA__SASL_PASSWORD", "hunter2")
    told = json.loads(run("--set", "store.path=/x", "config", "--json"))
    assert told["kafka.sasl_password"]["value"] == "********"
    assert told["store.path"] == {"value": "/x", "origin": "command line", "description": "database file"}
    assert told["store.port"]["value"] == Config().store.port
