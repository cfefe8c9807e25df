from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ebbflow.protocols.stream import ANYWHERE, MAX_HELD_BYTES, MAX_HELD_EVENTS, Gap, Segment, StreamBuffer


def segment(nth: int, size: int = 10) -> Segment:
    return Segment(1000 + nth, nth * 10, size, nth, b"x" * size)


def test_stream_in_order_is_accepted_at_once() -> None:
    stream = StreamBuffer()
    assert [stream.accept(segment(number)) for number in range(3)] == [True, True, True]
    assert (stream.position, stream.nth, stream.held_bytes) == (30, 3, 0)


def test_stream_early_event_is_held_until_the_missing_one_comes() -> None:
    stream = StreamBuffer()
    assert not stream.accept(segment(1))
    assert (stream.is_whole, stream.held_since_ns, stream.held_bytes) == (False, 1001, 10)
    assert not stream.accept(segment(0))
    assert stream.is_whole
    assert stream.drain() == [segment(0), segment(1)]
    assert (stream.held_since_ns, stream.held_bytes) == (0, 0)


def test_stream_released_missing_events_are_gaps() -> None:
    stream = StreamBuffer()
    for number in (1, 4, 5):
        stream.accept(segment(number))
    assert stream.release() == [Gap(0, 10, 1, 0, 1001), segment(1), Gap(20, 20, 2, 2, 1004), segment(4), segment(5)]


def test_stream_event_after_its_place_was_given_up_is_late() -> None:
    stream = StreamBuffer()
    stream.accept(segment(1))
    stream.release()
    assert not stream.accept(segment(0))
    assert (stream.late, stream.is_whole, stream.drain()) == (1, True, [])


def test_stream_event_twice_is_late() -> None:
    stream = StreamBuffer()
    stream.accept(segment(1))
    stream.accept(segment(1))
    assert stream.late == 1
    assert len(stream.release()) == 2


def test_stream_event_that_overlaps_a_delivered_one_is_dropped() -> None:
    stream = StreamBuffer()
    stream.accept(Segment(2, 15, 10, 1, b""))
    stream.accept(Segment(1, 0, 20, 0, b""))
    assert stream.drain() == [Segment(1, 0, 20, 0, b"")]
    assert stream.late == 1


def test_stream_bytes_missing_without_missing_number_are_one_event() -> None:
    stream = StreamBuffer()
    stream.accept(Segment(5, 100, 1, 0, b""))
    assert stream.release()[0] == Gap(0, 100, 1, 0, 5)


def test_stream_finish_tells_the_gap_at_the_end() -> None:
    stream = StreamBuffer()
    stream.accept(segment(0))
    assert stream.finish(50, 5, 99) == [Gap(10, 40, 4, 1, 99)]
    assert stream.finish(50, 5, 99) == []


def test_stream_anywhere_starts_at_the_first_event() -> None:
    stream = StreamBuffer(ANYWHERE, 0)
    assert stream.finish(100, 10, 1) == []
    assert stream.accept(segment(7))
    assert (stream.position, stream.nth) == (80, 8)


def test_stream_is_full_by_number_and_by_bytes() -> None:
    by_number, by_bytes = StreamBuffer(), StreamBuffer()
    for number in range(1, MAX_HELD_EVENTS + 2):
        assert not by_number.is_full
        by_number.accept(segment(number))
    assert by_number.is_full
    by_bytes.accept(Segment(1, 5, MAX_HELD_BYTES + 1, 1, b"x" * (MAX_HELD_BYTES + 1)))
    assert by_bytes.is_full


@given(st.integers(0, 1 << 32), st.integers(1, 40))
def test_stream_any_order_is_put_back(seed: int, count: int) -> None:
    segments = [segment(number) for number in range(count)]
    shuffled = Random(seed).sample(segments, count)
    stream, delivered = StreamBuffer(), []
    for item in shuffled:
        if stream.accept(item):
            delivered.append(item)
        elif stream.is_whole:
            delivered += stream.drain()
        copy = StreamBuffer()
        copy.restore(stream.state())
        assert copy.state() == stream.state()
        assert copy.held_bytes == stream.held_bytes
        stream = copy
    assert delivered + stream.drain() == segments
