from __future__ import annotations

import time
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ebbflow.symbols.files import MemorySource
from ebbflow.symbols.perf_map import PerfMap, last_wins


def read(text: bytes, **options):
    troubles: Counter[str] = Counter()
    perf_map = PerfMap(troubles, **options)
    perf_map.read(MemorySource(text))
    return perf_map, troubles


def test_names_reach_from_start_to_size():
    perf_map, _ = read(b"1000 10 first thing\n0x2000 0x20 second\n")
    assert [perf_map.find(a) for a in (0xFFF, 0x1000, 0x100F, 0x1010, 0x201F, 0x2020)] == [
        None, "first thing", "first thing", None, "second", None,
    ]  # fmt: skip


def test_the_last_entry_wins_where_ranges_overlap():
    perf_map, _ = read(b"1000 100 old\n1040 20 new\n2000 10 stale\n1ff0 30 wide\n")
    assert [perf_map.find(a) for a in (0x103F, 0x1040, 0x105F, 0x1060, 0x2004)] == ["old", "new", "new", "old", "wide"]


def test_entries_that_own_nothing_any_more_are_forgotten():
    perf_map, _ = read(b"".join(b"1000 40 version_%d\n" % i for i in range(100)))
    assert perf_map.find(0x1000) == "version_99"
    assert len(perf_map) == 1


def test_malformed_lines_are_counted_and_passed_over():
    perf_map, troubles = read(
        b"garbage\n1000 10 good\n2000 0 empty\nffffffffffffffff 10 over\n3000 zz x\n\n1 2\n4000 ffffffff big\n"
    )
    assert troubles["malformed_perf_map_lines"] == 6
    assert (len(perf_map), perf_map.find(0x1008)) == (1, "good")


def test_reading_goes_on_where_it_ended_and_waits_for_whole_lines():
    perf_map, _ = read(b"1000 10 a\n2000 10 unfin")
    assert perf_map.find(0x2000) is None
    assert perf_map.read(MemorySource(b"1000 10 a\n2000 10 unfinished\n"))
    assert perf_map.find(0x2000) == "unfinished"
    assert not perf_map.read(MemorySource(b"1000 10 a\n2000 10 unfinished\n"))


def test_a_replaced_file_is_read_anew():
    long = b"1000 10 first_function_of_the_first_file\n2000 10 the_second_function_of_it\n"
    perf_map, _ = read(long)
    assert perf_map.read(MemorySource(long.replace(b"first", b"other")))
    assert (perf_map.find(0x1000), len(perf_map)) == ("other_function_of_the_other_file", 2)
    assert perf_map.read(MemorySource(b"3000 10 c\n"))
    assert perf_map.find(0x1000) is None


def test_a_read_is_bounded_and_the_next_one_goes_on():
    text = b"1000 10 a\n" * 10 + b"2000 10 z\n"
    perf_map, _ = read(text, read_bytes=64)
    assert perf_map.find(0x2000) is None
    perf_map.read(MemorySource(text))
    assert perf_map.find(0x2000) == "z"


def test_a_line_without_end_is_passed_over():
    text = b"x" * 200 + b"\n1000 10 a\n"
    perf_map, troubles = read(text, read_bytes=64)
    for _ in range(4):
        perf_map.read(MemorySource(text))
    assert (perf_map.find(0x1000), troubles["malformed_perf_map_lines"]) == ("a", 4)


def test_too_many_entries_lose_the_oldest():
    perf_map, _ = read(b"".join(b"%x 10 f%d\n" % (0x1000 + 16 * i, i) for i in range(50)), max_entries=20)
    assert len(perf_map) == 20
    assert (perf_map.find(0x1000 + 16 * 29), perf_map.find(0x1000 + 16 * 30)) == (None, "f30")


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=30))
def test_last_wins_agrees_with_painting_byte_by_byte(spans):
    painted = dict.fromkeys(range(70), -1)
    for index, (start, size) in enumerate(spans):
        painted.update(dict.fromkeys(range(start, start + size), index))
    ranges = last_wins(np.array([s for s, _ in spans], np.uint64), np.array([s + n for s, n in spans], np.uint64))
    assert {address: ranges.find(address) for address in painted} == painted


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(-1, 1 << 64), max_size=4))
def test_garbage_never_raises(text, addresses):
    perf_map, _ = read(text)
    for address in addresses:
        assert perf_map.find(address) is None or isinstance(perf_map.find(address), str)


def test_ranges_that_all_overlap_take_no_long_time():
    n = 50_000
    began = time.monotonic()
    ranges = last_wins(np.arange(n, dtype=np.uint64), np.arange(2 * n, n, -1, dtype=np.uint64))
    assert time.monotonic() - began < 5
    assert ranges.find(n) == n - 1
