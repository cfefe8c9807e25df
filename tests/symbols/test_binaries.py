from __future__ import annotations

import lzma
import shutil
import subprocess
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebbflow.symbols.binaries import NOT_ELF, Binaries, read_binary
from ebbflow.symbols.debug_files import unpack
from ebbflow.symbols.elf import ElfInvalid
from ebbflow.symbols.files import MemorySource, open_file

BASE = 0x401000


def names(binary):
    return [binary.table.name(index) for index in range(len(binary.table))]


def read(data, roots=()):
    troubles: Counter[str] = Counter()
    return read_binary(MemorySource(data), roots, troubles), troubles


def test_a_program_with_symbols_is_not_stripped(make_elf):
    binary, troubles = read(make_elf([("main", BASE, 16)]))
    assert (names(binary), binary.stripped, binary.is_elf, troubles) == (["main"], False, True, Counter())
    assert (binary.vaddr_of(0x1010), binary.vaddr_of(0x10)) == (BASE + 16, 0x10)


def test_a_stripped_program_has_its_exported_functions(make_elf):
    binary, _ = read(make_elf([("exported", BASE, 16)], table_type=11))
    assert (names(binary), binary.stripped) == (["exported"], True)


def test_other_files_are_no_programs():
    binary, troubles = read(b"#!/bin/sh")
    assert (binary, troubles) == (NOT_ELF, {"damaged_elf": 1})


def test_gnu_debugdata_adds_what_dynsym_lacks(make_elf):
    inner = make_elf([("local", BASE + 64, 16, 0)])
    binary, troubles = read(
        make_elf([("exported", BASE, 16)], table_type=11, extra={".gnu_debugdata": lzma.compress(inner)})
    )
    assert (names(binary), binary.stripped, troubles) == (["exported", "local"], False, Counter())


@pytest.mark.parametrize(
    "packed", [b"not xz", lzma.compress(b"not an ELF file"), lzma.compress(bytes(9999))[:-20], b""]
)
def test_damaged_debugdata_is_counted_and_left_out(make_elf, packed):
    binary, troubles = read(make_elf([("exported", BASE, 16)], table_type=11, extra={".gnu_debugdata": packed}))
    assert (names(binary), binary.stripped, troubles) == (["exported"], True, {"damaged_debugdata": 1})


def test_unpacking_is_bounded():
    with pytest.raises(ElfInvalid, match="too large"):
        unpack(lzma.compress(bytes(1 << 20)), limit_bytes=1 << 16)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_flipped_and_cut_programs_never_raise(make_elf, data):
    inner = lzma.compress(make_elf([("local", BASE + 64, 16, 0)], text_bytes=64))
    damaged = bytearray(make_elf([("f", BASE, 16)], text_bytes=64, table_type=11, extra={".gnu_debugdata": inner}))
    for _ in range(data.draw(st.integers(1, 12))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    binary, _ = read(bytes(damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans()) else damaged))
    for index in range(-1, len(binary.table)):
        assert isinstance(binary.table.name(index) if index >= 0 else "", str)


@pytest.fixture
def debug_root(tmp_path, make_elf):
    build_id = bytes(range(20)).hex()
    folder = tmp_path / "usr/lib/debug/.build-id" / build_id[:2]
    folder.mkdir(parents=True)
    return tmp_path, folder / f"{build_id[2:]}.debug"


def test_a_debug_file_is_found_by_build_id(make_elf, debug_root):
    root, path = debug_root
    path.write_bytes(make_elf([("local", BASE + 64, 16, 0)]))
    binary, _ = read(make_elf([("exported", BASE, 16)], table_type=11), [root / "absent", root])
    assert (names(binary), binary.stripped) == (["exported", "local"], False)


def test_a_debug_file_of_another_build_is_refused(make_elf, debug_root):
    root, path = debug_root
    path.write_bytes(make_elf([("local", BASE + 64, 16, 0)], build_id=b"another"))
    binary, troubles = read(make_elf([("exported", BASE, 16)], table_type=11), [root])
    assert (binary.stripped, troubles) == (True, {"damaged_debug_file": 1})


@pytest.mark.skipif(shutil.which("objcopy") is None, reason="needs objcopy")
def test_what_objcopy_splits_off_is_found_again(compiled, tmp_path):
    whole = compiled(
        "split", "static int local(void) { return 3; } int main(void) { return local(); }", "-O0", "-Wl,--build-id"
    )
    with open_file(whole) as file:
        expected = read_binary(file, (), Counter())
    folder = tmp_path / "usr/lib/debug/.build-id" / expected.build_id[:2]
    folder.mkdir(parents=True)
    subprocess.run(["objcopy", "--only-keep-debug", whole, folder / f"{expected.build_id[2:]}.debug"], check=True)
    subprocess.run(["objcopy", "--strip-all", whole, tmp_path / "stripped"], check=True)
    with open_file(tmp_path / "stripped") as file:
        found = read_binary(file, [tmp_path], Counter())
    assert "local" in names(expected)
    assert [*zip(found.table.starts, names(found), strict=True)] == [
        *zip(expected.table.starts, names(expected), strict=True)
    ]


@pytest.fixture
def cache():
    return Binaries(max_binaries=2, max_bytes=1 << 20, troubles=Counter())


def put(cache, path, data):
    path.write_bytes(data)
    with open_file(path) as file:
        return cache.read(file, ())


def test_a_file_is_read_once_until_it_changes(cache, make_elf, tmp_path):
    first = put(cache, tmp_path / "a", make_elf([("main", BASE, 16)]))
    with open_file(tmp_path / "a") as file:
        assert cache.read(file, ()) is first
    assert names(put(cache, tmp_path / "a", make_elf([("main_of_2", BASE, 16)]))) == ["main_of_2"]


def test_equal_tables_are_kept_once(cache, make_elf, tmp_path):
    data = make_elf([("main", BASE, 16)])
    first, second = put(cache, tmp_path / "a", data), put(cache, tmp_path / "b", data)
    assert first.table is second.table
    assert cache.memory_bytes == first.table.memory_bytes


def test_the_least_recently_used_file_goes_first(cache, make_elf, tmp_path):
    for name in "abac":
        put(cache, tmp_path / name, make_elf([(f"main_{name}", BASE, 16)])) if name != "a" or not (
            tmp_path / "a"
        ).exists() else None
        with open_file(tmp_path / name) as file:
            cache.read(file, ())
    assert len(cache) == 2
    assert {binary.table.name(0) for binary in cache._known.values()} == {"main_a", "main_c"}


def test_bytes_are_bounded_too(make_elf, tmp_path):
    cache = Binaries(max_binaries=99, max_bytes=4000, troubles=Counter())
    for i in range(5):
        put(cache, tmp_path / str(i), make_elf([(f"main_{i}" + "x" * 3000, BASE, 16)]))
    assert len(cache) == 1
