from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

import pytest
from run_fakes import make_plan

from ebbflow.config import load
from ebbflow.run.parts import RANKS, Part, as_environment, derived_settings, make_parts, stop_phases


def names(plan):
    return [part.name for part in make_parts(plan)]


def test_make_parts_without_targets_has_the_demo(tmp_path):
    expected = ["kafka", "store", "processor", "sink", "producer", "shop", "nginx", "load"]
    assert names(make_plan(tmp_path)) == expected


def test_make_parts_with_targets_has_no_demo(tmp_path):
    plan = make_plan(tmp_path, demo=False, flags={"capture.targets": "port:8080"})
    assert names(plan) == ["kafka", "store", "processor", "sink", "producer"]


def test_make_parts_with_kafka_and_backend_elsewhere_runs_neither(tmp_path):
    plan = make_plan(tmp_path, demo=False, runs_kafka=False, runs_store=False)
    assert names(plan) == ["processor", "sink", "producer"]


def test_make_parts_demo_producer_reads_pids_when_it_starts(tmp_path):
    producer = next(part for part in make_parts(make_plan(tmp_path)) if part.name == "producer")
    assert producer.command[:2] == ("sh", "-c")
    assert producer.command[2].endswith('produce "$@" --pid "$(cat "$shop")" --pid "$(cat "$nginx")"')
    assert producer.command[3:] == (
        sys.executable,
        str(tmp_path / "demo/nginx.pid"),
        str(tmp_path / "demo/shop.pid"),
        "sockets",
    )


def test_make_parts_marks_ours_and_never_the_demo(tmp_path):
    marked = {part.name for part in make_parts(make_plan(tmp_path)) if f"EBBFLOW_COMPONENT={part.name}" in part.argv}
    assert marked == {"kafka", "store", "processor", "sink", "producer"}


def test_argv_of_foreign_part_takes_the_mark_away():
    argv = Part(name="nginx", command=("nginx",), ours=False).argv
    assert argv == [
        "setpriv",
        "--pdeathsig",
        "TERM",
        "env",
        "-u",
        "EBBFLOW_COMPONENT",
        "-u",
        "SUPERVISOR_ENABLED",
        "nginx",
    ]


def test_stop_phases_all_parts_stop_what_feeds_first(tmp_path):
    assert stop_phases(names(make_plan(tmp_path))) == [
        ["load"],
        ["shop", "nginx"],
        ["producer"],
        ["processor", "sink"],
        ["kafka", "store"],
    ]


def test_stop_phases_nothing_gives_nothing():
    assert stop_phases([]) == []


def test_ranks_cover_every_part(tmp_path):
    assert set(RANKS) == set(names(make_plan(tmp_path)))


def test_derived_settings_nothing_set_makes_ports_and_path(tmp_path):
    numbers = count(7001)
    derived = derived_settings(load(environ={}), tmp_path, lambda: next(numbers))
    assert derived == {
        "store.path": str(tmp_path / "store.duckdb"),
        "health.producer_port": 7001,
        "health.processor_port": 7002,
        "health.sink_port": 7003,
        "capture.exclude_ports": [7001, 7002, 7003],
    }


def test_derived_settings_keep_what_the_user_set(tmp_path):
    flags = {"store.path": "/x/y", "health.sink_port": "9100", "capture.exclude_ports": "5432"}
    numbers = count(7001)
    derived = derived_settings(load(environ={}, flags=flags), tmp_path, lambda: next(numbers))
    assert "store.path" not in derived
    assert "health.sink_port" not in derived
    assert derived["capture.exclude_ports"] == [5432, 7001, 7002, 9100]


def test_as_environment_is_read_back_as_the_same_settings(tmp_path):
    settings = {
        "store.port": 14400,
        "capture.targets": "port:8080,exe:nginx",
        "capture.exclude_ports": [1, 2],
        "otlp.headers": {"authorization": "Bearer a=b,c"},
    }
    config = load(environ=as_environment(settings)).config
    assert config.store.port == 14400
    assert config.capture.targets == ["port:8080", "exe:nginx"]
    assert config.capture.exclude_ports == [1, 2]
    assert config.otlp.headers == {"authorization": "Bearer a=b,c"}


@pytest.mark.parametrize("name", ["ours.toml", "a folder/ours.toml"])
def test_as_environment_config_file_is_absolute(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert as_environment({}, Path(name)) == {"EBBFLOW_CONFIG": str(tmp_path / name)}
