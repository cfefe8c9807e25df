from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebbflow.symbols.mappings import Backing, parse_areas, read_areas

TEXT = rb"""
00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus daemon
00651000-00652000 r--p 00051000 08:02 173521      /usr/bin/dbus daemon
35b1800000-35b1820000 r-xp 00001000 08:02 135522  /tmp/with\012newline (deleted)
7f0000000000-7f0000001000 rwxp 00000000 00:00 0
7f0000002000-7f0000003000 r-xs 00000000 00:01 2048 /memfd:jit (deleted)
7f0000004000-7f0000005000 rwxp 00000000 00:00 0   [heap]
7f0000006000-7f0000007000 r-xp 00000000 00:00 0   [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
nonsense
""".replace(b"\n7f0000002000", b" \n7f0000002000")


@pytest.mark.parametrize(
    ("address", "path", "backing"),
    [
        (0x400000, "/usr/bin/dbus daemon", Backing.FILE),
        (0x35B1800010, "/tmp/with\nnewline", Backing.FILE),
        (0x7F0000000010, "[anon]", Backing.ANONYMOUS),
        (0x7F0000002010, "/memfd:jit", Backing.ANONYMOUS),
        (0x7F0000004010, "[heap]", Backing.ANONYMOUS),
        (0x7F0000006010, "[vdso]", Backing.VDSO),
        (0xFFFFFFFFFF600010, "[vsyscall]", Backing.KERNEL),
    ],
)
def test_executable_lines_become_areas(address, path, backing):
    area = parse_areas(TEXT).find(address)
    assert (area.path, area.backing) == (path, backing)


def test_other_lines_do_not(request):
    areas = parse_areas(TEXT)
    assert len(areas) == 7
    assert [areas.find(address) for address in (0x651010, 0x452000, 0x3FFFFF, 0, 1 << 64)] == [None] * 5


def test_fields_of_a_line():
    area = parse_areas(TEXT).find(0x35B1800000)
    assert (area.start, area.limit, area.offset, area.inode, area.deleted) == (
        0x35B1800000,
        0x35B1820000,
        0x1000,
        135522,
        True,
    )


def test_equal_texts_are_equal_areas():
    assert parse_areas(TEXT) == parse_areas(TEXT) != parse_areas(TEXT[:100])


def test_own_mappings_are_read():
    areas = read_areas(Path("/proc") / str(os.getpid()))
    assert areas.at_path("[vdso]") is not None
    assert areas.at_path("/absent") is None


def test_a_process_that_is_gone_has_none(tmp_path):
    (tmp_path / "maps").write_bytes(b"")
    assert read_areas(tmp_path) is None
    assert read_areas(tmp_path / "absent") is None


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_never_raises(text):
    assert len(parse_areas(text)) <= 1
