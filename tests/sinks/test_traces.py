import pytest

from ebbflow.component import Record
from ebbflow.config import Config, OtlpConfig
from ebbflow.errors import ValidationError
from ebbflow.testing.otlp_backend import HttpBackend, Reply
from ebbflow.testing.spans import make_record, span_numbers
from sinks.traces import TracesSink


async def test_flush_delivers_what_was_added_as_one_request_of_the_same_bytes():
    records = [make_record(range(i, i + 3), offset=i) for i in (0, 3, 6)]
    async with HttpBackend() as backend:
        sink = TracesSink.from_config(Config(otlp=OtlpConfig(endpoint=backend.url)))
        for record in records:
            await sink.add(record)
        deliveries = await sink.flush(lambda _error: None)
        again = await sink.flush(lambda _error: None)
        await sink.close()
        assert backend.accepted == [b"".join(record.value for record in records)]
    assert [delivery.record.offset for delivery in deliveries] == [0, 3, 6]
    assert [delivery.counters for delivery in deliveries] == [{"received": 3, "exported": 3, "rejected": 0}] * 3
    assert again == []


async def test_flush_refused_gives_dead_letters_with_the_original_bytes():
    record = make_record(range(4))
    async with HttpBackend([Reply(400)]) as backend:
        sink = TracesSink.from_config(Config(otlp=OtlpConfig(endpoint=backend.url)))
        await sink.add(record)
        (delivery,) = await sink.flush(lambda _error: None)
        await sink.close()
    (letter,) = delivery.dead_letters
    assert (letter.value, letter.count, span_numbers(letter.value)) == (record.value, 4, [0, 1, 2, 3])
    assert delivery.counters == {"received": 4, "exported": 0, "rejected": 4}


async def test_add_garbage_raises_and_leaves_the_rest_untouched():
    async with HttpBackend() as backend:
        sink = TracesSink.from_config(Config(otlp=OtlpConfig(endpoint=backend.url)))
        await sink.add(make_record([1]))
        with pytest.raises(ValidationError):
            await sink.add(Record("otlp_spans", 0, 1, 0, None, b"garbage"))
        (delivery,) = await sink.flush(lambda _error: None)
        await sink.close()
        assert [span_numbers(body) for body in backend.accepted] == [[1]]
    assert delivery.record.offset == 0
