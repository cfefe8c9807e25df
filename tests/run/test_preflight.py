from __future__ import annotations

import socket

import pytest
from run_fakes import make_plan

from ebbflow.broker import free_port
from ebbflow.doctor.check import fail, ok
from ebbflow.errors import DependencyError, PermissionDenied
from ebbflow.run import preflight


@pytest.fixture
def ports(monkeypatch):
    monkeypatch.setattr(preflight.os, "geteuid", lambda: 0)
    return {"kafka.bootstrap": f"127.0.0.1:{free_port()}", "store.port": free_port()}


def test_require_rights_and_ports_all_free_passes(tmp_path, ports):
    preflight.require_rights_and_ports(make_plan(tmp_path, flags=ports))


def test_require_rights_and_ports_not_root_is_denied(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight.os, "geteuid", lambda: 1000)
    with pytest.raises(PermissionDenied, match="root"):
        preflight.require_rights_and_ports(make_plan(tmp_path))


def test_require_rights_and_ports_store_port_taken_says_by_whom(tmp_path, ports):
    with socket.create_server(("127.0.0.1", ports["store.port"])):
        with pytest.raises(
            DependencyError, match=f"store cannot start: port {ports['store.port']} is taken by"
        ) as caught:
            preflight.require_rights_and_ports(make_plan(tmp_path, flags=ports))
        assert "store.port" in caught.value.hint
        preflight.require_rights_and_ports(make_plan(tmp_path, flags=ports, runs_store=False))


def test_require_rights_and_ports_kafka_port_taken_by_another_run(tmp_path, ports, monkeypatch):
    port = int(ports["kafka.bootstrap"].rpartition(":")[2])
    monkeypatch.setattr(preflight.machine, "port", lambda *_: ok("port.kafka", f"{port} is held by ebbflow itself"))
    with pytest.raises(DependencyError, match=r"kafka cannot start: port .* held by ebbflow") as caught:
        preflight.require_rights_and_ports(make_plan(tmp_path, flags=ports))
    assert "ebbflow down" in caught.value.hint


def test_require_machine_all_well_passes(tmp_path, monkeypatch):
    blocked = fail("port.store", "taken", needed=True, hint="")  # ours by now
    monkeypatch.setattr(preflight, "examine", lambda config, programs: [ok("btf", "fine", needed=True), blocked])
    preflight.require_machine(make_plan(tmp_path).config)


def test_require_machine_tells_the_first_and_counts_the_rest(tmp_path, monkeypatch):
    checks = [fail(name, "none", needed=True, hint=f"mend {name}") for name in ("btf", "tracefs", "java")]
    monkeypatch.setattr(preflight, "examine", lambda config, programs: checks)
    with pytest.raises(DependencyError, match=r"btf: none \(and 2 more: `ebbflow doctor`\)") as caught:
        preflight.require_machine(make_plan(tmp_path).config)
    assert caught.value.hint == "mend btf"
