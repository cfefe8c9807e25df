from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from ebbflow.config import Config
from ebbflow.errors import BatchInvalid
from ebbflow.requests.shared import RequestLimits
from ebbflow.testing.http_traffic import (
    add_counters,
    attributes,
    converse,
    disturb,
    exchange,
    process_events,
    read_spans,
    record,
    traffic,
)
from ebbflow.testing.socket_events import Event, Wire, encode_batch, encode_heartbeat, interleave
from ebbflow.v1 import raw_pb2
from processors.requests import MAX_VALUE_BYTES, Requests, join_parts

GET = b"GET /users/42 HTTP/1.1\r\nHost: shop:8080\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SEEDS = st.integers(0, 1 << 32)
FEW = settings(max_examples=8, deadline=None)


def wire(generation: int = 1 << 20, **values) -> Wire:
    return Wire(generation, **values)


def run(*wires: Wire, processor: Requests | None = None):
    return process_events(processor or Requests(), interleave(wires), wires)


def span_of(results) -> Span:
    (seen,) = read_spans(results)
    return Span.FromString(seen.raw)


# Properties


@FEW
@given(SEEDS)
def test_requests_common_path_gives_what_the_general_path_gives(seed: int) -> None:
    random = Random(seed)
    wires = traffic(random)
    events = disturb(random, interleave(wires), dropped=random.choice([0, 0, 0.2]), swapped=random.choice([0, 0.2]))
    short = process_events(Requests(), events, wires)
    long = process_events(Requests(common_path=False), events, wires)
    assert read_spans(short) == read_spans(long)
    assert add_counters(short) == add_counters(long)


@FEW
@given(SEEDS)
def test_requests_restored_anywhere_gives_the_same_bytes(seed: int) -> None:
    random = Random(seed)
    wires = traffic(random)
    events = disturb(random, interleave(wires), dropped=random.choice([0, 0.2]), swapped=random.choice([0, 0.2]))
    cuts = [random.randrange(len(events) + 1) for _ in range(5)]
    whole = process_events(Requests(), events, wires, cuts)
    restarted = process_events(Requests(), events, wires, cuts, restart=True)
    assert whole == restarted


@pytest.mark.slow
def test_requests_many_seeds_agree_on_every_path() -> None:
    for seed in range(300):
        random = Random(seed)
        wires = traffic(random)
        events = disturb(
            random, interleave(wires), dropped=random.choice([0, 0.1, 0.4]), swapped=random.choice([0, 0.2])
        )
        cuts = [random.randrange(len(events) + 1) for _ in range(5)]
        results = [
            process_events(Requests(), events, wires),
            process_events(Requests(common_path=False), events, wires),
            process_events(Requests(), events, wires, cuts, restart=True),
        ]
        spans, counters = [read_spans(result) for result in results], [add_counters(result) for result in results]
        assert spans[0] == spans[1] == spans[2], seed
        assert counters[0] == counters[1] == counters[2], seed


@FEW
@given(SEEDS)
def test_requests_cut_anywhere_gives_the_same_spans(seed: int) -> None:
    random = Random(seed)
    wires = traffic(random)
    events = disturb(random, interleave(wires), dropped=random.choice([0, 0.2]), swapped=random.choice([0, 0.2]))
    whole = process_events(Requests(), events, wires)
    pieces = process_events(Requests(), events, wires, [random.randrange(len(events) + 1) for _ in range(5)])
    assert read_spans(whole) == read_spans(pieces)
    assert add_counters(whole) == add_counters(pieces)


@FEW
@given(SEEDS, st.integers(0, 30), st.sampled_from([0.05, 0.3, 0.7, 0.95, 1.0]))
def test_requests_one_event_a_message_spans_and_losses_are_all_requests(
    seed: int, requests: int, dropped: float
) -> None:
    random = Random(seed)
    role = random.choice([raw_pb2.ROLE_SERVER, raw_pb2.ROLE_CLIENT])
    one = wire(role=role, step_ns=random.choice([10, 1_000_000, 100_000_000]))
    for number in range(requests):
        one.ask(b"GET /%d HTTP/1.1\r\n\r\n" % number)
        one.answer(b"HTTP/1.1 200 OK\r\nX: %d\r\nContent-Length: 2\r\n\r\nok" % number)
    one.close()
    events = [event for event in one.events if event.kind != 1 or random.random() >= dropped]
    results = process_events(Requests(), events, [one], [random.randrange(len(events) + 1) for _ in range(3)])
    counters = Counter(add_counters(results))
    assert counters["spans"] + counters["lost_exchanges"] == requests
    both = {number for number in range(requests) if len(kept(events, number)) == 2}
    complete = [seen for seen in read_spans(results) if seen.incomplete is None]
    assert {int(seen.path[1:]) for seen in complete} == both
    assert all((seen.start_ns, seen.end_ns) == tuple(kept(events, int(seen.path[1:]))) for seen in complete)


def kept(events: list[Event], number: int) -> list[int]:
    """Times of the events of one exchange that were not lost."""
    marks = (b"GET /%d " % number, b"X: %d\r" % number)
    return [event.time_ns for event in events if any(mark in event.payload for mark in marks)]


@FEW
@given(SEEDS)
def test_requests_nothing_lost_every_exchange_is_a_span(seed: int) -> None:
    random = Random(seed)
    one = wire(role=random.choice([raw_pb2.ROLE_SERVER, raw_pb2.ROLE_CLIENT]))
    pairs = [exchange(random) for _ in range(random.randrange(10))]
    converse(random, one, pairs, splits=random.choice([0, 0.3, 1]), pipelined=0.3, cut=0)
    one.close()
    results = run(one)
    assert add_counters(results).get("exchanges", 0) == len(pairs)
    statuses = [int(response.rpartition(b"HTTP/1.1 ")[2][:3]) for _, response in pairs]
    assert sorted(seen.status for seen in read_spans(results)) == sorted(statuses)


# What a span says


def test_requests_server_span_follows_semantic_conventions() -> None:
    one = wire()
    one.receive(
        b"POST /users/42?q=a HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: curl\r\nContent-Length: 3\r\n\r\nabc"
    )
    one.send(OK)
    span = span_of(run(one))
    assert (span.name, span.kind, span.status.code) == ("POST /users/{id}", Span.SPAN_KIND_SERVER, 0)
    assert attributes(span) == {
        "http.request.method": "POST", "http.route": "/users/{id}", "url.path": "/users/42", "url.query": "q=a",
        "url.scheme": "http", "http.response.status_code": 200, "http.request.body.size": 3,
        "http.response.body.size": 2, "user_agent.original": "curl", "server.address": "shop.example",
        "server.port": 8080, "client.address": "10.0.0.2", "network.peer.address": "10.0.0.2",
        "network.peer.port": 40000, "network.local.address": "10.0.0.1", "network.local.port": 8080,
        "network.protocol.name": "http", "network.protocol.version": "1.1", "network.transport": "tcp",
        "network.type": "ipv4",
    }  # fmt: skip
    assert span.end_time_unix_nano - span.start_time_unix_nano == one.step_ns


def test_requests_client_span_has_full_url_and_error_from_400() -> None:
    one = wire(role=raw_pb2.ROLE_CLIENT)
    one.send(GET)
    one.receive(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    span = span_of(run(one))
    values = attributes(span)
    assert (span.name, span.kind, span.status.code) == ("GET /users/{id}", Span.SPAN_KIND_CLIENT, 2)
    assert values["url.full"] == "http://shop:8080/users/42"
    assert (values["error.type"], values["url.template"]) == ("404", "/users/{id}")
    assert "http.route" not in values
    assert "client.address" not in values


def test_requests_client_without_host_takes_the_peer() -> None:
    one = wire(role=raw_pb2.ROLE_CLIENT)
    one.send(b"GET /a?b HTTP/1.0\r\n\r\n")
    one.receive(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
    values = attributes(span_of(run(one)))
    assert (values["url.full"], values["server.address"]) == ("http://10.0.0.2:40000/a?b", "10.0.0.2")


def test_requests_server_error_sets_status_and_error_type() -> None:
    one = wire()
    one.receive(GET)
    one.send(b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n")
    span = span_of(run(one))
    assert (span.status.code, attributes(span)["error.type"]) == (2, "503")


def test_requests_traceparent_gives_trace_and_parent() -> None:
    one = wire()
    context = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=1, b=2\r\n"
    one.receive(GET[:-2] + context + b"\r\n")
    one.send(OK)
    span = span_of(run(one))
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert (span.trace_state, span.flags) == ("a=1,b=2", 0x301)


def test_requests_without_traceparent_ids_differ_by_position_and_repeat_by_replay() -> None:
    one = wire()
    for _ in range(2):
        one.receive(GET)
        one.send(OK)
    first, again = read_spans(run(one)), read_spans(run(one))
    assert first == again
    assert len({Span.FromString(seen.raw).span_id for seen in first}) == 2
    assert len({Span.FromString(seen.raw).trace_id for seen in first}) == 2


def test_requests_resource_describes_the_process() -> None:
    one = wire()
    one.receive(GET)
    one.send(OK)
    (result, _) = run(one)
    (resource_spans,) = TracesData.FromString(result.outputs[0].value).resource_spans
    values = {
        entry.key: entry.value.string_value or entry.value.int_value for entry in resource_spans.resource.attributes
    }
    assert values["service.name"] == "shop-77"
    assert (values["host.id"], values["host.name"], values["process.pid"]) == ("host-1", "host-one", 77)
    assert resource_spans.schema_url == "https://opentelemetry.io/schemas/1.44.0"


# Ends, and what is not complete


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda one: one.close(), "connection_closed"),
        (lambda one: one.exit(), "connection_closed"),
        (lambda one: one.shutdown(), "connection_closed"),
        (lambda one: one.error(104), "connection_reset"),
        (lambda one: one.error(32), "connection_reset"),
        (lambda one: one.error(110), "timeout"),
        (lambda one: one.error(113), "EHOSTUNREACH"),
    ],
)
def test_requests_unanswered_request_is_incomplete_with_reason(end, reason: str) -> None:
    one = wire()
    one.receive(GET)
    end(one)
    span = span_of(run(one))
    values = attributes(span)
    assert (values["error.type"], values["ebbflow.incomplete"], span.status.code) == (reason, reason, 0)
    assert "http.response.status_code" not in values
    assert span.end_time_unix_nano - span.start_time_unix_nano == one.step_ns


def test_requests_response_broken_off_keeps_its_status_code() -> None:
    one = wire()
    one.receive(GET)
    one.send(b"HTTP/1.1 500 X\r\nContent-Length: 10\r\n\r\n123")
    one.error(104)
    span = span_of(run(one))
    values = attributes(span)
    assert (values["http.response.status_code"], values["error.type"], span.status.code) == (500, "connection_reset", 0)


def test_requests_silent_exchange_times_out() -> None:
    one = wire()
    one.receive(GET)
    results = run(one)  # the heartbeat is 1000 s later
    assert attributes(span_of(results))["ebbflow.incomplete"] == "timeout"
    assert add_counters(results)["incomplete"] == 1


def test_requests_answer_after_time_out_is_an_orphan() -> None:
    one = wire()
    processor = Requests()
    one.receive(GET)
    late = wire(time_ns=2_000_000_000_000, moved=list(one.moved), counts=list(one.counts))
    late.send(OK)
    late.receive(GET)
    late.send(OK)
    results = [
        processor.process(record(encode_batch(one.events, [one], sequence=0), 0)),
        processor.process(record(encode_heartbeat(1_900_000_000_000, sequence=1), 1)),
        processor.process(record(encode_batch(late.events, [late], sequence=2), 2)),
    ]
    assert [seen.incomplete for seen in read_spans(results)] == ["timeout", None]
    assert add_counters(results)["orphan_responses"] == 1


def test_requests_close_totals_tell_what_was_lost_at_the_end() -> None:
    one = wire()
    for _ in range(3):
        one.receive(GET)
        one.send(OK)
    one.close()
    one.events = [*one.events[:2], one.events[-1]]
    counters = add_counters(run(one))
    assert (counters["exchanges"], counters["lost_exchanges"], counters["lost_events"]) == (1, 2, 4)


def test_requests_connection_seen_from_half_way_gives_no_invented_span() -> None:
    one = wire(origin=raw_pb2.ORIGIN_BEFORE)
    one.receive(b"rest of a body")
    one.send(OK)
    one.receive(GET)
    one.send(OK)
    results = run(one)
    assert len(read_spans(results)) == 1
    assert add_counters(results)["orphan_responses"] == 1


def test_requests_run_joined_late_counts_nothing_as_lost() -> None:
    one = wire(generation=500, moved=[10_000, 20_000], counts=[100, 100])
    one.receive(GET)
    one.send(OK)
    result = Requests().process(record(encode_batch(one.events, [one], sequence=7), 0))
    assert add_counters([result]) == {"events": 2, "spans": 1, "exchanges": 1}


def test_requests_other_protocol_is_recognised_once_and_dropped() -> None:
    one = wire()
    for _ in range(3):
        one.receive(b"\x16\x03\x01\x02\x00")
    assert add_counters(run(one)) == {"events": 3, "not_http": 1, "opaque_events": 2}


def test_requests_websocket_is_one_span_then_opaque() -> None:
    one = wire()
    one.receive(GET[:-2] + b"Upgrade: websocket\r\n\r\n")
    one.send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    one.receive(b"GET / HTTP/1.1\r\n\r\n")
    counters = add_counters(run(one))
    assert counters == {"events": 3, "spans": 1, "exchanges": 1, "tunnels": 1, "opaque_events": 1}


def test_requests_late_event_after_close_is_counted() -> None:
    one = wire()
    one.receive(GET)
    one.close()
    one.events.reverse()
    assert add_counters(process_events(Requests(), one.events, [one]))["late_events"] == 1


# Batches


def test_requests_repeated_batch_is_dropped_and_counted() -> None:
    one = wire()
    one.receive(GET)
    one.send(OK)
    value = encode_batch(one.events, [one], sequence=3)
    processor = Requests()
    processor.process(record(value, 0))
    again = processor.process(record(value, 1))
    assert (again.outputs, again.counters) == ([], {"duplicates": 1})


def test_requests_skipped_sequence_is_lost_batches() -> None:
    processor = Requests()
    processor.process(record(encode_heartbeat(1, sequence=0), 0))
    assert processor.process(record(encode_heartbeat(2, sequence=4), 1)).counters["lost_batches"] == 3


def test_requests_another_run_starts_its_own_sequence() -> None:
    processor = Requests()
    processor.process(record(encode_batch([], [], sequence=5), 0))
    result = processor.process(record(encode_batch([], [], sequence=0, run_id=2), 1))
    assert (result.counters["batches"], result.counters["lost_batches"]) == (1, 0)


def test_requests_garbage_record_raises() -> None:
    with pytest.raises(BatchInvalid):
        Requests().process(record(b"\xff\xff garbage", 0))


def test_requests_bad_rows_are_dead_letters_and_the_rest_is_used() -> None:
    one = wire()
    one.receive(GET)
    one.send(OK)
    bad = Event(one.time_ns, one.generation, kind=99, pid=1)
    result = Requests().process(record(encode_batch([*one.events, bad], [one], sequence=0), 0))
    assert [letter.code for letter in result.dead_letters] == ["EBB602"]
    assert (result.counters["invalid"], result.counters["events"], result.counters["spans"]) == (1, 2, 1)


def test_requests_undescribed_connection_still_gives_spans() -> None:
    one = wire()
    one.receive(GET)
    one.send(OK)
    results = process_events(Requests(), one.events, [])
    span = span_of(results)
    assert (span.name, span.kind) == ("GET /users/{id}", Span.SPAN_KIND_SERVER)


def test_requests_description_that_changes_is_taken_over() -> None:
    one = wire(role=raw_pb2.ROLE_UNKNOWN)
    one.receive(GET)
    one.send(OK)
    processor = Requests()
    processor.process(record(encode_batch(one.events, [one], sequence=0), 0))
    one.events.clear()
    one.pid, one.role = 78, raw_pb2.ROLE_SERVER
    one.receive(GET)
    one.send(OK)
    result = processor.process(record(encode_batch(one.events, [one], sequence=1), 1))
    assert b"shop-78" in result.outputs[0].value


def test_requests_large_output_is_split_below_the_limit() -> None:
    one = wire()
    for number in range(300):
        one.receive(b"GET /%s%d HTTP/1.1\r\n\r\n" % (b"x" * 4000, number))
        one.send(OK)
    result = Requests().process(record(encode_batch(one.events, [one], sequence=0), 9))
    assert len(result.outputs) == 2
    assert all(len(output.value) <= MAX_VALUE_BYTES for output in result.outputs)
    assert [dict(output.headers)["ebbflow-part"] for output in result.outputs] == [b"0/2", b"1/2"]
    assert {dict(output.headers)["ebbflow-source"] for output in result.outputs} == {b"ebbflow.raw.sockets/0/9"}
    assert {output.key for output in result.outputs} == {b"host-1/0"}
    assert len(read_spans([result])) == 300


def test_join_parts_fills_values_up_to_the_limit() -> None:
    assert join_parts([b"aa", b"b", b"cccc", b"d"], 3) == [b"aab", b"cccc", b"d"]


# Bounds


def test_requests_too_many_connections_forgets_the_most_silent() -> None:
    processor = Requests(RequestLimits(max_connections=16))
    wires = [wire((1 << 20) + number, time_ns=1_000_000_000 + number) for number in range(20)]
    for one in wires:
        one.receive(GET)
    events = [event for one in wires for event in one.events]
    results = process_events(processor, events, wires)
    counters = add_counters(results)
    assert counters["evicted"] == 4
    assert Counter(seen.incomplete for seen in read_spans(results)) == {"evicted": 4, "timeout": 16}
    assert processor.gauges()["connections"] == 16


def test_requests_too_much_held_is_given_up() -> None:
    processor = Requests(RequestLimits(max_pending_bytes=1000))
    one = wire()
    one.receive(b"GET / HTTP/1.1\r\nX: " + b"a" * 2000)
    one.receive(b"aaa\r\n\r\n")
    one.send(OK)
    one.close()
    results = process_events(processor, one.events, [one])
    assert [seen.path for seen in read_spans(results)] == ["/"]
    assert processor.gauges()["pending_bytes"] == 0


def test_requests_endless_head_takes_bounded_memory() -> None:
    processor = Requests()
    one = wire()
    one.receive(b"GET / HTTP/1.1\r\n")
    for _ in range(30):
        one.receive(b"x" * 8000)
    for offset in range(len(one.events)):
        processor.process(record(encode_batch(one.events[offset : offset + 1], [one], sequence=offset), offset))
        assert processor.gauges()["pending_bytes"] < 80_000


def test_requests_many_processes_are_forgotten_without_losing_spans() -> None:
    processor = Requests(RequestLimits(max_processes=2))
    wires = [wire((1 << 20) + number, pid=100 + number) for number in range(6)]
    for one in wires:
        one.receive(GET)
        one.send(OK)
        one.close()
    assert add_counters(process_events(processor, interleave(wires), wires))["spans"] == 6


def test_requests_silent_source_is_given_up_by_tick() -> None:
    processor = Requests()
    one = wire()
    one.receive(GET)
    first = processor.process(record(encode_batch(one.events, [one], sequence=0), 4))
    hour_ns = 3_600_000_000_000
    now_ns = one.time_ns + 1_700_000_000_000_000_000
    assert first.event_time_ns == one.events[-1].time_ns + 1_700_000_000_000_000_000
    assert processor.tick(first.event_time_ns + hour_ns).counters == {}
    late = processor.tick(now_ns + hour_ns + 1)
    assert (first.counters["spans"], late.counters["incomplete"]) == (0, 1)
    assert late.outputs[0].headers == (("ebbflow-source", b"ebbflow.raw.sockets/0/4"), ("ebbflow-part", b"end/0/1"))
    assert processor.gauges()["sources"] == 0


def test_requests_from_config_takes_its_limits() -> None:
    processor = Requests.from_config(
        Config.model_validate({"requests": {"exchange_timeout_s": 2, "max_connections": 5}})
    )
    assert processor._limits == RequestLimits(exchange_timeout_ns=2_000_000_000, max_connections=5)


def test_requests_pipelined_events_lost_on_both_sides_are_counted_by_bytes() -> None:
    one = wire()
    for _ in range(6):
        one.receive(b"GET /1 HTTP/1.1\r\n\r\n" * 10)
        one.send(OK * 10)
    one.close()
    lost = {4, 5, 8}
    events = [event for number, event in enumerate(one.events) if number not in lost]
    counters = add_counters(process_events(Requests(), events, [one]))
    assert counters["spans"] + counters["lost_exchanges"] == 60
    assert (counters["incomplete"], counters["lost_exchanges"]) == (10, 10)
