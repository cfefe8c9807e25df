import pytest
from typer.testing import CliRunner

from ebbflow.cli import make_app
from ebbflow.errors import ConfigError


def test_store_runs_the_server_with_the_configured_store(monkeypatch, tmp_path):
    served = []
    monkeypatch.setattr("ebbflow.telemetry.setup_logging", lambda config, component: served.append(component))
    monkeypatch.setattr("ebbflow.store.server.serve", lambda config, log: served.append(config))
    path = tmp_path / "s.duckdb"
    result = CliRunner().invoke(make_app(), ["--set", "store.port=5", "--set", f"store.path={path}", "store"])
    assert result.exit_code == 0, result.output
    assert (served[0], served[1].port, served[1].path) == ("store", 5, path)


def test_store_bad_setting_is_a_config_error():
    with pytest.raises(ConfigError, match=r"store\.port"):
        CliRunner().invoke(make_app(), ["--set", "store.port=0", "store"], catch_exceptions=False)
