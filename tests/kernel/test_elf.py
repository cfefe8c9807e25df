import subprocess

import pytest

from ebbflow.errors import KernelError, ProbeNotFound
from ebbflow.kernel.elf import Elf

# A USDT probe as <sys/sdt.h> makes it, written out: no package is needed.
SOURCE = r"""
unsigned short gate __attribute__((section(".probes")));
static int chosen(void) { return 1; }
static void *choose(void) { return chosen; }
int indirect(void) __attribute__((ifunc("choose")));
static __attribute__((noinline)) int hidden(int n) { return n + 1; }
int seen(int n)
{
	__asm__ volatile("990: nop\n"
		".pushsection .note.stapsdt,\"\",\"note\"\n.balign 4\n.4byte 992f-991f, 994f-993f, 3\n"
		"991: .asciz \"stapsdt\"\n992: .balign 4\n993: .8byte 990b, _.stapsdt.base, gate\n"
		".asciz \"shop\"\n.asciz \"order\"\n.asciz \"-4@%%edi\"\n994: .balign 4\n.popsection\n"
		".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n.weak _.stapsdt.base\n"
		"_.stapsdt.base: .space 1\n.size _.stapsdt.base, 1\n.popsection\n" :: "D"(n));
	return hidden(n);
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elf")
    (folder / "shop.c").write_text(SOURCE)
    command = ["gcc", "-O1", "-fPIC", "-shared", "-Wl,-Bsymbolic", "-o", folder / "libshop.so", folder / "shop.c"]
    subprocess.run(command, check=True)
    return folder / "libshop.so"


def nm(path):
    lines = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[2]: int(line.split()[0], 16) for line in lines if len(line.split()) == 3}


def test_elf_functions_are_where_nm_says_also_local_ones(library):
    functions, told = Elf(library).functions(), nm(library)
    assert {name: functions[name] for name in ("seen", "hidden")} == {name: told[name] for name in ("seen", "hidden")}


def test_elf_one_function_is_found_as_among_all_also_by_a_shared_tail(library):
    file = Elf(library)
    assert {name: file.function(name) for name in file.functions()} == file.functions()
    assert [file.function(name) for name in ("een", "indirect", "nothing")] == [None, None, None]
    assert [file.is_indirect(name) for name in ("indirect", "seen", "direct")] == [True, False, False]


def test_elf_indirect_functions_are_told_apart(library):
    assert Elf(library).indirect_functions() == {"indirect"}
    assert "indirect" not in Elf(library).functions()


def test_elf_usdt_probe_has_its_place_semaphore_and_arguments(library):
    (probe,) = Elf(library).usdt()
    assert (probe.provider, probe.name, probe.arguments) == ("shop", "order", "-4@%edi")
    assert 0 <= probe.location - Elf(library).functions()["seen"] < 16
    file = Elf(library)
    assert probe.semaphore == file.offset_of(nm(library)["gate"])


def test_elf_address_outside_of_every_segment_is_an_error(library):
    with pytest.raises(KernelError, match="is in no segment"):
        Elf(library).offset_of(1 << 40)


def test_elf_missing_file_names_its_neighbours(library):
    with pytest.raises(ProbeNotFound) as caught:
        Elf(library.with_name("libshopp.so"))
    assert caught.value.hint == "nearby: libshop.so"


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n" * 9, b"\x7fELF\x01\x01" + bytes(60)])
def test_elf_other_files_are_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(KernelError, match="is no"):
        Elf(tmp_path / "x")


def test_elf_cut_short_is_an_error_and_no_crash(library, tmp_path):
    whole = library.read_bytes()
    for length in range(64, len(whole), 997):
        (tmp_path / "cut").write_bytes(whole[:length])
        try:
            file = Elf(tmp_path / "cut")
            file.functions()
            file.usdt()
        except KernelError:
            continue
