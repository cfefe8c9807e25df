from __future__ import annotations

import time

from run_fakes import FakeSupervisor

from ebbflow.errors import DependencyError
from ebbflow.run import stopping

PARTS = ("kafka", "store", "processor", "sink", "producer", "nginx", "shop", "load")


def running(tmp_path, **options):
    supervisor = FakeSupervisor(tmp_path, **options)
    for name in PARTS:
        supervisor.set(name, "RUNNING", pid=1)
    return supervisor


def test_stop_goes_from_what_feeds_to_what_is_fed(tmp_path):
    supervisor = running(tmp_path)
    stopping.stop(supervisor)
    expected = ["load", "nginx", "shop", "producer", "processor", "sink", "kafka", "store"]
    assert supervisor.named("stop") == expected
    assert supervisor.named("kill") == []
    assert supervisor.calls[-1] == ("shutdown",)


def test_stop_late_part_is_killed_and_others_keep_their_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "_POLL_S", 0.001)
    supervisor = running(tmp_path, stubborn=("producer",))
    begun_s = time.monotonic()
    stopping.stop(supervisor, timeout_s=1.5)
    assert supervisor.named("kill") == ["producer"]
    assert supervisor.named("stop")[-1] == "store"
    assert time.monotonic() - begun_s < 1.5


def test_stop_process_manager_gone_still_cleans_up(tmp_path):
    supervisor = running(tmp_path)

    def gone():
        raise DependencyError("gone")

    supervisor.on_states = gone
    stopping.stop(supervisor)
    assert supervisor.calls == [("shutdown",)]
