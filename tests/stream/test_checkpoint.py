from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebbflow.errors import ValidationError
from ebbflow.stream.checkpoint import Checkpoint, Pace, decode, encode, to_output

OFFSETS = st.integers(0, 2**62)
CHECKPOINTS = st.builds(
    Checkpoint,
    next_offset=OFFSETS,
    snapshot_version=st.integers(0, 2**32 - 1),
    watermark_ns=OFFSETS,
    newest_timestamp_ms=st.integers(-1, 2**62),
    recent=st.binary(max_size=20),
    state=st.binary(max_size=200),
)


@settings(max_examples=50)
@given(CHECKPOINTS)
def test_checkpoint_written_and_read_is_the_same(checkpoint):
    assert decode(encode(checkpoint)) == checkpoint


def test_checkpoint_record_has_topic_and_key():
    output = to_output("requests", "ebbflow.raw.sockets", 3, Checkpoint(next_offset=1, snapshot_version=1))
    assert (output.topic, output.key) == ("ebbflow.checkpoints", b"requests|ebbflow.raw.sockets|3")


def test_checkpoint_of_repeating_state_is_small():
    assert len(encode(Checkpoint(next_offset=1, snapshot_version=1, state=b"state " * 10_000))) < 200


@settings(max_examples=50)
@given(st.binary(max_size=100))
def test_decode_any_bytes_are_refused(value):
    with pytest.raises(ValidationError):
        decode(value)


@settings(max_examples=50)
@given(CHECKPOINTS, st.data())
def test_decode_any_flipped_bit_is_refused(checkpoint, data):
    value = bytearray(encode(checkpoint))
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValidationError):
        decode(bytes(value))


def test_decode_checksum_right_but_content_short_is_refused():
    from zlib import crc32

    import cramjam

    body = bytes(cramjam.zstd.compress(b"short"))
    with pytest.raises(ValidationError, match="damaged"):
        decode(b"EBC1" + crc32(body).to_bytes(4, "big") + body)


def test_pace_is_due_after_the_interval():
    pace = Pace(1.0, now_s=10.0)
    assert (pace.is_due(10.9), pace.is_due(11.0)) == (False, True)


def test_pace_quick_checkpoint_waits_the_interval():
    pace = Pace(1.0, now_s=0.0)
    pace.wrote(5.0, 5.01)
    assert (pace.is_due(6.0), pace.is_due(6.02)) == (False, True)


def test_pace_slow_checkpoint_takes_five_percent_of_the_time():
    pace = Pace(1.0, now_s=0.0)
    pace.wrote(5.0, 5.5)
    assert (pace.is_due(15.4), pace.is_due(15.5)) == (False, True)
