"""A partition's state on the compacted topic `ebbflow.checkpoints`, and how often it is worth writing.

key     processor | topic | partition
value   "EBC1" | crc32 of the rest (4 bytes, big endian) | zstd(msgpack map of the fields of Checkpoint)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from zlib import crc32

import cramjam

from ebbflow.component import Output
from ebbflow.errors import ValidationError
from ebbflow.topics import CHECKPOINTS, topic

_MAGIC = b"EBC1"
_FIELDS = struct.Struct(">qIqqI")
_ZSTD_LEVEL = 1
# The broker counts the batch's and the record's own framing too.
MAX_BYTES = topic(CHECKPOINTS).max_message_bytes - 4096
# Share of time that writing checkpoints may take.
_DUTY = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """State after all records below `next_offset`.

    Attributes:
        snapshot_version: the processor's, when the state was taken.
        watermark_ns: largest event time so far, unix.
        newest_timestamp_ms: largest Kafka timestamp so far; a newer record below `next_offset` means another topic
            of the same name.
        recent: the circuit breaker's window, oldest first, one byte a record: 1 for bad.
        state: the processor's snapshot.
    """

    next_offset: int
    snapshot_version: int
    watermark_ns: int = 0
    newest_timestamp_ms: int = -1
    recent: bytes = b""
    state: bytes = b""


def key(processor: str, topic: str, partition: int) -> bytes:
    return f"{processor}|{topic}|{partition}".encode()


def encode(checkpoint: Checkpoint) -> bytes:
    fields = _FIELDS.pack(
        checkpoint.next_offset,
        checkpoint.snapshot_version,
        checkpoint.watermark_ns,
        checkpoint.newest_timestamp_ms,
        len(checkpoint.recent),
    )
    body = bytes(cramjam.zstd.compress(fields + checkpoint.recent + checkpoint.state, level=_ZSTD_LEVEL))
    return _MAGIC + crc32(body).to_bytes(4, "big") + body


def to_output(processor: str, topic: str, partition: int, checkpoint: Checkpoint) -> Output:
    """The Kafka record."""
    return Output(CHECKPOINTS, key(processor, topic, partition), encode(checkpoint))


def decode(value: bytes) -> Checkpoint:
    """Parse a record's value.

    Raises:
        ValidationError: it is damaged, or of a form that this release does not know.
    """
    if value[:4] != _MAGIC:
        raise ValidationError(f"not a checkpoint: it begins with {value[:4]!r}")
    body = value[8:]
    if crc32(body) != int.from_bytes(value[4:8], "big"):
        raise ValidationError("damaged checkpoint: the checksum differs")
    try:
        content = bytes(cramjam.zstd.decompress(body))
        next_offset, version, watermark_ns, newest_timestamp_ms, length = _FIELDS.unpack_from(content)
    except (cramjam.DecompressionError, struct.error) as error:
        raise ValidationError(f"damaged checkpoint: {error}") from None
    rest = content[_FIELDS.size :]
    return Checkpoint(
        next_offset=next_offset,
        snapshot_version=version,
        watermark_ns=watermark_ns,
        newest_timestamp_ms=newest_timestamp_ms,
        recent=rest[:length],
        state=rest[length:],
    )


class Pace:
    """Says when the next checkpoint is due: at most every `interval_s`, and at most 5 % of the time.

    Times are seconds of one monotonic clock.
    """

    def __init__(self, interval_s: float, now_s: float) -> None:
        self._interval_s = interval_s
        self._due_s = now_s + interval_s

    def is_due(self, now_s: float) -> bool:
        return now_s >= self._due_s

    def wrote(self, began_s: float, ended_s: float) -> None:
        """A round of checkpoints took this long; what it cost decides how long the next one waits."""
        self._due_s = ended_s + max(self._interval_s, (ended_s - began_s) / _DUTY)
