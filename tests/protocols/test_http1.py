from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebbflow.errors import ProtocolError
from ebbflow.protocols.http1 import MAX_HEAD_BYTES, MessageReader, State
from ebbflow.protocols.http1_framing import (
    Framing,
    parse_request_head,
    parse_response_head,
    request_framing,
    response_framing,
)
from ebbflow.protocols.stream import Gap, Segment

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


class Recorder:
    """Writes down what a reader says; the parse functions are the reader's own."""

    def __init__(self, *, responses: bool, certain: bool = True) -> None:
        self.responses = responses
        self.certain = certain
        self.said: list[tuple[object, ...]] = []

    def began(self, head: bytes, time_ns: int, position: int) -> Framing | None:
        if self.responses:
            parsed = parse_response_head(head)
            if parsed.status == 100:
                return None
            framing = response_framing(parsed)
            what: object = parsed.status
        else:
            request = parse_request_head(head)
            framing, what = request_framing(request), request.target
        self.said.append(("began", what, position))
        return framing

    def ended(self, time_ns: int, body_bytes: int) -> None:
        self.said.append(("ended", body_bytes))

    def lost(self, messages: int, until_ns: int) -> None:
        self.said.append(("lost", messages))

    def refused(self) -> None:
        self.said.append(("refused",))


class Feed:
    """A reader with positions and numbers kept for it."""

    def __init__(self, *, responses: bool = True, aligned: bool = True, certain: bool = True) -> None:
        self.recorder = Recorder(responses=responses, certain=certain)
        self.reader = MessageReader(self.recorder, responses=responses, aligned=aligned)
        self.position = self.nth = 0

    def event(self, data: bytes, *, seen: int | None = None, size: int | None = None) -> Feed:
        size = len(data) if size is None else size
        self.reader.feed(Segment(self.nth, self.position, size, self.nth, data[:seen]))
        self.position += size
        self.nth += 1
        return self

    def gap(self, size: int, events: int = 1) -> Feed:
        self.reader.feed(Gap(self.position, size, events, self.nth, self.nth))
        self.position += size
        self.nth += events
        return self

    @property
    def said(self) -> list[tuple[object, ...]]:
        return self.recorder.said


def begins(status: object, position: int = 0) -> tuple[object, ...]:
    return ("began", status, position)


def test_reader_whole_message_begins_and_ends() -> None:
    assert Feed().event(OK).said == [begins(200), ("ended", 5)]


def test_reader_pipelined_messages_in_one_event_all_begin() -> None:
    said = Feed(responses=False).event(GET * 3).said
    assert [entry for entry in said if entry[0] == "began"] == [begins(b"/", len(GET) * number) for number in range(3)]


@given(st.lists(st.integers(0, 3 * len(OK + CHUNKED)), max_size=8))
def test_reader_any_cuts_same_messages(cuts: list[int]) -> None:
    data = (OK + CHUNKED) * 3
    feed = Feed()
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for first, last in pairwise(edges):
        feed.event(data[first:last])
        restored = MessageReader(feed.recorder, responses=True, aligned=True)
        restored.restore(feed.reader.state_values())
        feed.reader = restored
    assert feed.said == Feed().event(data).said


def test_reader_empty_lines_before_a_message_are_skipped() -> None:
    assert Feed().event(b"\r\n\r\n").event(b"\n" + OK).said == [begins(200, 5), ("ended", 5)]


def test_reader_interim_response_is_no_message() -> None:
    assert Feed().event(b"HTTP/1.1 100 Continue\r\n\r\n").event(OK).said[0][1] == 200


def test_reader_first_bytes_of_another_protocol_are_refused() -> None:
    feed = Feed(responses=False).event(b"\x16\x03\x01")
    assert (feed.said, feed.reader.state) == ([("refused",)], State.SEEK)


def test_reader_start_line_that_turns_out_wrong_is_refused() -> None:
    feed = Feed(responses=False)
    for byte in b"GET / FTP/1.1 and more":
        feed.event(bytes([byte]))
    assert feed.said == [("refused",)]


def test_reader_garbage_between_messages_is_refused_and_the_next_head_found() -> None:
    assert Feed().event(OK).event(b"garbage").event(OK).said[2:] == [("refused",), begins(200, 50), ("ended", 5)]


@pytest.mark.parametrize("seen", [38, 40])
def test_reader_body_of_known_length_may_be_unseen(seen: int) -> None:
    assert Feed().event(OK, seen=seen).event(OK).said == [begins(200), ("ended", 5), begins(200, 43), ("ended", 5)]


def test_reader_gap_inside_a_body_of_known_length_loses_nothing() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"
    assert Feed().event(head).gap(30).event(b"x" * 20).said == [begins(200), ("ended", 50)]


def test_reader_gap_from_body_over_its_end_loses_a_message() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"
    said = Feed().event(head).gap(90, events=2).event(OK).said
    assert said[:3] == [begins(200), ("ended", 50), ("lost", 1)]
    assert said[3][0] == "began"


def test_reader_gap_between_messages_loses_one_an_event() -> None:
    assert Feed().event(OK).gap(86, events=2).event(OK).said[2:4] == [("lost", 2), begins(200, 129)]


def test_reader_gap_where_messages_take_three_events_loses_a_third() -> None:
    feed = Feed()
    for _ in range(4):
        feed.event(OK[:38]).event(OK[38:40]).event(OK[40:])
    assert feed.gap(6 * 43, events=6).said[-1] == ("lost", 2)


def test_reader_gap_where_ten_messages_are_in_an_event_loses_ten() -> None:
    assert Feed().event(OK * 10).gap(430).said[-1] == ("lost", 10)


def test_reader_gap_in_chunked_body_ends_at_the_next_head() -> None:
    cut = CHUNKED.index(b"hello")
    said = Feed().event(CHUNKED[:cut]).gap(100).event(b"rest").event(OK).said
    assert said == [begins(200), ("ended", -1), ("lost", 1), begins(200, cut + 104), ("ended", 5)]


def test_reader_chunk_data_may_be_unseen() -> None:
    cut = CHUNKED.index(b"hello") + 1
    assert Feed().event(CHUNKED[:-7], seen=cut).event(CHUNKED[-7:]).said == [begins(200), ("ended", 5)]


def test_reader_chunk_framing_unseen_ends_with_the_last_chunk_of_a_later_event() -> None:
    feed = Feed().event(CHUNKED[:-5], seen=50).event(b"0\r\n\r\n").event(OK)
    assert feed.said[:2] == [begins(200), ("ended", -1)]
    assert feed.reader.state is State.IDLE


def test_reader_faulty_chunk_ends_at_the_next_head() -> None:
    said = Feed().event(CHUNKED.replace(b"5\r\n", b"z\r\n")).event(OK).said
    assert said == [begins(200), ("ended", -1), begins(200, len(CHUNKED)), ("ended", 5)]


def test_reader_body_until_close_takes_everything() -> None:
    feed = Feed().event(b"HTTP/1.0 200 OK\r\n\r\nab").event(OK).gap(10).event(b"x", size=3)
    feed.reader.finish(9, 9, clean=True)
    assert feed.said == [begins(200), ("ended", 2 + len(OK) + 13)]


def test_reader_body_until_close_without_clean_end_does_not_end() -> None:
    feed = Feed().event(b"HTTP/1.0 200 OK\r\n\r\nab")
    feed.reader.finish(9, 9, clean=False)
    assert feed.said == [begins(200)]


def test_reader_head_cut_off_begins_with_what_is_there() -> None:
    feed = Feed().event(b"HTTP/1.1 200 OK\r\nX: aaaaaaaa", size=500)
    assert (feed.said, feed.reader.state) == ([begins(200)], State.OPEN_END)
    assert feed.event(OK).said[1] == ("ended", -1)


def test_reader_cut_off_before_the_start_line_ended_is_lost() -> None:
    assert Feed(responses=False).event(b"GET /aaaaaaa", size=500).said == [("lost", 1)]


def test_reader_cut_off_behind_pipelined_messages_loses_as_many_as_fit() -> None:
    size = len(GET) * 10
    said = Feed(responses=False).event(GET * 5, seen=len(GET) * 4 + 20, size=size).said
    assert said[-1] == ("lost", 5)


def test_reader_cut_in_a_start_line_behind_pipelined_messages_loses_as_many_as_fit_every_time() -> None:
    feed = Feed(responses=False)
    for _ in range(5):
        feed.event(GET * 5, seen=len(GET) * 4 + 5, size=len(GET) * 20)
    lost = [said[1] for said in feed.said if said[0] == "lost"]
    assert lost == [1, 15] * 5


def test_reader_unseen_between_messages_loses_as_many_as_fit() -> None:
    said = Feed(responses=False).event(GET * 4, size=len(GET) * 10).said
    assert said[-1] == ("lost", 6)


def test_reader_payload_withheld_from_the_start_says_nothing() -> None:
    feed = Feed().event(b"", size=100)
    assert (feed.said, feed.reader.state) == ([], State.SEEK)


def test_reader_gap_in_a_head_keeps_the_start_line() -> None:
    assert Feed().event(b"HTTP/1.1 404 X\r\nA").gap(50).event(OK).said[:2] == [begins(404), ("ended", -1)]


def test_reader_head_too_long_is_cut_there() -> None:
    feed = Feed(responses=False).event(b"GET / HTTP/1.1\r\nA: ")
    while feed.reader.state is State.HEAD:
        feed.event(b"x" * 8192)
        assert feed.reader.pending_bytes <= MAX_HEAD_BYTES + 8192
    assert feed.said == [begins(b"/")]


def test_reader_not_aligned_seeks_the_first_head_at_an_event() -> None:
    assert Feed(aligned=False).event(b"body").event(b"x" + OK).event(OK).said == [begins(200, 48), ("ended", 5)]


def test_reader_seeking_takes_a_head_split_behind_a_known_method() -> None:
    feed = Feed(responses=False, aligned=False).event(b"GET /pa").event(b"th HTTP/1.1\r\n\r\n")
    assert feed.said == [begins(b"/path"), ("ended", -1)]


@pytest.mark.parametrize("tail", [OK, b"\r\n" + OK])
def test_reader_head_right_behind_an_uncertain_head_ends_it(tail: bytes) -> None:
    said = Feed(certain=False).event(OK[:38]).event(tail).said
    assert said[:2] == [begins(200), ("ended", -1)]


def test_reader_head_behind_an_uncertain_head_in_one_event_ends_it() -> None:
    assert Feed(certain=False).event(OK[:38] + OK[:38]).said == [begins(200), ("ended", -1), begins(200, 38)]


def test_reader_settle_ends_an_open_message_that_something_later_overtook() -> None:
    feed = Feed().event(b"HTTP/1.1 200 OK\r\nX", size=100)
    feed.reader.settle(0)
    assert len(feed.said) == 1
    feed.reader.settle(5)
    assert feed.said[1:] == [("ended", -1)]


def test_reader_listener_that_refuses_a_head_is_refused() -> None:
    feed = Feed()

    def refuse(head: bytes, time_ns: int, position: int) -> Framing | None:
        raise ProtocolError("no")

    feed.recorder.began = refuse  # type: ignore[method-assign]
    assert feed.event(OK).said == [("refused",)]


def test_reader_hostile_single_bytes_cost_linear_time() -> None:
    def cost(size: int) -> float:
        feed = Feed(responses=False).event(b"GET /")
        started = time.process_time()
        for _ in range(size):
            feed.event(b"a")
        return time.process_time() - started

    small = min(cost(1000) for _ in range(3))
    assert cost(8000) < 40 * small
