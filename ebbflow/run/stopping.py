"""Stops all parts of a run: in order, and in time."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from ebbflow.errors import EbbflowError
from ebbflow.run.orphans import end_orphans
from ebbflow.run.parts import stop_phases
from ebbflow.run.supervision import Supervisor

STOP_S = 5.0
_POLL_S = 0.03
# Kept free of that time: for each later phase, and for the process manager itself.
_PHASE_RESERVE_S, _LAST_RESERVE_S = 0.4, 0.6
_ENDED = frozenset({"STOPPED", "EXITED", "FATAL", "UNKNOWN"})


def stop(supervisor: Supervisor, timeout_s: float = STOP_S) -> None:
    """SIGTERM to what feeds before what is fed, SIGKILL to what is late; then nothing is left, leftovers included."""
    deadline_s = time.monotonic() + timeout_s - _LAST_RESERVE_S
    with suppress(EbbflowError, OSError):
        phases = stop_phases(supervisor.states())
        for number, names in enumerate(phases, 1):
            stop_phase(supervisor, names, deadline_s - (len(phases) - number) * _PHASE_RESERVE_S)
    supervisor.shutdown(_LAST_RESERVE_S)
    end_orphans(os.getpid())


def stop_phase(supervisor: Supervisor, names: list[str], deadline_s: float) -> None:
    """Stop these together; `deadline_s` is on the monotonic clock."""
    for name in names:
        supervisor.ask_to_stop(name)
    while running := _running(supervisor, names):
        if time.monotonic() > deadline_s:
            for name in running:
                supervisor.kill(name)
            return
        time.sleep(_POLL_S)


def _running(supervisor: Supervisor, names: list[str]) -> list[str]:
    states = supervisor.states()
    return [name for name in names if states[name].state not in _ENDED]
