from __future__ import annotations

import pytest

from ebbflow.protocols.http1_connection import MAX_FRUITLESS_EVENTS, RECEIVE, SEND, Connection
from ebbflow.protocols.http1_exchanges import MAX_WAITING
from ebbflow.protocols.http1_heads import Heads
from ebbflow.protocols.http1_messages import Exchange, Tally
from ebbflow.protocols.stream import Segment

GET = b"GET /%d HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLIENT, SERVER = SEND, RECEIVE


class Talk:
    """A connection and the counting that the kernel does; `skip` loses an event."""

    def __init__(self, request_direction: int | None = SERVER, *, aligned: bool = True) -> None:
        self.tally = Tally()
        self.finished: list[Exchange] = []
        self.connection = Connection(
            request_direction, aligned=aligned, heads=Heads(), tally=self.tally, finished=self.finished
        )
        self.requests = SERVER if request_direction is None else request_direction
        self.now_ns = 100
        self.moved, self.counts = [0, 0], [0, 0]

    def move(self, direction: int, data: bytes, *, lost: bool = False, seen: int | None = None) -> Segment:
        self.now_ns += 1
        segment = Segment(self.now_ns, self.moved[direction], len(data), self.counts[direction], data[:seen])
        self.moved[direction] += len(data)
        self.counts[direction] += 1
        if not lost:
            self.connection.data(direction, segment)
        return segment

    def ask(self, data: bytes, **how) -> Segment:
        return self.move(self.requests, data, **how)

    def answer(self, data: bytes, **how) -> Segment:
        return self.move(1 - self.requests, data, **how)

    def close(self, *, totals: bool = True) -> None:
        self.now_ns += 1
        moved = tuple((self.moved[side], self.counts[side]) for side in (0, 1))
        self.connection.closed("connection_closed", self.now_ns, moved if totals else None)  # type: ignore[arg-type]

    @property
    def said(self) -> list[tuple[bytes | None, int | None, str]]:
        """Target, status and what is missing of each exchange."""
        return [
            (
                exchange.request.known.head.target if exchange.request else None,
                exchange.response.known.head.status if exchange.response else None,
                exchange.incomplete,
            )
            for exchange in self.finished
        ]


def test_connection_keep_alive_pairs_in_order() -> None:
    talk = Talk()
    for number in range(3):
        talk.ask(GET % number)
        talk.answer(OK)
    assert talk.said == [(b"/%d" % number, 200, "") for number in range(3)]
    assert not talk.connection.is_open


def test_connection_pipelined_requests_pair_first_in_first_out() -> None:
    talk = Talk()
    talk.ask(b"".join(GET % number for number in range(3)))
    talk.answer(OK.replace(b"200", b"201"))
    talk.answer(OK.replace(b"200", b"202") + OK.replace(b"200", b"203"))
    assert talk.said == [(b"/0", 201, ""), (b"/1", 202, ""), (b"/2", 203, "")]


def test_connection_head_response_has_no_body() -> None:
    talk = Talk()
    talk.ask(b"HEAD /h HTTP/1.1\r\n\r\n" + GET % 1)
    talk.answer(OK[:-2] + OK)
    assert talk.said == [(b"/h", 200, ""), (b"/1", 200, "")]


def test_connection_continue_is_not_the_answer() -> None:
    talk = Talk()
    talk.ask(b"POST /p HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    talk.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
    talk.ask(b"body")
    talk.answer(OK)
    assert talk.said == [(b"/p", 200, "")]


def test_connection_chunked_bodies_have_their_decoded_size() -> None:
    talk = Talk()
    talk.ask(b"POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    talk.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x\r\nab")
    talk.answer(b"cd\r\n0\r\nT: 1\r\n\r\n")
    (exchange,) = talk.finished
    assert exchange.request is not None
    assert exchange.response is not None
    assert (exchange.request.body_bytes, exchange.response.body_bytes) == (3, 4)


def test_connection_connect_tunnel_is_opaque_after_its_exchange() -> None:
    talk = Talk(CLIENT)
    talk.ask(b"CONNECT a:443 HTTP/1.1\r\n\r\n")
    talk.answer(b"HTTP/1.1 200 OK\r\n\r\n")
    talk.ask(GET % 1)
    assert talk.said == [(b"a:443", 200, "")]
    assert (talk.tally.tunnels, talk.tally.opaque_events) == (1, 1)


def test_connection_refused_connect_goes_on_as_http() -> None:
    talk = Talk(CLIENT)
    talk.ask(b"CONNECT a:443 HTTP/1.1\r\n\r\n")
    talk.answer(b"HTTP/1.1 407 Auth\r\nContent-Length: 0\r\n\r\n")
    talk.ask(GET % 1)
    talk.answer(OK)
    assert talk.said == [(b"a:443", 407, ""), (b"/1", 200, "")]


def test_connection_body_until_close_ends_with_the_servers_close() -> None:
    talk = Talk()
    talk.ask(b"GET /c HTTP/1.0\r\n\r\n")
    talk.answer(b"HTTP/1.0 200 OK\r\n\r\nabc")
    assert talk.said == []
    talk.close()
    assert talk.said == [(b"/c", 200, "")]


def test_connection_body_until_close_ends_for_a_client_with_eof_only() -> None:
    by_eof, by_close = Talk(CLIENT), Talk(CLIENT)
    for talk in (by_eof, by_close):
        talk.ask(b"GET /c HTTP/1.0\r\n\r\n")
        talk.answer(b"HTTP/1.0 200 OK\r\n\r\nabc")
    by_eof.connection.ended(RECEIVE, *(by_eof.moved[0], by_eof.counts[0]), 200)
    by_close.close()
    assert (by_eof.said, by_close.said) == ([(b"/c", 200, "")], [(b"/c", 200, "connection_closed")])


def test_connection_end_of_requests_leaves_answers_to_come() -> None:
    talk = Talk()
    talk.ask(GET % 1)
    talk.connection.ended(RECEIVE, talk.moved[0], talk.counts[0], 200)
    talk.answer(OK)
    assert talk.said == [(b"/1", 200, "")]


def test_connection_role_unknown_is_decided_by_the_first_start_line() -> None:
    by_request, by_response = Talk(None), Talk(None, aligned=False)
    by_request.move(SEND, GET % 1)
    by_request.move(RECEIVE, OK)
    by_response.move(SEND, OK)
    by_response.move(RECEIVE, GET % 1)
    by_response.move(SEND, OK)
    assert (by_request.connection.is_server, by_response.connection.is_server) == (False, True)
    assert by_request.said == by_response.said == [(b"/1", 200, "")]
    assert by_response.tally.orphan_responses == 1


def test_connection_role_unknown_other_protocol_is_opaque() -> None:
    talk = Talk(None)
    talk.move(SEND, b"\x00\x01")
    assert (talk.connection.opaque, talk.tally.not_http) == (True, 1)


def test_connection_role_unknown_gap_and_close_say_nothing() -> None:
    talk = Talk(None)
    talk.move(SEND, GET % 1, lost=True)
    talk.move(SEND, b"", seen=0)
    talk.close()
    assert talk.said == []


def test_connection_without_any_head_becomes_opaque() -> None:
    for talk in (Talk(aligned=False), Talk(None, aligned=False)):
        for _ in range(MAX_FRUITLESS_EVENTS + 1):
            talk.ask(b"body")
        assert (talk.tally.not_http, talk.tally.opaque_events) == (1, 1)


def test_connection_event_put_back_in_order_is_not_lost() -> None:
    talk = Talk()
    first = talk.ask(b"GET /1 HTTP/1.1\r\n", lost=True)
    talk.ask(b"Host: a\r\n\r\n")
    talk.answer(OK)
    assert talk.said == []
    talk.connection.data(RECEIVE, first)
    assert talk.said == [(b"/1", 200, "")]
    assert talk.tally == Tally()


def test_connection_response_before_its_request_waits_for_it() -> None:
    talk = Talk()
    request = talk.ask(GET % 1, lost=True)
    talk.answer(OK)
    talk.connection.data(RECEIVE, request)
    assert talk.said == [(b"/1", 200, "")]


def test_connection_lost_request_leaves_an_incomplete_response() -> None:
    talk = Talk()
    for number in range(3):
        talk.ask(GET % number, lost=number == 1)
        talk.answer(OK.replace(b"200", b"20%d" % number))
    talk.connection.release()
    assert talk.said == [(b"/0", 200, ""), (None, 201, "data_lost"), (b"/2", 202, "")]
    assert (talk.tally.lost_events, talk.tally.lost_exchanges) == (1, 0)


def test_connection_lost_response_leaves_an_incomplete_request() -> None:
    talk = Talk()
    for number in range(3):
        talk.ask(GET % number)
        talk.answer(OK.replace(b"200", b"20%d" % number), lost=number == 1)
    talk.connection.release()
    assert talk.said == [(b"/0", 200, ""), (b"/1", None, "data_lost"), (b"/2", 202, "")]


def test_connection_lost_exchange_is_counted() -> None:
    talk = Talk()
    for number in range(4):
        talk.ask(GET % number, lost=number in {1, 2})
        talk.answer(OK, lost=number in {1, 2})
    talk.connection.release()
    assert talk.said == [(b"/0", 200, ""), (b"/3", 200, "")]
    assert talk.tally.lost_exchanges == 2


def test_connection_loss_at_the_end_is_told_by_totals() -> None:
    talk = Talk()
    talk.ask(GET % 0)
    talk.answer(OK)
    for number in (1, 2):
        talk.ask(GET % number, lost=number == 2)
        talk.answer(OK, lost=True)
    talk.close()
    assert talk.said == [(b"/0", 200, ""), (b"/1", None, "data_lost")]
    assert talk.tally.lost_exchanges == 1


def test_connection_messages_of_many_events_realign_after_a_loss() -> None:
    talk = Talk()
    for number in range(12):
        talk.ask(GET % number)
        talk.answer(b"HTTP/1.1 %d OK\r\nContent-Length: 4\r\n\r\n" % (200 + number), lost=number in {5, 6, 9})
        talk.answer(b"ab")
        talk.answer(b"cd")
    talk.close()
    assert [target for target, _, missing in talk.said if missing] == [b"/5", b"/6", b"/9"]
    assert all(target == b"/%d" % (status - 200) for target, status, missing in talk.said if not missing)


def test_connection_unsolicited_response_is_an_orphan() -> None:
    talk = Talk()
    talk.answer(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
    talk.ask(GET % 1)
    talk.answer(OK)
    talk.close()
    assert talk.said == [(b"/1", 200, "")]
    assert talk.tally.orphan_responses == 1


def test_connection_response_stamped_before_its_servers_request_is_an_orphan() -> None:
    talk = Talk()
    talk.ask(GET % 1)
    talk.connection.data(SEND, Segment(1, 0, len(OK), 0, OK))
    assert (talk.said, talk.tally.orphan_responses) == ([], 1)


def test_connection_cut_off_response_ends_when_the_next_request_comes() -> None:
    talk = Talk()
    talk.ask(GET % 1)
    talk.answer(b"HTTP/1.1 200 OK\r\nCookie: " + b"x" * 100, seen=40)
    assert talk.said == []
    talk.ask(GET % 2)
    assert talk.said == [(b"/1", 200, "")]


def test_connection_failed_breaks_off_all_that_is_open() -> None:
    talk = Talk()
    talk.ask(GET % 1 + GET % 2)
    talk.answer(OK[:-1])
    talk.connection.failed("connection_reset", 500)
    assert talk.said == [(b"/1", 200, "connection_reset"), (b"/2", None, "connection_reset")]
    assert [exchange.end_ns for exchange in talk.finished] == [500, 500]


def test_connection_expired_exchange_ends_with_its_last_event() -> None:
    talk = Talk()
    talk.ask(GET % 1)
    talk.connection.expire()
    assert talk.said == [(b"/1", None, "timeout")]
    assert talk.finished[0].end_ns == talk.now_ns


def test_connection_unfinished_head_at_close_is_incomplete() -> None:
    talk = Talk()
    talk.ask(GET % 1)
    talk.answer(b"HTTP/1.1 200 OK\r\nX: y")
    talk.close()
    assert talk.said == [(b"/1", 200, "connection_closed")]


def test_connection_close_without_totals_knows_of_no_loss() -> None:
    talk = Talk()
    talk.ask(GET % 1)
    talk.answer(OK, lost=True)
    talk.close(totals=False)
    assert talk.said == [(b"/1", None, "connection_closed")]
    assert talk.tally.lost_events == 0


def test_connection_too_many_requests_waiting_gives_up_the_first() -> None:
    talk = Talk(CLIENT)
    for number in range(MAX_WAITING + 1):
        talk.ask(GET % number)
    assert talk.said == [(b"/0", None, "too_many_requests_waiting")]


def test_connection_too_many_orphans_are_not_kept() -> None:
    talk = Talk(CLIENT)
    for _ in range(MAX_WAITING + 3):
        talk.answer(OK)
    assert talk.tally.orphan_responses == 3


def test_connection_shed_frees_everything() -> None:
    talk = Talk()
    talk.ask(b"GET / HTTP/1.1\r\nX: " + b"y" * 500)
    talk.answer(OK, lost=True)
    talk.answer(OK)
    assert talk.connection.pending_bytes > 500
    talk.connection.shed()
    assert talk.connection.pending_bytes == 0


@pytest.mark.parametrize("framing", [b"Content-Length: 1\r\nContent-Length: 2", b"Transfer-Encoding: chunked, x"])
def test_connection_faulty_request_framing_takes_no_byte_after_it_for_a_request(framing: bytes) -> None:
    talk = Talk()
    talk.ask(b"POST /bad HTTP/1.1\r\n" + framing + b"\r\n\r\n" + GET % 1)
    talk.ask(GET % 2)
    talk.answer(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    talk.close()
    assert talk.said == [(b"/bad", 400, "")]


def test_connection_state_restored_with_everything_open_goes_on() -> None:
    talk, copy = Talk(), Talk()
    talk.ask(GET % 1 + GET % 2)
    talk.answer(OK[:20])
    talk.ask(GET % 3, lost=True)
    talk.ask(GET % 4)
    copy.connection.restore(talk.connection.state())
    assert copy.connection.state() == talk.connection.state()
    for one in (talk, copy):
        one.connection.data(SEND, Segment(200, 20, len(OK) - 20, 1, OK[20:]))
        one.connection.closed("connection_closed", 300, None)
    assert talk.said == copy.said
    assert len(talk.said) == 3
    assert talk.tally.lost_exchanges == copy.tally.lost_exchanges == 1
