import numpy as np
import pytest

from ebbflow.errors import ConfigError
from ebbflow.feature_config import SyscallsConfig
from ebbflow.kernel.syscall_choices import choices, numbers_of
from ebbflow.kernel.syscall_names import NUMBERS

WATCH, MAY_WAIT, TEXT = 1, 2, 4


def test_choices_of_nothing_are_zero():
    assert not choices([], []).any()


def test_choices_watched_mount_has_three_strings():
    chosen = choices(["mount", "ptrace"], ["poll"])
    assert chosen[NUMBERS["mount"]] == WATCH | TEXT | TEXT << 1 | TEXT << 2
    assert chosen[NUMBERS["ptrace"]] == WATCH
    assert chosen[NUMBERS["poll"]] == MAY_WAIT
    assert np.count_nonzero(chosen) == 3


def test_choices_defaults_are_known_names():
    settings = SyscallsConfig()
    assert np.count_nonzero(choices(settings.watch, settings.slow_except)) == (
        len(set(settings.watch) | set(settings.slow_except))
    )


@pytest.mark.parametrize(("watch", "slow_except", "setting"), [(["ptrac"], [], "watch"), ([], ["pol"], "slow_except")])
def test_choices_unknown_name_is_told_with_what_is_near(watch, slow_except, setting):
    with pytest.raises(ConfigError, match=f"syscalls.{setting}: there is no system call") as caught:
        choices(watch, slow_except)
    assert {"watch": "ptrace", "slow_except": "poll"}[setting] in caught.value.hint


def test_numbers_of_names_keep_their_order():
    assert numbers_of(["write", "read"], "x") == [1, 0]
