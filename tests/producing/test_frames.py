"""Stacks behind rows, and the batch dictionary of their addresses."""

import struct

import numpy as np
import pytest

from ebbflow.kernel.layout import event_layout
from ebbflow.producing.frames import KERNEL, FrameDictionary, StackFormat
from ebbflow.symbols import Frame, FrameKind, Mapping
from ebbflow.v1 import raw_pb2

START = 123_456_789
LIBC = Mapping("/usr/lib/libc.so.6", "abcdef", 0x7000, 0x9000, 0x1000)
HEADER = """
enum some_kind { SOME_BOTH = 1, SOME_USER = 2, SOME_OTHER = 3 };
struct some_both_head {
	__u64 period_ns;
	__u16 kernel_frames;
	__u16 user_frames;
	__u32 reserved;
};
struct some_user_head {
	__u32 frames;
	__u32 lost;
};
struct some_other {
	__u64 value;
};
"""
BOTH, USER, OTHER = 1, 2, 3


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    path = tmp_path_factory.mktemp("bpf") / "some.h"
    path.with_name("event.h").write_text("struct event_row {\n" + ROW + "};\n")
    path.write_text(HEADER)
    return event_layout(path)


ROW = """
	__u64 time_ns;
	__u64 start_boottime_ns;
	__u32 pid;
	__u32 captured;
	__u8 kind;
	__u8 cpu;
	__u16 flags;
	__u32 reserved;
"""


class Processes:
    """Every process of the rows, but for those that are ebbflow's own."""

    def __init__(self, ours=()):
        self.ours = ours

    def fill(self, envelope, rows, heap, ends):
        for pid in sorted(set(rows["pid"].tolist()) - {0, *self.ours}):
            envelope.processes.add(pid=pid, start_boottime_ns=START)


def both(kernel, user):
    return struct.pack(f"<QHHI{len(kernel) + len(user)}Q", 9, len(kernel), len(user), 0, *kernel, *user)


def rows_of(layout, *rows):
    """(kind, pid, payload) as rows, heap and ends."""
    made = np.zeros(len(rows), layout.row.dtype)
    for index, (kind, pid, payload) in enumerate(rows):
        made[index]["kind"], made[index]["pid"], made[index]["captured"] = kind, pid, len(payload)
        made[index]["start_boottime_ns"] = START if pid else 0
    payloads = [payload for _, _, payload in rows]
    return made, b"".join(payloads), np.cumsum([len(payload) for payload in payloads], dtype=np.int64)


def fill(layout, known, *rows, names=True, ours=()):
    dictionary = FrameDictionary(Processes(ours), StackFormat(layout), names=names)
    for upid, frames in known.items():
        dictionary.learn(upid, frames)
    envelope = raw_pb2.RawBatch()
    dictionary.fill(envelope, *rows_of(layout, *rows))
    return envelope


def test_split_gives_kernel_then_user_addresses(layout):
    stacks = StackFormat(layout)
    assert stacks.kinds == {BOTH, USER}
    assert stacks.split(BOTH, both([1, 2], [3, 4, 5])) == ([1, 2], [3, 4, 5])
    assert stacks.split(USER, struct.pack("<II2Q", 2, 0, 7, 8)) == ([], [7, 8])
    assert stacks.split(USER, struct.pack("<II", 0, 1)) == ([], [])


def test_split_of_a_payload_cut_short_gives_what_is_there(layout):
    assert StackFormat(layout).split(BOTH, both([1, 2], [3, 4])[:-12]) == ([1, 2], [])


def test_cut_keeps_the_addresses_that_are_wanted_and_counts_them(layout):
    stacks = StackFormat(layout)
    assert stacks.cut(BOTH, both([1, 2, 3], [4, 5]), slice(2, None), slice(1)) == both([3], [4])
    user = struct.pack("<II2Q", 2, 7, 8, 9)
    assert stacks.cut(USER, user, slice(None), slice(1)) == struct.pack("<IIQ", 1, 7, 8)


def test_fill_writes_one_frame_for_each_address_and_process(layout):
    main, read = Frame(FrameKind.NATIVE, "main", 0x7010, LIBC, 0x1010), Frame(FrameKind.KERNEL, "vfs_read", 0xF1)
    known = {(7, START): [main], KERNEL: [read]}
    stack = both([0xF1], [0x7010, 0x7010, 0x7020])
    envelope = fill(layout, known, (BOTH, 7, stack), (BOTH, 7, stack), (BOTH, 8, both([], [0x7010])), (OTHER, 9, b"x"))
    pids = [0] + [process.pid for process in envelope.processes]
    found = [(frame.address, pids[frame.process], frame.function, frame.kind) for frame in envelope.frames]
    assert found == [
        (0x7010, 7, "main", raw_pb2.FRAME_KIND_NATIVE),
        (0x7020, 7, "", raw_pb2.FRAME_KIND_UNSPECIFIED),
        (0x7010, 8, "", raw_pb2.FRAME_KIND_UNSPECIFIED),
        (0xF1, 0, "vfs_read", raw_pb2.FRAME_KIND_KERNEL),
    ]
    assert envelope.frames[0].file_address == 0x1010
    mapping = envelope.mappings[envelope.frames[0].mapping - 1]
    assert (mapping.path, mapping.build_id) == ("/usr/lib/libc.so.6", "abcdef")
    assert (mapping.start, mapping.limit, mapping.file_offset) == (0x7000, 0x9000, 0x1000)
    assert [frame.mapping for frame in envelope.frames[1:]] == [0, 0, 0]


def test_fill_writes_a_mapping_once(layout):
    frames = [Frame(FrameKind.NATIVE, name, at, LIBC, at) for at, name in ((0x7010, "f"), (0x7020, "g"))]
    envelope = fill(layout, {(7, START): frames}, (BOTH, 7, both([], [0x7010, 0x7020])))
    assert len(envelope.mappings) == 1
    assert [frame.mapping for frame in envelope.frames] == [1, 1]


def test_fill_without_names_keeps_mappings_and_addresses(layout):
    frame = Frame(FrameKind.JIT, "run", 0x7010, LIBC, 0x1010, "app.js", 12)
    written = fill(layout, {(7, START): [frame]}, (BOTH, 7, both([], [0x7010])), names=False).frames[0]
    assert (written.function, written.file, written.line) == ("", "", 0)
    assert (written.mapping, written.file_address) == (1, 0x1010)


def test_fill_leaves_out_addresses_of_a_process_that_is_not_told(layout):
    envelope = fill(layout, {}, (BOTH, 7, both([0xF1], [0x10])), ours=[7])
    assert [(frame.process, frame.kind) for frame in envelope.frames] == [(0, raw_pb2.FRAME_KIND_KERNEL)]


def test_fill_takes_names_that_are_not_utf_8(layout):
    mapping = Mapping("/tmp/\udcff", "", 0, 1, 0)
    frame = Frame(FrameKind.NATIVE, "f\udc80", 0x10, mapping)
    envelope = fill(layout, {(7, START): [frame]}, (BOTH, 7, both([], [0x10])))
    assert (envelope.frames[0].function, envelope.mappings[0].path) == ("f?", "/tmp/?")


def test_fill_of_no_rows_writes_nothing(layout):
    assert not fill(layout, {}).frames


def test_learn_takes_the_last_word_and_forgets_the_process_not_seen_for_longest(layout, monkeypatch):
    monkeypatch.setattr("ebbflow.producing.frames._MOST_PROCESSES", 2)
    known = {
        (7, START): [Frame(FrameKind.JIT, "old", 0x10)],
        (8, START): [Frame(FrameKind.JIT, "other", 0x10)],
        (7, 0): [],
    }
    dictionary = FrameDictionary(Processes(), StackFormat(layout))
    for upid, frames in list(known.items())[:2]:
        dictionary.learn(upid, frames)
    dictionary.learn((7, START), [Frame(FrameKind.JIT, "new", 0x10)])
    dictionary.learn((9, START), [])
    envelope = raw_pb2.RawBatch()
    dictionary.fill(envelope, *rows_of(layout, (BOTH, 7, both([], [0x10])), (BOTH, 8, both([], [0x10]))))
    assert [frame.function for frame in envelope.frames] == ["new", ""]
