from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebbflow.otlp.export.backoff import Backoff


class Middle(Random):
    """No jitter: the middle of every interval."""

    def random(self) -> float:
        return 0.5


def test_delay_grows_by_half_up_to_the_last():
    backoff = Backoff(Middle(), first_s=1.0, last_s=4.0)
    assert [backoff.delay_s() for _ in range(6)] == [1.0, 1.5, 2.25, 3.375, 4.0, 4.0]


def test_delay_asked_for_is_kept_and_the_backoff_goes_on_from_there():
    backoff = Backoff(Middle(), first_s=1.0, last_s=30.0)
    assert [backoff.delay_s(4.0), backoff.delay_s(), backoff.delay_s()] == pytest.approx([4.2, 6.0, 9.0])


def test_delay_asked_for_longer_than_the_last_is_kept_and_the_backoff_is_not():
    backoff = Backoff(Middle(), first_s=1.0, last_s=30.0)
    assert [backoff.delay_s(300.0), backoff.delay_s()] == pytest.approx([315.0, 30.0])


def test_delay_asked_for_shorter_than_the_backoff_does_not_shorten_it():
    backoff = Backoff(Middle(), first_s=8.0)
    assert backoff.delay_s(1.0) == 8.0


@settings(max_examples=40)
@given(seed=st.integers(), asked=st.lists(st.none() | st.floats(0, 3600), max_size=20))
def test_delay_is_never_shorter_than_asked_nor_out_of_bounds(seed, asked):
    backoff = Backoff(Random(seed), first_s=0.5, last_s=30.0)
    for asked_s in asked:
        delay_s = backoff.delay_s(asked_s)
        assert (asked_s or 0.0) <= delay_s <= max(45.0, 1.1 * (asked_s or 0.0))
        assert delay_s >= 0.25


def test_delays_of_two_clients_differ():
    delays = {Backoff(Random(seed)).delay_s() for seed in range(50)}
    assert len(delays) == 50
    assert all(0.25 <= delay_s <= 0.75 for delay_s in delays)
