"""The table of names against the headers that are installed here."""

import re
from pathlib import Path

import pytest

from ebbflow.kernel.syscall_names import NAMES, NUMBERS, STRINGS, name_of

HEADERS = [
    path
    for path in (
        Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        Path("/usr/include/asm/unistd_64.h"),
    )
    if path.exists()
]


def test_names_known_numbers_are_right():
    assert (NUMBERS["read"], NUMBERS["ptrace"], NUMBERS["bpf"], NUMBERS["clone3"]) == (0, 101, 321, 435)


@pytest.mark.skipif(not HEADERS, reason="no kernel headers are installed")
@pytest.mark.parametrize("header", HEADERS)
def test_names_against_header_every_call_is_there(header):
    found = re.findall(r"#define __NR_(\w+)\s+(\d+)", header.read_text("ascii"))
    assert len(found) > 300
    assert {name: NUMBERS.get(name) for name, _ in found} == {name: int(number) for name, number in found}


def test_names_every_name_once():
    assert len(NAMES) == len(NUMBERS)


def test_strings_are_of_known_calls_at_possible_places():
    assert set(STRINGS) <= set(NUMBERS)
    assert all(0 <= place < 6 for places in STRINGS.values() for place in places)


def test_name_of_unknown_number_is_the_number():
    assert (name_of(0), name_of(4242)) == ("read", "4242")
