from pathlib import Path

import pytest

from ebbflow.kernel import spent
from ebbflow.kernel.loader import Program
from ebbflow.kernel.objects import statistics

SWAPPED = Path(__file__).with_name("swapped.c")


@pytest.mark.bpf
def test_measured_time_rises_with_the_runs_and_is_none_unmeasured(monkeypatch):
    program = Program(SWAPPED, {"FIRST_PID": 1, "SECOND_PID": 1})
    try:
        program.probes.attach_raw_tracepoint("sys_enter", "on_call")
        monkeypatch.setattr(spent, "always_counting", lambda: True)
        with statistics():
            before = spent.measured_time_ns(program)
            Path("/proc/self/stat").read_text()
            after = spent.measured_time_ns(program)
        assert 0 <= before < after
        monkeypatch.setattr(spent, "always_counting", lambda: False)
        assert spent.measured_time_ns(program) is None
    finally:
        program.close()
