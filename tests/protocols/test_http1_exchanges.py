from __future__ import annotations

from ebbflow.protocols.http1_exchanges import MAX_WAITING, Exchanges
from ebbflow.protocols.http1_heads import Heads
from ebbflow.protocols.http1_messages import Exchange, Tally

OK = b"HTTP/1.1 200 OK\r\n\r\n"


class Pairing(Exchanges):
    """Exchanges that keep what they finish and count where the test can see it."""

    __slots__ = ("done", "tally")

    def __init__(self, *, half_seen: bool = False) -> None:
        self.done: list[Exchange] = []
        self.tally = Tally()
        super().__init__(Heads(), self.tally, self.done, half_seen=half_seen)

    def request(self, number: int, time_ns: int) -> None:
        self.ask(b"GET /%d HTTP/1.1\r\n\r\n" % number, time_ns, number)

    def response(self, time_ns: int) -> None:
        self.answer(OK, time_ns, time_ns)
        self.answered(time_ns, -1)

    @property
    def said(self) -> list[tuple[bytes | None, bool, str]]:
        """Target, whether there is a response, what is missing."""
        return [
            (one.request.known.head.target if one.request else None, one.response is not None, one.incomplete)
            for one in self.done
        ]


def test_exchanges_lost_on_both_sides_are_counted_once_in_any_order() -> None:
    requests_first, responses_first = Pairing(), Pairing()
    requests_first.lose_requests(5, 10)
    requests_first.lose_responses(5, 11)
    responses_first.lose_responses(5, 11)
    responses_first.lose_requests(3, 10)
    responses_first.lose_requests(2, 12)
    assert requests_first.tally.lost_exchanges == responses_first.tally.lost_exchanges == 5
    assert requests_first.quiet
    assert responses_first.quiet


def test_exchanges_huge_loss_costs_nothing() -> None:
    pairing = Pairing()
    pairing.lose_requests(1 << 32, 10)
    pairing.lose_responses(1 << 32, 11)
    assert (pairing.tally.lost_exchanges, len(pairing.requests), len(pairing.responses)) == (1 << 32, 0, 0)


def test_exchanges_lost_responses_wait_for_their_request() -> None:
    pairing = Pairing()
    pairing.lose_responses(1, 20)
    pairing.request(1, 10)
    assert pairing.said == [(b"/1", False, "data_lost")]


def test_exchanges_lost_responses_do_not_answer_what_came_later() -> None:
    pairing = Pairing()
    pairing.lose_responses(1, 20)
    pairing.request(1, 30)
    pairing.response(40)
    assert pairing.said == [(b"/1", True, "")]


def test_exchanges_too_many_lost_requests_are_forgotten_on_pipelined_connections() -> None:
    pairing = Pairing()
    pairing.request(1, 10)
    pairing.request(2, 10)
    assert pairing.pipelined
    pairing.lose_requests(1, 11)
    pairing.request(3, 12)
    for time_ns in (20, 21, 22, 23):
        pairing.response(time_ns)
    assert pairing.said[2:] == [(None, True, "data_lost"), (b"/3", True, "")]


def test_exchanges_lost_requests_in_front_are_settled_when_a_later_one_is_answered() -> None:
    pairing = Pairing()
    pairing.lose_requests(2, 5)
    pairing.request(3, 10)
    pairing.response(20)
    assert pairing.said == [(b"/3", True, "")]
    assert pairing.tally.lost_exchanges == 2


def test_exchanges_waiting_queue_is_bounded_with_losses_in_it() -> None:
    pairing = Pairing()
    pairing.lose_requests(4, 1)
    for number in range(MAX_WAITING):
        pairing.request(number, 2 + number)
    assert (len(pairing.requests), pairing.tally.lost_exchanges, pairing.said) == (MAX_WAITING, 4, [])


def test_exchanges_aborted_counts_lost_ones_and_breaks_off_the_rest() -> None:
    pairing = Pairing()
    pairing.lose_requests(2, 5)
    pairing.request(1, 10)
    pairing.abort("connection_closed", 99, 0)
    assert pairing.said == [(b"/1", False, "connection_closed")]
    assert pairing.tally.lost_exchanges == 2


def test_exchanges_aborted_response_whose_request_was_lost_is_incomplete() -> None:
    pairing = Pairing()
    pairing.answer(OK, 10, 0)
    pairing.request_gap = True
    pairing.abort("connection_closed", 99, 0)
    assert pairing.said == [(None, True, "data_lost")]


def test_exchanges_body_size_reaches_the_request_being_answered() -> None:
    pairing = Pairing()
    pairing.ask(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 1, 0)
    pairing.answer(OK, 2, 0)
    pairing.asked(77)
    pairing.answered(3, -1)
    (one,) = pairing.done
    assert one.request is not None
    assert one.request.body_bytes == 77


def test_exchanges_restored_with_an_unmatched_response_in_progress_match_it_later() -> None:
    pairing, copy = Pairing(half_seen=True), Pairing()
    pairing.answer(OK, 10, 0)
    copy.restore(pairing.state())
    assert copy.state() == pairing.state()
    copy.gapped = False
    copy.request(1, 5)
    copy.answered(11, -1)
    assert copy.said == [(b"/1", True, "")]


def test_exchanges_restored_with_a_matched_response_in_progress_finish_it() -> None:
    pairing, copy = Pairing(), Pairing()
    pairing.request(1, 5)
    pairing.answer(OK, 10, 0)
    copy.restore(pairing.state())
    copy.answered(11, -1)
    assert copy.said == [(b"/1", True, "")]
