from random import Random

import pytest
from structlog.testing import capture_logs

from ebbflow.errors import EbbflowError, NetworkError, RateLimited, Rejected, TooLarge
from ebbflow.otlp.export import Accepted, Courier, Parcel
from ebbflow.otlp.signals import TRACES
from ebbflow.testing.spans import make_record, span_numbers


class ScriptedExporter:
    """Takes its answers from a list, then accepts; `limit_bytes` is the largest request it takes."""

    def __init__(self, *script: EbbflowError | Accepted, limit_bytes: int = 1 << 30) -> None:
        self.sent: list[list[int]] = []
        self.accepted: list[int] = []
        self._script = list(script)
        self._limit_bytes = limit_bytes

    async def send(self, body: bytes) -> Accepted:
        self.sent.append(span_numbers(body))
        if len(body) > self._limit_bytes:
            raise TooLarge("413")
        answer = self._script.pop(0) if self._script else Accepted()
        if isinstance(answer, EbbflowError):
            raise answer
        self.accepted += self.sent[-1]
        return answer

    async def close(self) -> None: ...


class Harness:
    def __init__(self, exporter: ScriptedExporter, batch_bytes: int = 1 << 20) -> None:
        self.exporter = exporter
        self.delays_s: list[float] = []
        self.reports: list[str] = []
        self.courier = Courier(TRACES, exporter, batch_bytes=batch_bytes, random=Random(1), sleep=self._sleep)

    async def _sleep(self, delay_s: float) -> None:
        self.delays_s.append(delay_s)

    async def deliver(self, *records):
        parcels = [Parcel(record, TRACES.count(record.value)) for record in records]
        await self.courier.deliver(parcels, lambda error: self.reports.append(error.code if error else "ok"))
        assert all(parcel.exported + parcel.rejected == parcel.count for parcel in parcels)
        return parcels


def records(count: int, spans: int = 10, **shape):
    """Records whose spans are numbered through."""
    return [make_record(range(i * spans, (i + 1) * spans), offset=i, **shape) for i in range(count)]


def dead(parcels) -> list[int]:
    return [number for parcel in parcels for letter in parcel.dead_letters for number in span_numbers(letter.value)]


async def test_deliver_small_records_are_one_request_in_order():
    harness = Harness(ScriptedExporter())
    parcels = await harness.deliver(*records(5))
    assert harness.exporter.sent == [list(range(50))]
    assert [parcel.exported for parcel in parcels] == [10] * 5


async def test_deliver_joins_up_to_the_limit_and_no_further():
    size = len(records(1)[0].value)
    harness = Harness(ScriptedExporter(), batch_bytes=2 * size)
    await harness.deliver(*records(5))
    assert [len(sent) for sent in harness.exporter.sent] == [20, 20, 10]


async def test_deliver_nothing_sends_nothing():
    harness = Harness(ScriptedExporter())
    assert await harness.deliver() == []
    assert await harness.deliver(make_record([]).__class__("t", 0, 0, 0, None, b"")) != []
    assert harness.exporter.sent == []


@pytest.mark.parametrize("shape", [{}, {"resources": 7}, {"resources": 2, "scopes": 3}])
async def test_deliver_oversize_record_is_split_before_it_is_sent(shape):
    (record,) = records(1, spans=64, **shape)
    limit = len(record.value) // 3
    harness = Harness(ScriptedExporter(limit_bytes=limit), batch_bytes=limit)
    (parcel,) = await harness.deliver(record)
    assert sorted(harness.exporter.accepted) == list(range(64))
    assert (parcel.exported, parcel.dead_letters, harness.reports.count("EBB711")) == (64, [], 0)


async def test_deliver_oversize_span_is_a_dead_letter_and_never_sent():
    harness = Harness(ScriptedExporter(), batch_bytes=10_000)
    large = make_record([1], padding_bytes=20_000)
    parcels = await harness.deliver(make_record([0]), large, make_record([2]))
    assert harness.exporter.sent == [[0, 2]]
    assert [parcel.rejected for parcel in parcels] == [0, 1, 0]
    (letter,) = parcels[1].dead_letters
    assert (letter.value, letter.count, letter.code) == (large.value, 1, "EBB711")


async def test_deliver_too_large_for_the_backend_is_halved_down_to_records_and_spans():
    (one,) = records(1, spans=1)
    harness = Harness(ScriptedExporter(limit_bytes=3 * len(one.value)))
    parcels = await harness.deliver(*records(3, spans=4))
    assert sorted(harness.exporter.accepted) == list(range(12))
    assert [parcel.exported for parcel in parcels] == [4, 4, 4]
    assert dead(parcels) == []


async def test_deliver_single_span_too_large_for_the_backend_is_a_dead_letter():
    small = records(1, spans=1)[0].value
    harness = Harness(ScriptedExporter(limit_bytes=4 * len(small)))
    parcels = await harness.deliver(make_record([0, 1]), make_record([2], padding_bytes=900), make_record([3]))
    assert sorted(harness.exporter.accepted) == [0, 1, 3]
    assert dead(parcels) == [2]
    assert [(parcel.exported, parcel.rejected) for parcel in parcels] == [(2, 0), (0, 1), (1, 0)]


async def test_deliver_retriable_failure_is_repeated_with_the_same_request_until_it_succeeds():
    harness = Harness(ScriptedExporter(*[NetworkError("away")] * 40))
    await harness.deliver(*records(2))
    assert harness.exporter.sent == [list(range(20))] * 41
    assert harness.exporter.accepted == list(range(20))
    assert max(harness.delays_s) <= 45.0
    assert harness.reports == ["EBB400"] * 40 + ["ok"]


async def test_deliver_rate_limited_waits_at_least_what_was_asked():
    harness = Harness(ScriptedExporter(RateLimited("slow", retry_after_s=7.0), NetworkError("away")))
    await harness.deliver(*records(1))
    assert 7.0 <= harness.delays_s[0] <= 7.7
    assert 5.25 <= harness.delays_s[1] <= 15.75


async def test_deliver_refused_request_is_sent_once_and_every_record_is_a_dead_letter():
    harness = Harness(ScriptedExporter(Rejected("400")))
    parcels = await harness.deliver(*records(3))
    assert len(harness.exporter.sent) == 1
    assert [parcel.dead_letters[0].value for parcel in parcels] == [parcel.record.value for parcel in parcels]
    assert [(parcel.exported, parcel.rejected) for parcel in parcels] == [(0, 10)] * 3
    assert harness.reports == ["EBB710"]


async def test_deliver_refused_request_does_not_stop_the_next():
    size = len(records(1)[0].value)
    harness = Harness(ScriptedExporter(Rejected("400")), batch_bytes=size)
    parcels = await harness.deliver(*records(3))
    assert [parcel.exported for parcel in parcels] == [0, 10, 10]
    assert harness.reports == ["EBB710", "ok", "ok"]


@pytest.mark.parametrize(
    ("rejected", "exported"), [(0, [10, 10, 10]), (3, [10, 10, 7]), (25, [5, 0, 0]), (99, [0, 0, 0])]
)
async def test_deliver_partial_success_is_counted_and_not_repeated(rejected, exported):
    harness = Harness(ScriptedExporter(Accepted(rejected, "some")))
    parcels = await harness.deliver(*records(3))
    assert [parcel.exported for parcel in parcels] == exported
    assert len(harness.exporter.sent) == 1
    assert dead(parcels) == []


async def test_deliver_passes_other_errors_on():
    harness = Harness(ScriptedExporter(limit_bytes=10))
    harness.exporter.send = None  # type: ignore[method-assign]
    with pytest.raises(TypeError):
        await harness.deliver(*records(1))


async def test_to_delivery_balances():
    harness = Harness(ScriptedExporter(Accepted(4)))
    (parcel,) = await harness.deliver(*records(1))
    assert parcel.to_delivery().counters == {"received": 10, "exported": 6, "rejected": 4}


async def test_deliver_same_warning_again_is_logged_once():
    harness = Harness(ScriptedExporter(Accepted(0, "slow"), Accepted(0, "slow"), Accepted(2, "full")), batch_bytes=1000)
    with capture_logs() as logs:
        await harness.deliver(*records(3))
    assert [(entry["message"], entry["rejected"]) for entry in logs] == [("slow", 0), ("full", 2)]
