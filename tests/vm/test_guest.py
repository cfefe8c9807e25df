"""The guest's runner with jobs that end in every way there is."""

from __future__ import annotations

import os
import signal
import time

import pytest
from vm import guest
from vm.guest import Job
from vm.results import Check


@pytest.fixture
def outcomes():
    """Run jobs; what each check was told, by name."""

    def run(*jobs: Job, at_a_time: int = 2) -> dict[str, tuple[str, str]]:
        told: list[Check] = []
        guest.run(list(jobs), at_a_time, told.append)
        return {check.name: (check.status, check.detail) for check in told}

    return run


def fine(name: str):
    return lambda: [Check("feature", name, "ok", "23")]


def crash():
    os.kill(os.getpid(), signal.SIGKILL)


def refuse():
    raise ValueError("no such thing")


def hang():
    time.sleep(60)


def test_run_tells_all_checks_of_all_jobs(outcomes):
    many = Job("mechanism", "all", lambda: [Check("mechanism", f"m{number}", "ok", "x" * 9000) for number in range(11)])
    assert len(outcomes(many, Job("feature", "a", fine("a")), at_a_time=1)) == 12


@pytest.mark.parametrize(("run", "detail"), [(crash, "ended by signal 9"), (refuse, "ValueError: no such thing")])
def test_job_that_fails_fails_alone(outcomes, run, detail):
    told = outcomes(Job("feature", "bad", run), Job("feature", "good", fine("good")), at_a_time=1)
    assert told == {"bad": ("failed", detail), "good": ("ok", "23")}


def test_job_that_hangs_is_ended(outcomes, monkeypatch):
    monkeypatch.setattr(guest, "TIMEOUT_S", 0.05)
    assert outcomes(Job("feature", "bad", hang)) == {"bad": ("failed", "no answer in 0.05 s")}


def test_jobs_can_be_chosen_by_group_or_name():
    assert [job.name for job in guest.jobs(["kprobe", "sockets"])] == ["sockets"]
    assert guest.early_jobs(["sockets"]) == []
    (tries,) = guest.early_jobs(["kprobe"])
    assert tries.run.args == (["kprobe"],)
