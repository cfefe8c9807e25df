from types import SimpleNamespace

import orjson
import pytest
from typer.testing import CliRunner

from ebbflow import dead_letters
from ebbflow.cli import make_app
from ebbflow.cli.dlq import to_letter
from ebbflow.component import DeadLetter, Record
from ebbflow.errors import DependencyError


def letter(offset: int, stage: str = "requests", code: str = "EBB601"):
    record = Record("ebbflow.raw.sockets", 2, offset, 77, b"k", b"payload")
    output = dead_letters.to_output(
        record, DeadLetter(code, "no good", b"payload", 3), stage=stage, time_unix_ns=1_700_000_000_000_000_000
    )
    return SimpleNamespace(partition=0, offset=offset, headers=output.headers, value=output.value)


@pytest.fixture
def run(monkeypatch):
    def run(letters, *arguments: str, topics=frozenset({"ebbflow.dlq"})):
        async def read(_make, topic):
            assert topic == "ebbflow.dlq"
            for one in letters:
                yield one

        async def reach(_config):
            return SimpleNamespace(topics=topics)

        monkeypatch.setattr("ebbflow.log_reader.read_topic", read)
        monkeypatch.setattr("ebbflow.kafka.check_reachable", reach)
        return CliRunner().invoke(make_app(), ["dlq", *arguments], catch_exceptions=False)

    return run


def test_dlq_lists_letters_and_counts_them(run):
    result = run([letter(5), letter(6), letter(7, "sink.traces", "EBB710")])
    assert result.stdout.splitlines() == [
        "2023-11-14 22:13:20  requests  EBB601  ebbflow.raw.sockets/2/5  7 bytes  no good",
        "2023-11-14 22:13:20  requests  EBB601  ebbflow.raw.sockets/2/6  7 bytes  no good",
        "2023-11-14 22:13:20  sink.traces  EBB710  ebbflow.raw.sockets/2/7  7 bytes  no good",
        "2 of requests with EBB601",
        "1 of sink.traces with EBB710",
    ]


def test_dlq_json_is_one_letter_a_line(run):
    (line,) = run([letter(5)], "--json").stdout.splitlines()
    assert orjson.loads(line) == {
        "dlq_partition": 0,
        "dlq_offset": 5,
        "stage": "requests",
        "code": "EBB601",
        "reason": "no good",
        "topic": "ebbflow.raw.sockets",
        "partition": 2,
        "offset": 5,
        "timestamp_ms": 77,
        "time_unix_ns": 1_700_000_000_000_000_000,
        "count": 3,
        "bytes": 7,
    }


def test_dlq_limit_and_stage_choose(run):
    letters = [letter(number, stage) for number, stage in enumerate(("requests", "sink.traces", "requests"))]
    lines = run(letters, "--stage", "requests", "--limit", "1", "--json").stdout.splitlines()
    assert [orjson.loads(line)["offset"] for line in lines] == [2]
    assert len(run(letters, "--limit", "0", "--json").stdout.splitlines()) == 3


def test_dlq_empty_says_so(run):
    assert run([]).stdout == "no dead letters\n"


def test_dlq_without_topic_is_a_clear_error(run):
    with pytest.raises(DependencyError, match=r"Kafka has no topic ebbflow\.dlq"):
        run([], topics=frozenset())


def test_letter_somebody_else_wrote_has_empty_provenance():
    found = to_letter(0, 9, [("ebbflow-offset", b"many"), ("other", b"\xff")], None)
    assert (found["dlq_offset"], found["stage"], found["offset"], found["bytes"]) == (9, "", None, 0)
