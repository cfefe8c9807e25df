"""Dead letters: data that could not be used or delivered, as a Kafka record that says where it came from and why.

The value is the original bytes; everything else stands in headers, as text (see `HEADERS`).
"""

from __future__ import annotations

from ebbflow.component import DeadLetter, Output, Record
from ebbflow.topics import DEAD_LETTERS

# A reason may quote a peer; it must not outgrow the data.
MAX_REASON_CHARACTERS = 1000

HEADERS = (
    "ebbflow-topic",
    "ebbflow-partition",
    "ebbflow-offset",
    "ebbflow-timestamp-ms",  # of the source record
    "ebbflow-stage",
    "ebbflow-code",  # of the error tree
    "ebbflow-reason",
    "ebbflow-time-unix-ns",  # when it was given up
    "ebbflow-count",  # events or spans in the value
)


def to_output(record: Record, letter: DeadLetter, *, stage: str, time_unix_ns: int) -> Output:
    """The record for `ebbflow.dlq`; its key is the source topic."""
    texts = (
        record.topic,
        record.partition,
        record.offset,
        record.timestamp_ms,
        stage,
        letter.code,
        letter.reason[:MAX_REASON_CHARACTERS],
        time_unix_ns,
        letter.count,
    )
    headers = tuple((name, str(text).encode("utf-8", "replace")) for name, text in zip(HEADERS, texts, strict=True))
    return Output(DEAD_LETTERS, record.topic.encode(), letter.value, headers)
