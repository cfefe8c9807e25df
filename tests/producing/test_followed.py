"""Which processes are followed, with probes that are only noted."""

import os
from pathlib import Path

import pytest

from ebbflow.errors import ProbeNotFound
from ebbflow.producing.followed import Followed


class Probes:
    def __init__(self):
        self.held = []
        self.refuses = False

    def attach_uprobe(self, path, symbol, function, *, pid):
        if self.refuses:
            raise ProbeNotFound("no such function")
        self.held.append((pid, symbol, function))
        return self.held[-1]

    attach_uretprobe = attach_uprobe

    def detach(self, probe):
        self.held.remove(probe)


@pytest.fixture
def probes():
    return Probes()


def test_refresh_follows_a_process_by_every_function_of_its_allocator(probes):
    followed = Followed(probes, most=4)
    followed.refresh([os.getpid()])
    assert {(os.getpid(), "malloc", "memory_malloc"), (os.getpid(), "free", "memory_free")} <= set(probes.held)
    begun = followed.fresh[os.getpid()]
    assert begun.probes == len(probes.held)
    executable = (Path("/proc/self/maps")).read_text().splitlines()
    assert any(int(line.partition("-")[0], 16) in begun.addresses for line in executable)


def test_refresh_again_attaches_nothing_twice(probes):
    followed = Followed(probes, most=4)
    followed.refresh([os.getpid()])
    before = list(probes.held)
    followed.refresh([os.getpid()])
    assert probes.held == before


def test_refresh_process_that_is_no_longer_watched_is_let_go(probes):
    followed = Followed(probes, most=4)
    followed.refresh([os.getpid()])
    followed.refresh([])
    assert (probes.held, len(followed), followed.fresh) == ([], 0, {})


def test_refresh_more_than_may_be_followed_are_told(probes):
    followed = Followed(probes, most=0)
    followed.refresh([os.getpid()])
    assert (probes.held, followed.unfollowed) == ([], {os.getpid()})


def test_refresh_probe_that_cannot_be_attached_leaves_none_and_is_told(probes):
    probes.refuses = True
    followed = Followed(probes, most=4)
    followed.refresh([os.getpid()])
    assert (probes.held, followed.unfollowed) == ([], {os.getpid()})


def test_refresh_process_that_is_gone_is_passed_over(probes, tmp_path):
    followed = Followed(probes, most=4, proc=tmp_path)
    followed.refresh([7])
    assert (probes.held, len(followed), followed.unfollowed) == ([], 0, set())
