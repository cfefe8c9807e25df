from __future__ import annotations

from ebbflow.run.history import MAX_ENDS, Event, History, State


def state(kind="RUNNING", pid=1, **values):
    return {"sink": State(name="sink", state=kind, pid=pid, **values)}


def test_observe_first_look_says_nothing():
    assert History().observe(state(), 0) == []


def test_observe_unchanged_says_nothing():
    history = History()
    history.observe(state("STARTING"), 0)
    assert history.observe(state("RUNNING"), 1) == []


def test_observe_other_pid_was_started_again():
    history = History()
    history.observe(state(pid=1), 0)
    assert history.observe(state("STARTING", 2), 1) == [Event("sink", "ended, started again (pid 2)", ended=True)]


def test_observe_down_then_up_says_both_once():
    history = History()
    history.observe(state(pid=1), 0)
    ended = history.observe(state("BACKOFF", 0, exit_status=2), 1)
    assert ended == [Event("sink", "ended with status 2, is started again", ended=True)]
    assert history.observe(state("STARTING", 2), 2) == []
    assert history.observe(state("RUNNING", 2), 3) == [Event("sink", "runs again (pid 2)")]
    assert history.observe(state("RUNNING", 2), 4) == []


def test_observe_end_by_signal_was_killed():
    history = History()
    history.observe(state(pid=1), 0)
    assert history.observe(state("EXITED", 0, exit_status=-1), 1)[0].text == "was killed, is started again"
    assert State(name="x", state="BACKOFF").end == "ended"


def test_observe_fatal_gives_up():
    history = History()
    history.observe(state("BACKOFF", 0, exit_status=2), 0)
    (event,) = history.observe(state("FATAL", 0, exit_status=2), 1)
    assert event == Event("sink", "cannot be kept running: it ended with status 2", ended=True, gives_up=True)
    assert history.observe(state("FATAL", 0, exit_status=2), 2) == []


def test_observe_too_many_ends_in_the_window_gives_up():
    history = History()
    events = [event for pid in range(1, MAX_ENDS + 2) for event in history.observe(state(pid=pid), pid)]
    assert [event.gives_up for event in events] == [False] * (MAX_ENDS - 1) + [True]
    assert events[-1].text == "ended 5 times in 60 s"


def test_observe_as_many_ends_over_a_long_time_goes_on():
    history = History()
    events = [event for pid in range(1, 30) for event in history.observe(state(pid=pid), 20 * pid)]
    assert len(events) == 28
    assert not any(event.gives_up for event in events)


def test_is_up_only_while_starting_or_running():
    kinds = ["STOPPED", "STARTING", "RUNNING", "BACKOFF", "STOPPING", "EXITED", "FATAL", "UNKNOWN"]
    assert [kind for kind in kinds if State(name="x", state=kind).is_up] == ["STARTING", "RUNNING"]
