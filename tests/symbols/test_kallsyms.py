from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebbflow.symbols.frames import FrameKind
from ebbflow.symbols.kallsyms import parse_kallsyms, read_kallsyms
from ebbflow.symbols.kernel import Kernel

TEXT = b"""\
ffffffff81000000 T _stext
ffffffff81000000 T startup_64
ffffffff81000100 t helper
ffffffff81000200 D some_data
ffffffff81000300 W weak_one
ffffffff81002000 T _etext
ffffffffc0a81000 t nf_ct_find\t[nf_conntrack]
ffffffffc0a82000 b bss\t[nf_conntrack]
"""


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (0xFFFFFFFF81000000, ("_stext", "")),
        (0xFFFFFFFF810001FF, ("helper", "")),
        (0xFFFFFFFF81000200, ("", "")),
        (0xFFFFFFFF81000301, ("weak_one", "")),
        (0xFFFFFFFFC0A81234, ("nf_ct_find", "nf_conntrack")),
        (0xFFFFFFFF80000000, ("", "")),
        (0xFFFFFFFF81002000 + (1 << 20), ("", "")),
        (-1, ("", "")),
        (1 << 64, ("", "")),
    ],
)
def test_addresses_become_functions(address, found):
    assert parse_kallsyms(TEXT).find(address) == found


def test_the_kernels_image_is_between_its_marks():
    image = parse_kallsyms(TEXT).image("ab")
    assert (image.start, image.limit, image.build_id) == (0xFFFFFFFF81000000, 0xFFFFFFFF81002000, "ab")


def test_hidden_addresses_are_told():
    symbols = parse_kallsyms(b"0000000000000000 T _stext\n0000000000000000 t helper\n")
    assert (symbols.restricted, len(symbols), symbols.find(0)) == (True, 0, ("", ""))


def test_lines_of_another_form_are_counted():
    symbols = parse_kallsyms(TEXT + b"rubbish\n\nzzzzzzzzzzzzzzzz T bad\nffffffff81000400Tx\n")
    assert symbols.malformed == 3
    assert symbols.find(0xFFFFFFFF81000100) == ("helper", "")


def test_addresses_of_a_32_bit_kernel_are_read():
    assert parse_kallsyms(b"c0100000 T _stext\nc0100100 t helper\n").find(0xC0100180) == ("helper", "")


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200), st.integers(0, (1 << 64) - 1))
def test_garbage_never_raises(text, address):
    parse_kallsyms(text).find(address)
    parse_kallsyms(TEXT + text).find(address)


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/proc/kallsyms").exists(), reason="needs root")
def test_this_kernels_functions_agree_with_its_list():
    symbols = read_kallsyms()
    if symbols.restricted:
        pytest.skip("the kernel hides its addresses")
    names: dict[int, set[str]] = {}
    with Path("/proc/kallsyms").open() as lines:
        for index, line in enumerate(lines):
            address, kind, name, *_ = line.split()
            if kind in "tTwW" and index < 20_000:
                names.setdefault(int(address, 16), set()).add(name)
    for address in list(names)[:: len(names) // 200]:
        assert symbols.find(address)[0] in names[address]


@pytest.fixture
def kernel(tmp_path):
    (tmp_path / "kallsyms").write_bytes(TEXT)
    (tmp_path / "notes").write_bytes(b"\x04\0\0\0\x02\0\0\0\x03\0\0\0GNU\0\xab\xcd\0\0")
    clock = [0.0]
    kernel = Kernel(tmp_path, lambda: clock[0], notes=tmp_path / "notes")
    return kernel, clock, tmp_path / "kallsyms"


def test_a_callers_frame_is_that_of_its_call(kernel):
    frame, reason = kernel[0].frame(0xFFFFFFFF81000100, is_leaf=False)
    assert (frame.kind, frame.function, frame.address, reason) == (FrameKind.KERNEL, "_stext", 0xFFFFFFFF81000100, "")
    assert (frame.mapping.path, frame.mapping.build_id) == ("[kernel.kallsyms]", "abcd")


def test_a_modules_frame_names_the_module(kernel):
    assert kernel[0].frame(0xFFFFFFFFC0A81234, is_leaf=True)[0].mapping.path == "[nf_conntrack]"


def test_a_module_that_comes_later_is_found_when_reading_is_due(kernel):
    symbols, clock, path = kernel
    address = 0xFFFFFFFFC0B00010
    assert symbols.frame(address, is_leaf=True)[1] == "kernel_unknown"
    path.write_bytes(TEXT + b"ffffffffc0b00000 t late\t[late_module]\n")
    clock[0] += 100
    symbols.frame(address + 0x8, is_leaf=True)
    assert symbols.frame(address, is_leaf=True)[0].function == "late"


def test_a_kernel_that_hides_its_addresses_is_told(kernel):
    symbols, _, path = kernel
    path.write_bytes(b"0000000000000000 T _stext\n")
    frame, reason = symbols.frame(0xFFFFFFFF81000100, is_leaf=True)
    assert (frame.function, frame.mapping, reason) == ("", None, "kernel_restricted")


def test_without_a_list_nothing_has_a_name(tmp_path):
    kernel = Kernel(tmp_path, lambda: 0.0, notes=tmp_path / "none")
    assert kernel.frame(0xFFFFFFFF81000100, is_leaf=True)[1] == "kernel_unknown"
