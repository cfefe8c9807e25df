from __future__ import annotations

import bisect
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebbflow.symbols.binaries import read_binary
from ebbflow.symbols.elf import SYMTAB, parse_elf
from ebbflow.symbols.files import MemorySource, open_file
from ebbflow.symbols.symbol_table import EMPTY, MAX_NESTING, Stub, build_table

BASE = 0x401000
GLOBAL, WEAK, LOCAL = 1, 2, 0
FUNC, NOTYPE, OBJECT = 2, 0, 1


@pytest.fixture
def table_of(make_elf):
    def build(symbols, stubs=(), **options):
        elf = parse_elf(MemorySource(make_elf(symbols, **options)))
        return build_table([elf.symbols(SYMTAB)], elf.code_ranges(), stubs)

    return build


def at(table, vaddr):
    index = table.find(vaddr)
    return table.name(index) if index >= 0 else ""


def test_a_function_holds_its_first_byte_and_not_the_one_behind_its_last(table_of):
    table = table_of([("f", BASE + 16, 16)])
    assert [at(table, BASE + offset) for offset in (15, 16, 31, 32)] == ["", "f", "f", ""]


@pytest.mark.parametrize(
    ("symbols", "chosen"),
    [
        ([("a_long", 0, 8, GLOBAL), ("b", 0, 8, GLOBAL)], "b"),
        ([("local", 0, 8, LOCAL), ("global_one", 0, 8, GLOBAL), ("weak", 0, 8, WEAK)], "global_one"),
        ([("weak_one", 0, 8, WEAK), ("loc", 0, 8, LOCAL)], "weak_one"),
        ([("typeless", 0, 8, GLOBAL, NOTYPE), ("function", 0, 8, LOCAL)], "function"),
        ([("sizeless", 0, 0), ("with_a_size", 0, 8)], "with_a_size"),
        ([("second", 0, 8), ("firstt", 0, 8)], "second"),
    ],
)
def test_of_several_names_one_is_chosen_by_the_rule(table_of, symbols, chosen):
    table = table_of([(name, BASE + value, *rest) for name, value, *rest in symbols])
    assert at(table, BASE + 4) == chosen


def test_a_symbol_without_size_reaches_to_the_next_one_or_the_sections_end(table_of):
    table = table_of([("first", BASE, 0), ("second", BASE + 64, 0)], text_bytes=128)
    assert [at(table, BASE + offset) for offset in (0, 63, 64, 127, 128)] == ["first", "first", "second", "second", ""]


def test_a_label_inside_a_function_does_not_count(table_of):
    table = table_of([("function", BASE, 64), ("label", BASE + 8, 0, LOCAL, NOTYPE)])
    assert at(table, BASE + 12) == "function"


def test_a_function_inside_another_ends_where_it_ends(table_of):
    table = table_of([("outer", BASE, 64), ("inner", BASE + 16, 16)])
    assert [at(table, BASE + offset) for offset in (8, 16, 31, 32, 63, 64)] == [
        "outer",
        "inner",
        "inner",
        "outer",
        "outer",
        "",
    ]


def test_nesting_is_tried_to_a_bound(table_of):
    symbols = [("outer", BASE, 4096), *((f"f{i}", BASE + 16 + i, 1) for i in range(MAX_NESTING + 1))]
    table = table_of(symbols)
    assert at(table, BASE + 16 + MAX_NESTING - 1 + 1) == f"f{MAX_NESTING}"
    assert at(table, BASE + 200) == ""


def test_data_undefined_and_absolute_symbols_do_not_count(table_of):
    table = table_of([
        ("object", BASE, 64, GLOBAL, OBJECT), ("undefined", BASE, 64, GLOBAL, FUNC, 0),
        ("absolute", BASE, 64, GLOBAL, FUNC, 0xFFF1), ("elsewhere", BASE + 0x100000, 8), ("$x", BASE, 0, LOCAL, NOTYPE),
    ])  # fmt: skip
    assert len(table) == 0


def test_a_lying_size_is_cut_at_the_sections_end(table_of):
    table = table_of([("f", BASE, 2**64 - 1)], text_bytes=128)
    assert [at(table, BASE + 127), at(table, BASE + 128)] == ["f", ""]


def test_a_version_is_left_out_and_plt_is_kept(table_of):
    table = table_of([("puts@@GLIBC_2.2.5", BASE, 8)], [Stub(BASE + 32, 16, b"exit@plt")])
    assert [at(table, BASE), at(table, BASE + 40)] == ["puts", "exit@plt"]


def test_no_address_is_in_an_empty_table():
    assert EMPTY.find(BASE) == -1
    assert EMPTY.find(-1) == EMPTY.find(1 << 64) == -1


def test_equal_tables_have_equal_digests(table_of):
    same = [table_of([("f", BASE, 8)]).digest() for _ in range(2)]
    assert same[0] == same[1] != table_of([("f", BASE, 9)]).digest()


def naive(symbols, address):
    """The rule in plain words; symbols are (start, size, name), all global functions."""
    kept = {}
    for start, size, name in symbols:
        old = kept.get(start)
        if old is None or (size == 0, len(name)) < (old[0] == 0, len(old[1])):
            kept[start] = (size, name)
    starts = sorted(kept)
    spans, reach = [], 0
    for start in starts:
        size, name = kept[start]
        if size or reach <= start:
            spans.append([start, start + size, name])
            reach = max(reach, start + size)
    for index, span in enumerate(spans):
        if span[0] == span[1]:
            span[1] = spans[index + 1][0] if index + 1 < len(spans) else BASE + 4096
    inside = [span for span in spans if span[0] <= address < min(span[1], BASE + 4096)]
    return max(inside, default=[0, 0, ""])[2]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from([0, 0, 1, 5, 17, 200])), max_size=24),
    st.integers(-2, 300),
)
def test_find_agrees_with_the_rule_in_plain_words(make_elf, spans, offset):
    symbols = [(BASE + start, size, "n" * (1 + index)) for index, (start, size) in enumerate(spans)]
    elf = parse_elf(MemorySource(make_elf([(name, start, size) for start, size, name in symbols])))
    table = build_table([raw] if (raw := elf.symbols(SYMTAB)) else [], elf.code_ranges())
    assert at(table, BASE + offset) == naive(symbols, BASE + offset)


def nm(path, *flags):
    told = subprocess.run(
        ["nm", "-n", "--defined-only", *flags, path], capture_output=True, text=True, check=True
    ).stdout
    names: dict[int, set[str]] = {}
    for line in told.splitlines():
        address, kind, name = line.split(maxsplit=2)
        if kind in "tTwWi":
            names.setdefault(int(address, 16), set()).add(name.partition("@")[0])
    return names


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm")
@pytest.mark.parametrize(
    ("path", "flags"),
    [
        ("/usr/bin/python3.11", ["-D"]),
        ("/lib/x86_64-linux-gnu/libc.so.6", ["-D"]),
        pytest.param("/usr/bin/node", [], marks=pytest.mark.slow),
    ],
)
def test_sampled_functions_agree_with_nm(path, flags):
    if not Path(path).exists():
        pytest.skip(f"no {path}")
    names = nm(path, *flags)
    with open_file(path) as file:
        table = read_binary(file, (), Counter()).table
    rng = random.Random(7)
    starts = sorted(names)
    for start in rng.sample(starts, 500):
        index = table.find(start)
        assert table.name(index) in names[int(table.starts[index])]
        following = starts[bisect.bisect_right(starts, start) :][:1] or [start + 1]
        if int(table.limits[index]) > start + 1 and following[0] > start + 1:
            assert table.find(start + 1) == index
