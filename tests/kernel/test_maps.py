"""Maps of the real kernel, with bpftool's view of them as the witness; test_swapped.py has programs that write."""

import json
import os
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from ebbflow.errors import KernelError, MapFull, MapMismatch
from ebbflow.kernel import map_calls
from ebbflow.kernel.maps import Map
from ebbflow.testing.kernel_maps import NO_PREALLOC, kernel_map, make_map

pytestmark = pytest.mark.bpf

HASHES = ["hash", "percpu_hash", "lru_hash", "lru_percpu_hash"]
ARRAYS = ["array", "percpu_array"]
COUNT = 211
SEED = 20


def dumped(one: Map):
    """Key bytes to value bytes, of all CPUs one behind the other, as bpftool sees them."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{one.fd}").read_text().splitlines())
    command = ["bpftool", "-j", "map", "dump", "id", fields["map_id"].strip()]
    entries = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return {
        as_bytes(entry["key"]): b"".join(as_bytes(cpu["value"]) for cpu in entry["values"])
        if "values" in entry
        else as_bytes(entry["value"])
        for entry in entries
    }


def as_bytes(texts):
    return bytes(int(text, 16) for text in texts)


def pairs(keys, values):
    return {key.tobytes(): value.tobytes() for key, value in zip(keys, values, strict=True)}


def filling(one: Map, count=COUNT):
    """Different keys, and random values for them."""
    random = np.random.default_rng(SEED)
    raw = np.zeros((count, one.key.itemsize), np.uint8)
    raw[:, :4] = np.arange(count, dtype="<u4")[:, None].view(np.uint8)
    raw[:, 4:] = random.integers(0, 256, (count, one.key.itemsize - 4))
    cpus = map_calls.possible_cpus() if one.is_per_cpu else 1
    values = random.integers(0, 256, (count, cpus, one.value.itemsize), np.uint8).reshape(-1).view(one.value)
    return raw.reshape(-1).view(one.key), values.reshape((count, cpus) if one.is_per_cpu else (count,))


@pytest.mark.parametrize("value_size", [1, 8, 12, 17, 200])
@pytest.mark.parametrize("kind", HASHES)
def test_map_of_odd_sizes_keeps_what_is_written(kind, value_size):
    # An LRU map may evict some time before it is full.
    with kernel_map(kind, "V7", f"V{value_size}", 4 * COUNT) as one:
        keys, values = filling(one)
        one.write(keys, values)
        expected = pairs(keys, values)
        assert pairs(*one.items()) == dumped(one) == expected
        assert one.count() == COUNT
        assert one.usage() == pytest.approx(0.25)
        read, found = one.read(keys[::-1])
        assert found.all()
        assert pairs(keys[::-1], read) == expected
        assert one.delete(keys[:100]) == 100
        assert one.read(keys)[1].tolist() == [False] * 100 + [True] * (COUNT - 100)
        assert pairs(*one.take()) == pairs(keys[100:], values[100:])
        assert (one.count(), dumped(one)) == (0, {})


@pytest.mark.parametrize("value_size", [1, 8, 12, 17, 200])
@pytest.mark.parametrize("kind", ARRAYS)
def test_array_of_odd_sizes_keeps_what_is_written(kind, value_size):
    with kernel_map(kind, "<u4", f"V{value_size}", COUNT) as one:
        keys, values = filling(one)
        one.write(keys, values)
        assert pairs(*one.items()) == dumped(one) == pairs(keys, values)
        for some in (keys[::-1], keys[5:7]):
            read, found = one.read(some)
            assert found.all()
            assert pairs(some, read) == pairs(some, values[some])
        assert (one.count(), one.usage()) == (COUNT, 1.0)
        assert one.read([COUNT, 3])[1].tolist() == [False, True]
        assert one.delete([3, COUNT]) == 1
        assert not any(one.get(3).tobytes())
        taken = pairs(*one.take())
        assert len(taken) == COUNT
        assert not any(b"".join(dumped(one).values()))


@pytest.mark.parametrize(
    ("kind", "flags", "count"),
    # The kernel takes a hundred times as long for a per-CPU value that it has not allocated before.
    [
        ("hash", 0, 120_011),
        ("hash", NO_PREALLOC, 120_011),
        ("percpu_hash", 0, 120_011),
        ("percpu_hash", NO_PREALLOC, 10_007),
    ],
)
def test_map_of_many_keys_is_read_taken_and_cleared_in_batches(kind, flags, count):
    with kernel_map(kind, "<u8", [("first", "<u4"), ("second", "<u8")], 1 << 17, flags) as one:
        keys = np.arange(count, dtype="<u8") * 0x9E3779B97F4A7C15
        shape = (count, map_calls.possible_cpus()) if one.is_per_cpu else (count,)
        values = np.zeros(shape, one.value)
        values["first"][...] = np.arange(count).reshape(-1, *[1] * (len(shape) - 1))
        one.write(keys, values)
        for read in (one.items, one.take):
            found_keys, found_values = read()
            order, expected = np.argsort(found_keys), np.argsort(keys)
            assert np.array_equal(found_keys[order], keys[expected])
            assert np.array_equal(found_values[order], values[expected])
        assert one.count() == 0
        one.write(keys, values)
        one.clear()
        assert one.count() == 0


@pytest.mark.parametrize("kind", [*HASHES, *ARRAYS])
def test_map_on_a_kernel_without_batches_gives_the_same(kind, monkeypatch):
    key = "<u4"
    with kernel_map(kind, key, "V12", 4 * COUNT if kind in HASHES else COUNT) as one:
        keys, values = filling(one)
        monkeypatch.setattr(map_calls.Batch, "call", lambda *_: (map_calls.ENOTSUPP, 0))
        one.write(keys, values)
        assert pairs(*one.items()) == pairs(keys, values)
        assert one.count() == COUNT
        assert pairs(*one.take()) == pairs(keys, values)
        assert not any(b"".join(dumped(one).values()))
        one.write(keys, values)
        one.clear()
        assert not any(b"".join(dumped(one).values()))


def test_map_with_more_keys_in_a_bucket_than_a_batch_is_read_whole():
    with kernel_map("hash", "<u4", "<u8", 4096) as one:
        one.write(np.arange(4096), np.arange(4096))
        one._batch_size = 1
        keys, values = one.items()
        assert sorted(keys.tolist()) == list(range(4096))
        assert np.array_equal(keys, values)
        one._batch_size = 1
        assert sorted(one.take()[0].tolist()) == list(range(4096))


@pytest.mark.parametrize("error", [11, 16, 4])
def test_walk_that_is_told_to_try_again_does(error, monkeypatch):
    call, told = map_calls.Batch.call, []

    def busy_every_other_time(self, *args):
        told.append(len(told))
        return (error, 0) if len(told) % 2 else call(self, *args)

    with kernel_map("hash", "<u4", "<u8", 64) as one:
        one.write(np.arange(23), np.arange(23))
        monkeypatch.setattr(map_calls.Batch, "call", busy_every_other_time)
        assert one.count() == 23
        monkeypatch.setattr(map_calls.Batch, "call", lambda *_: (error, 0))
        with pytest.raises(KernelError, match="cannot read map ebbflow_test"):
            one.items()


def test_take_while_another_thread_writes_gives_every_key_once():
    """Each element is removed at once: what user space writes whole is neither lost nor taken twice."""
    count = 100_003
    with kernel_map("hash", "<u8", "<u8", 1 << 17) as one:
        keys = np.random.default_rng(SEED).permutation(count).astype("<u8")
        done = threading.Event()

        def write():
            for part in np.array_split(keys, 2003):
                one_of_thread.write(part, part * 3)
            done.set()

        one_of_thread = Map(one.fd, one.key, one.value)
        writer = threading.Thread(target=write)
        writer.start()
        taken, takes = [], 0
        while not done.is_set():
            taken.append(one.take())
            takes += 1
        writer.join()
        taken.append(one.take())
        found = np.concatenate([keys for keys, _ in taken])
        assert takes > 1
        assert np.array_equal(np.sort(found), np.arange(count))
        assert np.array_equal(np.concatenate([values for _, values in taken]), found * 3)


def test_write_beyond_the_end_says_how_many_were_written():
    with kernel_map("hash", "<u4", "<u8", 16) as one:
        with pytest.raises(MapFull, match="16 of 23 written, 16 fit"):
            one.write(np.arange(23), np.arange(23))
        assert sorted(one.items()[0].tolist()) == list(range(16))
        one.write(3, 33)
        assert one.get(3) == 33
    with kernel_map("array", "<u4", "<u8", 16) as one:
        with pytest.raises(MapFull, match="2 of 3 written") as caught:
            one.write([1, 15, 16], [1, 2, 3])
        assert "below" in caught.value.hint


def test_get_of_a_key_that_is_not_there_is_none():
    with kernel_map("percpu_hash", "<u4", "<u8", 16) as one:
        one.write(3, np.arange(map_calls.possible_cpus()))
        assert one.get(4) is None
        assert one.get(3).tolist() == list(range(map_calls.possible_cpus()))
        assert one.delete([4, 3, 4, 3]) == 1


@pytest.mark.parametrize(
    ("keys", "values", "told"),
    [
        ([1, 2], [1], "shape"),
        ([[1, 2]], [[1, 2]], "not \\(n,\\)"),
        ([-1], [1], "fits"),
        ([1], [1.5], "fits"),
        ([1], ["x"], "value"),
        (np.zeros(1, "<u4,<u4"), [1], "given for"),
    ],
)
def test_write_of_the_wrong_type_does_not_reach_the_kernel(keys, values, told):
    with kernel_map("hash", "<u4", "<u8", 16) as one:
        with pytest.raises(MapMismatch, match=told):
            one.write(keys, values)
        assert one.count() == 0


@pytest.mark.parametrize(
    ("kind", "key", "value", "told"),
    [
        ("hash", "<u8", "<u8", "key of 8 bytes, but the kernel's has 4"),
        ("percpu_hash", "<u4", "<u4", "value of 4 bytes, but the kernel's has 8"),
        ("hash", "<u4", ("<u4", (2,)), "member of a struct"),
        ("queue", "V0", "<u8", "type queue"),
    ],
)
def test_map_that_is_not_as_described_is_refused(kind, key, value, told):
    fd = make_map(kind, 0 if kind == "queue" else 4, 8, 16)
    try:
        with pytest.raises(MapMismatch, match=told):
            Map(fd, np.dtype(key), np.dtype(value))
    finally:
        os.close(fd)


def test_map_of_no_map_is_an_os_error():
    with pytest.raises(OSError, match=r"."):
        Map(0, np.dtype("<u4"), np.dtype("<u4"))


def test_map_that_was_closed_says_so():
    with kernel_map("hash", "<u4", "<u8", 16) as one:
        os.close(one.fd)
        try:
            for call in (one.items, lambda: one.read(1), lambda: one.write(1, 1), lambda: one.delete(1)):
                with pytest.raises(KernelError, match="map ebbflow_test"):
                    call()
        finally:
            os.open("/dev/null", os.O_RDONLY)  # the number that is closed in the end
