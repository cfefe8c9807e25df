"""What changes of the parts' states mean: a line for people, and when to give up.

The process manager starts a part again at once when it had been running, and after 1, 2, 3, … seconds when it ends
again and again right after its start; then it gives up. A part that lives a little longer each time is given up here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

# Ends of one part within this time that are too many.
MAX_ENDS = 5
WINDOW_S = 60.0
UP = frozenset({"STARTING", "RUNNING"})


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A part as the process manager sees it.

    Attributes:
        state: STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL or UNKNOWN.
        pid: 0 where it does not run.
        exit_status: of its last end; -1 after a signal; 0 also where it is not told, after an end in the first seconds.
        spawn_error: why it could not even be started.
    """

    name: str
    state: str
    pid: int = 0
    exit_status: int = 0
    spawn_error: str = ""

    @property
    def is_up(self) -> bool:
        return self.state in UP

    @property
    def end(self) -> str:
        """How it ended, as a clause."""
        if self.exit_status < 0:
            return "was killed"
        return f"ended with status {self.exit_status}" if self.exit_status else "ended"


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a part."""

    name: str
    text: str
    ended: bool = False
    gives_up: bool = False


@dataclass(slots=True)
class _Known:
    state: State
    is_missed: bool = False
    ends_s: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_ENDS))


class History:
    """Remembers every part's last state."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def observe(self, states: Mapping[str, State], now_s: float) -> list[Event]:
        """What happened since the last look, in the order of the parts."""
        events = []
        for name, state in states.items():
            known = self._known.setdefault(name, _Known(state))
            event = _compare(known, state, now_s)
            known.state = state
            if event is not None:
                events.append(event)
        return events


def _compare(known: _Known, now: State, now_s: float) -> Event | None:
    before = known.state
    if now.state == "FATAL" and before.state != "FATAL":
        return Event(now.name, f"cannot be kept running: it {now.end}", ended=True, gives_up=True)
    if before.pid and before.pid != now.pid:
        known.ends_s.append(now_s)
        return _ended(known, now, now_s)
    if known.is_missed and now.state == "RUNNING":
        known.is_missed = False
        return Event(now.name, f"runs again (pid {now.pid})")
    return None


def _ended(known: _Known, now: State, now_s: float) -> Event:
    if len(known.ends_s) == MAX_ENDS and now_s - known.ends_s[0] < WINDOW_S:
        return Event(now.name, f"ended {MAX_ENDS} times in {WINDOW_S:g} s", ended=True, gives_up=True)
    if now.is_up and not known.is_missed:
        return Event(now.name, f"ended, started again (pid {now.pid})", ended=True)
    known.is_missed = True
    return Event(now.name, f"{now.end}, is started again", ended=True)
