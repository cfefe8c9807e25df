from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbflow.config import Config, Loaded, load
from ebbflow.errors import ConfigError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("EBBFLOW_")]:
        monkeypatch.delenv(name)


def origin(loaded: Loaded, key: str) -> str:
    return next(setting.origin for setting in loaded.settings() if setting.key == key)


def test_load_nothing_gives_defaults():
    loaded = load(environ={})
    assert loaded.config == Config()
    assert {setting.origin for setting in loaded.settings()} == {"default"}


def test_load_later_sources_win_and_are_remembered(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('[kafka]\nbootstrap = "file:1"\npartitions = 2\n[log]\nlevel = "debug"\n')
    environ = {"EBBFLOW_KAFKA__BOOTSTRAP": "env:2", "EBBFLOW_KAFKA__PARTITIONS": "3", "PATH": "/bin"}
    loaded = load(file, environ=environ, flags={"kafka.bootstrap": "flag:3", "log.format": None})
    assert (loaded.config.kafka.bootstrap, loaded.config.kafka.partitions) == ("flag:3", 3)
    assert [origin(loaded, key) for key in ("kafka.bootstrap", "kafka.partitions", "log.level", "log.format")] == [
        "command line", "EBBFLOW_KAFKA__PARTITIONS", str(file), "default",
    ]  # fmt: skip


def test_load_takes_ebbflow_toml_of_the_working_directory(tmp_path):
    (tmp_path / "ebbflow.toml").write_text("[store]\nport = 5\n")
    loaded = load(environ={})
    assert (loaded.config.store.port, origin(loaded, "store.port")) == (5, "ebbflow.toml")


def test_load_takes_the_file_that_the_environment_names(tmp_path):
    (tmp_path / "ebbflow.toml").write_text("[store]\nport = 5\n")
    (tmp_path / "other.toml").write_text("[store]\nport = 6\n")
    assert load(environ={"EBBFLOW_CONFIG": "other.toml"}).config.store.port == 6


def test_load_component_name_is_not_a_setting():
    assert load(environ={"EBBFLOW_COMPONENT": "sink"}).config == Config()


def test_load_uses_the_process_environment_by_default(monkeypatch):
    monkeypatch.setenv("EBBFLOW_LOG__LEVEL", "error")
    assert load().config.log.level == "error"


@pytest.mark.parametrize(
    ("text", "value"),
    [("pid:1,port:80", ["pid:1", "port:80"]), ('["a,b"]', ["a,b"]), ("", []), (" a , ", ["a"])],
)
def test_load_list_from_text(text, value):
    assert load(environ={"EBBFLOW_CAPTURE__TARGETS": text}).config.capture.targets == value
    assert load(environ={}, flags={"capture.targets": text}).config.capture.targets == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("a=b=c,d=", {"a": "b=c", "d": ""}), ('{"a": "b"}', {"a": "b"}), ("a", {"a": ""})],
)
def test_load_map_from_text(text, value):
    assert load(environ={"EBBFLOW_OTLP__HEADERS": text}).config.otlp.headers == value


def test_load_map_from_file(tmp_path):
    (tmp_path / "ebbflow.toml").write_text('[otlp.headers]\nx-token = "t"\n')
    assert load(environ={}).config.otlp.headers == {"x-token": "t"}


def test_load_empty_text_unsets_a_path():
    assert load(environ={"EBBFLOW_KAFKA__SSL_CAFILE": ""}).config.kafka.ssl_cafile is None
    assert load(environ={"EBBFLOW_KAFKA__SSL_CAFILE": "/ca"}).config.kafka.ssl_cafile == Path("/ca")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"EBBFLOW_KAFKA__BOOTSTRP": "a:1"}, "kafka.bootstrp from EBBFLOW_KAFKA__BOOTSTRP: there is no such setting"),
        ({"EBBFLOW_KAFKA": "x"}, "kafka from EBBFLOW_KAFKA: there is no such setting"),
        (
            {"EBBFLOW_STORE__PORT": "0"},
            "store.port from EBBFLOW_STORE__PORT: Input should be greater than or equal to 1",
        ),
        ({"EBBFLOW_STORE__PORT": "x"}, "store.port from EBBFLOW_STORE__PORT: Input should be a valid integer"),
        ({"EBBFLOW_CAPTURE__RING_BYTES": "5000"}, "Input should be a power of two (it is '5000')"),
        ({"EBBFLOW_OTLP__TIMEOUT_S": "inf"}, "otlp.timeout_s from EBBFLOW_OTLP__TIMEOUT_S: Input should be a finite"),
        ({"EBBFLOW_CAPTURE__EXCLUDE_PORTS": "80,x"}, "capture.exclude_ports from EBBFLOW_CAPTURE__EXCLUDE_PORTS: "),
        ({"EBBFLOW_CAPTURE__TARGETS": "[oops"}, "Input should be a valid list (it is '[oops')"),
    ],
)
def test_load_what_is_wrong_is_named_with_its_source(environ, message):
    with pytest.raises(ConfigError) as caught:
        load(environ=environ)
    assert message in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("bootstrap", ["", "host", "host:", ":9092", "host:0", "host:65536", "a:1,", "host:x", "a:¹"])
def test_load_bootstrap_that_is_no_address_is_refused(bootstrap):
    with pytest.raises(ConfigError, match="Input should be host:port"):
        load(environ={}, flags={"kafka.bootstrap": bootstrap})


@pytest.mark.parametrize("bootstrap", ["a:1", "a:1, b:65535", "[::1]:9092"])
def test_load_bootstrap_address_is_kept_as_written(bootstrap):
    assert load(environ={}, flags={"kafka.bootstrap": bootstrap}).config.kafka.bootstrap == bootstrap


def test_load_misspelt_key_is_told_the_near_one():
    with pytest.raises(ConfigError) as caught:
        load(environ={}, flags={"kafka.bootstrp": "a:1"})
    assert caught.value.hint == "did you mean kafka.bootstrap?"


def test_load_key_like_nothing_points_to_the_documentation():
    with pytest.raises(ConfigError) as caught:
        load(environ={}, flags={"zzzzzz": "1"})
    assert "docs/configuration.md" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[kafka\n", "bad.toml: not TOML"),
        (b"\xff", "bad.toml: not TOML"),
        (b"kafka = 1\n", "kafka from bad.toml: settings stand in sections"),
        (b"[nothing]\nx = 1\n", "nothing.x from bad.toml: there is no such setting"),
        (b"[kafka]\nbootstrap = 1\n", "kafka.bootstrap from bad.toml: Input should be a valid string"),
    ],
)
def test_load_bad_file_is_named(tmp_path, content, message):
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(Path("bad.toml"), environ={})
    assert message in str(caught.value)


def test_load_file_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"gone\.toml: No such file or directory"):
        load(Path("gone.toml"), environ={})


@pytest.mark.parametrize("flags", [{"kafka.sasl_password": ["hunter2"]}, {"otlp.headers": '{"token": ["hunter2"]}'}])
def test_load_bad_secret_is_not_printed(flags):
    with pytest.raises(ConfigError) as caught:
        load(environ={}, flags=flags)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("kafka.sasl_password", "hunter2", "********"),
        ("kafka.sasl_password", "", ""),
        ("otlp.headers", "a=b", {"a": "********"}),
        ("kafka.sasl_username", "me", "me"),
    ],
)
def test_setting_shows_of_a_secret_only_that_it_is_set(key, value, shown):
    loaded = load(environ={}, flags={key: value})
    assert next(setting.shown for setting in loaded.settings() if setting.key == key) == shown


def test_settings_all_have_a_meaning():
    assert [setting.key for setting in load(environ={}).settings() if not setting.description] == []


@given(port=st.integers(), level=st.sampled_from(["debug", "info", "warning", "error"]))
def test_load_environment_and_flags_read_text_alike(port, level):
    sources = ({"EBBFLOW_STORE__PORT": str(port), "EBBFLOW_LOG__LEVEL": level}, {})
    flags = ({}, {"store.port": str(port), "log.level": level})
    results = []
    for environ, given_flags in zip(sources, flags, strict=True):
        try:
            results.append(load(environ=environ, flags=given_flags).config)
        except ConfigError:
            results.append(None)
    assert results[0] == results[1]
    assert (results[0] is not None) == (1 <= port <= 65535)
