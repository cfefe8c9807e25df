from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebbflow.symbols.elf import DYNSYM, SYMTAB, ElfInvalid, gnu_build_id, name_at, parse_elf, vaddr_of
from ebbflow.symbols.files import MemorySource, open_file

REAL = [
    path for path in ("/usr/bin/python3.11", "/lib/x86_64-linux-gnu/libc.so.6", "/usr/bin/node") if Path(path).exists()
]


@pytest.fixture
def elf(make_elf):
    return parse_elf(MemorySource(make_elf([("main", 0x401010, 0x20), ("data", 0x501000, 8, 1, 1, 2)])))


def test_headers_of_a_small_file_are_read(elf):
    assert (elf.bits, elf.machine) == (64, 62)
    assert [section.name for section in elf.sections][1:4] == [".text", ".data", ".note.gnu.build-id"]
    assert elf.code_ranges() == [(0x401000, 0x402000)]
    assert elf.build_id == bytes(range(20)).hex()


def test_symbols_come_with_their_names(elf):
    table = elf.symbols(SYMTAB)
    assert [name_at(table.names, int(row["name"])) for row in table.rows] == ["", "main", "data"]
    assert elf.symbols(DYNSYM) is None


def test_vaddr_of_a_file_offset_counts_from_its_segment(elf):
    assert vaddr_of(elf.segments, 0x1010, -1) == 0x401010
    assert vaddr_of(elf.segments, 0xFFF, -1) == -1


def test_code_at_a_vaddr_ends_with_the_segment(elf):
    assert elf.code_at(0x401FFE, 16) == b"\x90\x90"
    assert elf.code_at(0x500000, 16) == b""


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"#!/bin/sh\n" * 9, b"\x7fELF\x02\x02" + bytes(90), b"\x7fELF\x07\x01" + bytes(90)]
)
def test_other_files_are_refused(data):
    with pytest.raises(ElfInvalid):
        parse_elf(MemorySource(data))


def test_a_build_id_stands_behind_other_notes():
    other = b"\x04\0\0\0\x05\0\0\0\x01\0\0\0GNU\0abcde\0\0\0"
    assert gnu_build_id(other + b"\x04\0\0\0\x02\0\0\0\x03\0\0\0GNU\0\xab\xcd\0\0") == "abcd"
    assert gnu_build_id(other) == ""


def test_a_32_bit_program_is_read(compiled):
    try:
        path = compiled(
            "bits32", "int hot(void) { return 7; } void _start(void) { hot(); }", "-m32", "-nostdlib", "-static"
        )
    except subprocess.CalledProcessError:
        pytest.skip("gcc makes no 32-bit programs here")
    with open_file(path) as file:
        elf = parse_elf(file)
        table = elf.symbols(SYMTAB)
    assert elf.bits == 32
    assert {"hot", "_start"} <= {name_at(table.names, int(row["name"])) for row in table.rows}


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf")
@pytest.mark.parametrize("path", REAL)
def test_build_id_and_segments_agree_with_readelf(path):
    told = subprocess.run(["readelf", "-W", "-n", "-l", path], capture_output=True, text=True, check=True).stdout
    with open_file(path) as file:
        elf = parse_elf(file)
        assert f"Build ID: {elf.build_id}" in told
    loads = [line.split() for line in told.splitlines() if line.startswith("  LOAD ")]
    assert [(s.offset, s.vaddr, s.file_bytes) for s in elf.segments] == [
        tuple(int(field, 16) for field in (load[1], load[2], load[4])) for load in loads
    ]


def use_all(data: bytes) -> None:
    try:
        elf = parse_elf(MemorySource(data))
    except ElfInvalid:
        return
    for kind in (SYMTAB, DYNSYM):
        elf.symbols(kind)
    assert isinstance(elf.build_id, str)
    elf.code_ranges()
    for section in elf.sections[:20]:
        elf.contents(section)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_flipped_and_cut_files_never_raise(make_elf, data):
    damaged = bytearray(make_elf([("main", 0x401010, 0x20), ("other", 0x401030, 0)], text_bytes=64))
    for _ in range(data.draw(st.integers(0, 8))):
        # Headers are what hurts: the first 176 bytes, and the section headers at the end.
        at = data.draw(st.integers(-576, 175)) % len(damaged)
        damaged[at] = data.draw(st.integers(0, 255))
    use_all(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
    use_all(bytes(damaged))


def test_sections_without_end_take_no_long_time(make_elf):
    data = bytearray(make_elf([("main", 0x401010, 0x20)]))
    data[60:62] = b"\xff\xff"  # section headers: as many as a number can say
    data += bytes(65535 * 64)
    began = time.monotonic()
    use_all(bytes(data))
    assert time.monotonic() - began < 5


def test_name_outside_of_the_table_is_empty():
    assert name_at(b"\0main", 1) == "main"
    assert name_at(b"\0main\0", 99) == ""
    assert np.array_equal(name_at(b"a" * 99, 0, 10), "a" * 10)
