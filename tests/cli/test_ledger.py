import orjson
import pytest
from typer.testing import CliRunner

from ebbflow.cli import make_app
from ebbflow.cli.ledger import to_report, to_text
from ebbflow.ledger import Entry, Ledger


def ledger_of(*entries: Entry, garbage: int = 0) -> Ledger:
    ledger = Ledger()
    for entry in entries:
        ledger.add(entry.to_output().value)
    for _ in range(garbage):
        ledger.add(b"garbage")
    return ledger


def entries(time_unix_ns: int = 0, **changes: int) -> list[Entry]:
    producer = {"captured": 10, "lost": 1, "dropped": 0, "published": 9, "buffered": 0} | changes
    return [
        Entry("producer.sockets", "host/run", time_unix_ns, producer),
        Entry("requests", "t/0/1", time_unix_ns, {"events": 8, "invalid": 1, "spans": 4, "lost_exchanges": 2}),
        Entry("sink.traces", "t/0/1", time_unix_ns, {"received": 4, "exported": 4, "rejected": 0}),
    ]


LONG_AFTER_NS = 60_000_000_000


@pytest.fixture
def run(monkeypatch):
    def run(ledger: Ledger, *arguments: str):
        async def read(_config):
            return ledger

        monkeypatch.setattr("ebbflow.ledger_reader.read_ledger", read)
        return CliRunner().invoke(make_app(), ["ledger", *arguments], catch_exceptions=False)

    return run


def test_ledger_balanced_is_status_0_and_shows_sums_and_losses(run):
    result = run(ledger_of(*entries()))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "producer.sockets   captured 10  lost 1  published 9",
        "requests           events 8  invalid 1  spans 4  lost_exchanges 2",
        "sink.traces        received 4  exported 4",
        "balanced  captured = lost + dropped + published + buffered: 10 = 1 + 0 + 9 + 0",
        "balanced  published = events + invalid: 9 = 8 + 1",
        "balanced  spans = exported + rejected: 4 = 4 + 0",
        "1 events the kernel could not hand over (ring full)",
        "1 events that are not valid",
        "2 requests lost: seen, but not enough of them for a span",
    ]


def test_ledger_leak_when_idle_is_status_1_and_names_the_stage(run):
    result = run(ledger_of(*entries(published=12)))
    assert result.exit_code == 1
    assert "LEAK      published = events + invalid: 12 = 8 + 1: 3 missing at requests" in result.stdout.splitlines()
    assert "12 + 0: 3 too many at producer.sockets" in result.stdout


def test_ledger_difference_in_motion_is_status_0():
    report = to_report(ledger_of(*entries(LONG_AFTER_NS, published=12)), LONG_AFTER_NS + 1)
    assert report["leaks"] == []
    assert "moving    published = events + invalid: 12 = 8 + 1: 3 missing so far" in list(to_text(report))


def test_ledger_json_has_stages_balances_and_losses(run):
    result = run(ledger_of(*entries(), garbage=2), "--json")
    report = orjson.loads(result.stdout)
    assert report["stages"]["sink.traces"] == {"received": 4, "exported": 4, "rejected": 0}
    assert report["balances"][1] == {
        "name": "published = events + invalid",
        "stage": "requests",
        "total": 9,
        "parts": {"events": 8, "invalid": 1},
        "difference": 0,
        "balanced": True,
    }
    assert (report["idle"], report["leaks"], report["invalid_entries"]) == (True, [], 2)


def test_ledger_garbage_is_counted(run):
    assert run(ledger_of(garbage=3)).stdout.splitlines() == [
        "nothing has been written to the ledger yet",
        "3 records that are no ledger entries",
    ]
