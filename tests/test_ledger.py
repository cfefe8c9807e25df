from __future__ import annotations

import asyncio

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebbflow import ledger as ledger_module
from ebbflow.errors import ValidationError
from ebbflow.ledger import IDLE_AFTER_NS, Entry, Ledger, LedgerWriter, decode

COUNTERS = st.dictionaries(st.text(max_size=8), st.integers(-(2**40), 2**40), max_size=4)


@settings(max_examples=25)
@given(st.text(), st.text(), st.integers(0, 2**62), COUNTERS)
def test_entry_written_and_read_is_the_same(stage, source, time_unix_ns, counters):
    entry = Entry(stage, source, time_unix_ns, counters)
    assert decode(entry.to_output().value) == entry


def test_entry_record_has_topic_key_and_json():
    output = Entry("requests", "ebbflow.raw.sockets/0/7", 5, {"events": 2}).to_output()
    assert (output.topic, output.key) == ("ebbflow.ledger", b"requests|ebbflow.raw.sockets/0/7")
    assert output.value == (
        b'{"stage":"requests","source":"ebbflow.raw.sockets/0/7","time_unix_ns":5,"counters":{"events":2}}'
    )


GOOD = {"stage": "a", "source": "b", "time_unix_ns": 1, "counters": {"x": 1}}


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b"\x00garbage", b"[]", b"3", b"{}", b'"text"',
        *(orjson.dumps(GOOD | change) for change in (
            {"stage": 1}, {"source": None}, {"time_unix_ns": "1"}, {"time_unix_ns": True},
            {"counters": []}, {"counters": {"x": 1.5}}, {"counters": {"x": "1"}},
        )),
    ],
)  # fmt: skip
def test_decode_garbage_is_refused(value):
    with pytest.raises(ValidationError, match="not a ledger entry"):
        decode(value)


@given(st.binary(max_size=64))
def test_ledger_any_bytes_are_counted_never_raised(value):
    ledger = Ledger()
    ledger.add(value)
    assert ledger.invalid == 1
    assert ledger.totals() == {}


def read(*entries: Entry) -> Ledger:
    ledger = Ledger()
    for entry in entries:
        ledger.add(entry.to_output().value)
    return ledger


def test_ledger_last_entry_of_a_key_wins():
    ledger = read(Entry("requests", "t/0/1", 1, {"events": 9}), Entry("requests", "t/0/1", 2, {"events": 5}))
    assert ledger.totals() == {"requests": {"events": 5}}


def test_ledger_different_keys_add_up_by_stage():
    ledger = read(
        Entry("sink.traces", "t/0/1", 1, {"exported": 1}),
        Entry("requests", "t/0/1", 1, {"events": 2}),
        Entry("requests", "t/0/2", 1, {"events": 3, "invalid": 1}),
    )
    assert ledger.totals() == {"requests": {"events": 5, "invalid": 1}, "sink.traces": {"exported": 1}}


def healthy(**changes: int) -> Ledger:
    numbers = {
        "captured": 100, "lost": 5, "dropped": 3, "published": 90, "buffered": 2,
        "events": 89, "invalid": 1, "spans": 40, "received": 40, "exported": 38, "rejected": 2,
    } | changes  # fmt: skip
    stages = {
        "producer.sockets": ("captured", "lost", "dropped", "published", "buffered"),
        "requests": ("events", "invalid", "spans", "lost_exchanges"),
        "sink.traces": ("received", "exported", "rejected"),
    }
    return read(
        *(Entry(stage, "s", 1, {name: numbers.get(name, 0) for name in names}) for stage, names in stages.items())
    )


def test_ledger_lines_of_a_healthy_pipeline_all_balance():
    assert [line.difference for line in healthy().lines()] == [0, 0, 0]


@pytest.mark.parametrize(
    ("changes", "stage", "difference"),
    [
        ({"captured": 107}, "producer.sockets", 7),
        ({"events": 88}, "requests", 1),
        ({"events": 91}, "requests", -2),
        ({"exported": 30}, "sink.traces", 8),
    ],
)
def test_ledger_lines_name_the_stage_that_leaks_and_how_much(changes, stage, difference):
    leaks = [(line.balance.stage, line.difference) for line in healthy(**changes).lines() if line.difference]
    assert leaks == [(stage, difference)]


def test_ledger_lines_leave_out_stages_that_wrote_nothing():
    ledger = read(Entry("producer.sockets", "h/1", 1, {"captured": 1, "published": 1}))
    assert [line.balance.stage for line in ledger.lines()] == ["producer.sockets", "requests"]


def test_ledger_losses_are_only_what_is_not_zero():
    assert healthy(lost_exchanges=4, dropped=0).losses() == {
        "events the kernel could not hand over (ring full)": 5,
        "events that are not valid": 1,
        "requests lost: seen, but not enough of them for a span": 4,
        "spans the backend refused": 2,
    }


def test_ledger_unchanged_entries_do_not_make_it_busy():
    ledger = read(Entry("p", "h", 10, {"captured": 1}), Entry("p", "h", IDLE_AFTER_NS + 9, {"captured": 1}))
    assert ledger.is_idle(IDLE_AFTER_NS + 10)


def test_ledger_changed_entry_makes_it_busy():
    ledger = read(Entry("p", "h", 10, {"captured": 1}), Entry("p", "h", IDLE_AFTER_NS + 9, {"captured": 2}))
    assert not ledger.is_idle(IDLE_AFTER_NS + 10)


class FakeProducer:
    """Acknowledges what it is sent, but for the first `failures` futures and `refusals` calls."""

    def __init__(self, failures: int = 0, refusals: int = 0) -> None:
        self.failures, self.refusals = failures, refusals
        self.delivered: list[tuple[bytes, dict[str, int]]] = []
        self.hold: asyncio.Event | None = None

    async def send(self, topic, value, *, key):
        assert topic == "ebbflow.ledger"
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError
        fails, self.failures = self.failures > 0, max(0, self.failures - 1)
        return asyncio.ensure_future(self._deliver(value, key, fails=fails))

    async def _deliver(self, value, key, *, fails):
        if self.hold is not None:
            await self.hold.wait()
        if fails:
            raise TimeoutError
        self.delivered.append((key, orjson.loads(value)["counters"]))


async def test_writer_entries_arrive_in_order_with_the_clocks_time():
    producer = FakeProducer()
    writer = LedgerWriter(producer, clock_unix_ns=lambda: 77)
    await writer.add("sink.traces", "t/0/1", {"received": 1})
    await writer.add("sink.traces", "t/0/2", {"received": 2})
    await writer.flush()
    assert producer.delivered == [(b"sink.traces|t/0/1", {"received": 1}), (b"sink.traces|t/0/2", {"received": 2})]


@pytest.mark.parametrize("faults", [{"failures": 2}, {"refusals": 2}, {"failures": 1, "refusals": 3}])
async def test_writer_failed_entries_are_sent_until_delivered(monkeypatch, faults):
    monkeypatch.setattr(ledger_module, "_FIRST_BACKOFF_S", 0.001)
    producer = FakeProducer(**faults)
    writer = LedgerWriter(producer)
    for number in range(3):
        await writer.add("s", str(number), {"n": number})
    await writer.flush()
    assert sorted(producer.delivered) == [(f"s|{number}".encode(), {"n": number}) for number in range(3)]


async def test_writer_later_entry_replaces_one_that_failed(monkeypatch):
    monkeypatch.setattr(ledger_module, "_FIRST_BACKOFF_S", 0.001)
    producer = FakeProducer(refusals=1)
    writer = LedgerWriter(producer)
    await writer.add("s", "run", {"n": 1})
    await writer.add("s", "run", {"n": 2})
    await writer.flush()
    assert producer.delivered == [(b"s|run", {"n": 2})]


async def test_writer_at_its_limit_waits_for_delivery():
    producer = FakeProducer()
    producer.hold = asyncio.Event()
    writer = LedgerWriter(producer, limit=2)
    await writer.add("s", "1", {})
    await writer.add("s", "2", {})
    third = asyncio.ensure_future(writer.add("s", "3", {}))
    await asyncio.sleep(0)
    assert not third.done()
    producer.hold.set()
    await third
    assert [key for key, _ in producer.delivered][:2] == [b"s|1", b"s|2"]


async def test_writer_flush_without_entries_returns():
    producer = FakeProducer()
    await LedgerWriter(producer).flush()
    assert producer.delivered == []
