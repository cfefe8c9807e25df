import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ebbflow.errors import BatchInvalid
from ebbflow.kernel.event_rows import LARGEST_PAYLOAD_BYTES, check_rows, event_batch, payloads_of, rules
from ebbflow.kernel.layout import BPF_DIRECTORY, EventLayout, read_header
from ebbflow.producing.batching import BatchBuilder, Origin
from ebbflow.records import encode
from ebbflow.v1 import raw_pb2

ROW = read_header(BPF_DIRECTORY / "event.h").structs["event_row"]
POINT = np.dtype([("x", "<u8"), ("y", "<u4")])
HEAD = np.dtype([("count", "<u4")])
KINDS = {1: POINT, 2: range(4, 65), 3: None}
LAYOUT = EventLayout(ROW, KINDS, {1: POINT, 2: HEAD}, {1: "point", 2: "list", 3: "text"})
NOW_NS = 10**15
SECOND_NS = 10**9
ATTACHED_NS = NOW_NS - 60 * SECOND_NS


def sound_rows(count=7):
    """Rows of all kinds in turn, and their payload."""
    rows = np.zeros(count, ROW.dtype)
    rows["time_ns"] = NOW_NS - np.arange(count)[::-1] * 1000
    rows["since_ns"] = rows["time_ns"] - 1000
    rows["start_boottime_ns"] = 5 * SECOND_NS
    rows["sequence"] = np.arange(count)
    rows["pid"], rows["tid"], rows["comm"] = 4242, 4243, b"worker"
    rows["kind"] = 1 + np.arange(count) % 3
    payloads = [payload_of(int(kind), number) for number, kind in enumerate(rows["kind"].tolist())]
    rows["captured"] = [len(payload) for payload in payloads]
    return rows, payloads


def payload_of(kind, number):
    if kind == 1:
        return np.array((number, number + 1), POINT).tobytes()
    if kind == 2:
        return np.array(number, "<u4").tobytes() + b"x" * (number % 60)
    return b"t" * number


def encoded(rows, payloads, **envelope):
    builder = BatchBuilder(
        Origin("test", "host", "host", bytes(16), 1), 0, ROW, NoDictionary(), clock_point, batch_bytes=800_000
    )
    builder.add(rows, payloads, np.array([len(payload) for payload in payloads], np.int64))
    (built,) = builder.build()
    if not envelope:
        return built.value
    changed = raw_pb2.RawBatch.FromString(built.value)
    changed.MergeFrom(raw_pb2.RawBatch(**envelope))
    return changed.SerializeToString()


def clock_point():
    return raw_pb2.ClockPoint(monotonic_ns=NOW_NS, unix_ns=NOW_NS + 5, uncertainty_ns=1)


class NoDictionary:
    def fill(self, envelope, rows, heap, ends):
        pass


def check(rows, lengths=None):
    lengths = rows["captured"].astype(np.int64) if lengths is None else np.asarray(lengths)
    return check_rows(rows, lengths, kinds=KINDS, now_ns=NOW_NS, attached_ns=ATTACHED_NS)


def test_check_rows_of_sound_rows_keeps_all():
    assert check(sound_rows()[0]).all()
    assert check(sound_rows(0)[0]).shape == (0,)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("kind", 0, "unknown kind"),
        ("kind", 4, "unknown kind"),
        ("kind", 255, "unknown kind"),
        ("captured", 11, "payload does not fit the kind"),
        ("captured", 0, "payload does not fit the kind"),
        ("captured", 2**32 - 1, "payload does not fit the kind"),
        ("time_ns", 0, "time out of range"),
        ("time_ns", NOW_NS + 2 * SECOND_NS, "time out of range"),
        ("time_ns", ATTACHED_NS - 61 * SECOND_NS, "time out of range"),
        ("time_ns", 2**64 - 1, "time out of range"),
        ("since_ns", NOW_NS + 1, "began after its time"),
        ("pid", (1 << 22) + 1, "no such process id"),
        ("tid", 2**32 - 1, "no such process id"),
        ("pid", 0, "a start or a thread without its process"),
        ("start_boottime_ns", 2**63, "started after its time"),
        ("start_boottime_ns", 2**64 - 1, "started after its time"),
    ],
)
def test_check_rows_of_one_bad_row_leaves_it_out_and_says_why(field, value, reason):
    rows, _ = sound_rows()
    lengths = rows["captured"].astype(np.int64)
    rows[3][field] = value
    if field == "captured":
        lengths[3] = value
    assert check(rows, lengths).tolist() == [True] * 3 + [False] + [True] * 3
    broken = rules(rows, lengths, kinds=KINDS, now_ns=NOW_NS, attached_ns=ATTACHED_NS)
    assert np.flatnonzero(broken[reason]).tolist() == [3]


@pytest.mark.parametrize(
    ("kind", "length", "fits"),
    [
        (1, 12, True),
        (1, 13, False),
        (2, 3, False),
        (2, 4, True),
        (2, 64, True),
        (2, 65, False),
        (3, 0, True),
        (3, LARGEST_PAYLOAD_BYTES, True),
        (3, LARGEST_PAYLOAD_BYTES + 1, False),
    ],
)
def test_check_rows_length_by_kind(kind, length, fits):
    rows, _ = sound_rows(1)
    rows["kind"], rows["captured"] = kind, length
    assert check(rows, [length]).tolist() == [fits]
    # What is there counts as much as what the row says.
    rows["captured"] = {1: 12, 2: 4, 3: 0}[kind]
    assert check(rows, [length]).tolist() == [fits]


def test_check_rows_of_no_process_or_an_unknown_start_are_valid():
    rows, _ = sound_rows(2)
    rows["pid"][0] = rows["tid"][0] = rows["start_boottime_ns"][0] = 0
    rows["start_boottime_ns"][1] = 0
    assert check(rows).all()


def test_check_rows_empty_range_fits_nothing():
    rows, _ = sound_rows(1)
    rows["kind"], rows["captured"] = 9, 0
    assert not check_rows(rows, np.zeros(1), kinds={9: range(0)}, now_ns=NOW_NS, attached_ns=ATTACHED_NS).any()


@given(st.binary(min_size=ROW.size, max_size=20 * ROW.size), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_check_rows_of_any_bytes_gives_a_mask(data, now_ns, attached_ns):
    rows = np.frombuffer(data[: len(data) // ROW.size * ROW.size], ROW.dtype)
    mask = check_rows(
        rows, rows["captured"].astype(np.int64), kinds=KINDS, now_ns=now_ns, attached_ns=attached_ns
    )  # fmt: skip
    assert (mask.dtype, mask.shape) == (np.bool_, rows.shape)


def naive_payloads(rows, starts, heap, dtype, kind):
    return [
        np.frombuffer(heap, dtype, count=1, offset=int(start))[0].tobytes()
        for row, start in zip(rows, starts, strict=True)
        if row["kind"] == kind
    ]


@given(st.integers(0, 40))
def test_payloads_of_gathers_what_a_loop_would(count):
    rows, payloads = sound_rows(count)
    heap = b"front" + b"".join(payloads)
    starts = 5 + np.cumsum([0, *map(len, payloads)])[:-1]
    for dtype, kind in ((POINT, 1), (HEAD, 2)):
        gathered = payloads_of(rows, starts, heap, dtype, kind)
        assert gathered.dtype == dtype
        assert [one.tobytes() for one in gathered] == naive_payloads(rows, starts, heap, dtype, kind)


def test_payloads_of_rows_beyond_the_heap_is_refused():
    rows, _ = sound_rows(1)
    with pytest.raises(BatchInvalid, match="beyond"):
        payloads_of(rows, np.array([1]), bytes(12), POINT, 1)


def test_event_batch_gives_rows_and_payload():
    rows, payloads = sound_rows()
    batch = event_batch(encoded(rows, payloads), LAYOUT)
    assert (batch.invalid, batch.letters, batch.unix_offset_ns) == (0, [], 5)
    assert batch.rows.tobytes() == rows.tobytes()
    assert [batch.payload(index) for index in range(7)] == payloads
    assert batch.payloads("point").tolist() == [(0, 1), (3, 4), (6, 7)]
    assert batch.payloads("list")["count"].tolist() == [1, 4]
    assert batch.of_kind("list")["sequence"].tolist() == [1, 4]


def test_event_batch_with_bad_rows_sets_them_aside_with_their_bytes():
    rows, payloads = sound_rows()
    rows["kind"][2] = rows["kind"][5] = 77
    rows["since_ns"][4] = 2**63
    batch = event_batch(encoded(rows, payloads), LAYOUT)
    assert batch.rows["sequence"].tolist() == [0, 1, 3, 6]
    assert [batch.payload(index) for index in range(4)] == [payloads[index] for index in (0, 1, 3, 6)]
    assert batch.payloads("list")["count"].tolist() == [1]
    assert batch.invalid == 3
    assert {letter.reason: (letter.count, letter.value) for letter in batch.letters} == {
        "unknown kind": (2, rows[2].tobytes() + payloads[2] + rows[5].tobytes() + payloads[5]),
        "began after its time": (1, rows[4].tobytes() + payloads[4]),
    }


def test_event_batch_of_many_bad_rows_keeps_the_letter_short():
    rows, payloads = sound_rows(1500)
    rows["kind"] = 99
    (letter,) = event_batch(encoded(rows, payloads), LAYOUT).letters
    assert (letter.count, len(letter.value)) == (1500, LARGEST_PAYLOAD_BYTES)


@pytest.mark.parametrize("frame", [raw_pb2.Frame(process=1), raw_pb2.Frame(mapping=2)])
def test_event_batch_with_a_frame_of_nothing_is_invalid(frame):
    rows, payloads = sound_rows(1)
    with pytest.raises(BatchInvalid, match="frame"):
        event_batch(encoded(rows, payloads, frames=[frame], mappings=[raw_pb2.Mapping()]), LAYOUT)


VALID = encoded(*sound_rows())
CPUS_FIELD = raw_pb2.RawBatch.CPUS_FIELD_NUMBER


def used(value):
    """What a consumer does with any value: it has rows, or it is told that it has none."""
    try:
        batch = event_batch(value, LAYOUT)
    except BatchInvalid:
        return None
    assert sum(letter.count for letter in batch.letters) == batch.invalid
    for kind in ("point", "list"):
        assert len(batch.payloads(kind)) == len(batch.of_kind(kind))
    for index in range(len(batch.rows)):
        batch.payload(index)
    return batch


@given(st.binary(max_size=2000))
@example(b"")
def test_event_batch_of_any_bytes_is_invalid(value):
    assert used(value) is None


@given(st.integers(0, len(VALID) - 1))
def test_event_batch_cut_anywhere_is_invalid(length):
    batch = used(VALID[:length])
    # Up to its clock point a batch is a heartbeat.
    assert batch is None or (len(batch.rows), batch.invalid, VALID[length] >> 3) == (0, 0, CPUS_FIELD)


@pytest.mark.parametrize(("field", "told"), [("cpus", "7 rows, but"), ("clock", "no clock"), ("host_id", "no host")])
def test_event_batch_that_lacks_something_is_invalid(field, told):
    envelope = raw_pb2.RawBatch.FromString(VALID)
    envelope.ClearField(field)
    with pytest.raises(BatchInvalid, match=told):
        event_batch(envelope.SerializeToString(), LAYOUT)


@given(st.lists(st.integers(0, 8 * len(VALID) - 1), min_size=1, max_size=5))
def test_event_batch_with_flipped_bits_is_told_or_used(bits):
    value = bytearray(VALID)
    for bit in bits:
        value[bit // 8] ^= 1 << bit % 8
    batch = used(bytes(value))
    assert batch is None or len(batch.rows) + batch.invalid == 7


@given(st.lists(st.integers(0, 8 * ROW.size - 1), min_size=1, max_size=8), st.integers(0, 6))
def test_event_batch_with_one_row_damaged_keeps_the_others(bits, damaged):
    rows, payloads = sound_rows()
    raw = rows.view(np.uint8).reshape(7, ROW.size)
    for bit in bits:
        raw[damaged, bit // 8] ^= 1 << bit % 8
    rows["kind"][damaged] = 200
    batch = used(batch_of(rows, payloads))
    others = [index for index in range(7) if index != damaged]
    assert batch.invalid == 1
    assert batch.rows.tobytes() == rows[others].tobytes()
    assert [batch.payload(index) for index in range(6)] == [payloads[index] for index in others]


@given(st.lists(st.integers(0, 2**32 - 1), max_size=9), st.integers(0, 2**32 - 1), st.integers(0, 9 * ROW.size))
def test_event_batch_with_absurd_lengths_is_told(ends, count, row_bytes):
    rows, payloads = sound_rows()
    envelope = raw_pb2.RawBatch.FromString(batch_of(rows, payloads))
    envelope.row_count = count
    envelope.rows = (rows.tobytes() * 2)[:row_bytes]
    envelope.heap_ends = np.array(ends, "<u4").tobytes()
    batch = used(envelope.SerializeToString())
    assert batch is None or len(batch.rows) + batch.invalid == count


def batch_of(rows, payloads):
    envelope = raw_pb2.RawBatch(host_id="host", boot_id=bytes(16), clock=clock_point())
    envelope.cpus.add(count=len(rows))
    ends = np.cumsum([len(payload) for payload in payloads]).astype("<u4").tobytes()
    return encode(envelope, ROW, rows.tobytes(), ends, b"".join(payloads))
