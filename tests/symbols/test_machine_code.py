from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections import Counter

import pytest

from ebbflow.symbols.binaries import read_binary
from ebbflow.symbols.files import open_file

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86-64 machine code")

FUNCTION = """
__attribute__((noinline)) int f{i}(int a, int b, int c) {{
    return puts(s) + g(a * {i} + b, c) * g(b * {i}, a) + puts(s + a) + g(c, b);
}}
"""
FUNCTIONS = "".join(FUNCTION.format(i=i) for i in range(20))
SOURCE = f"""
#include <stdio.h>
extern int puts(const char *);
const char *s = "x";
__attribute__((noinline)) int g(int a, int b) {{ return a + puts(s) * b; }}
{FUNCTIONS}
int main(int n, char **v) {{ return {"+".join(f"f{i}(n,n,{i})" for i in range(20))}; }}
"""


def read(path):
    with open_file(path) as file:
        return read_binary(file, (), Counter())


@pytest.mark.parametrize(
    "flags", [["-no-pie"], ["-pie"], ["-fcf-protection=full", "-Wl,-z,ibtplt"], ["-Wl,-z,now"], ["-fno-plt"]]
)
def test_stubs_agree_with_the_disassembler(compiled, flags):
    path = compiled("stubs" + "".join(flags).replace(",", ""), SOURCE, "-O1", *flags)
    table = read(path).table
    found = {int(table.starts[i]): table.name(i) for i in range(len(table)) if table.name(i).endswith("@plt")}
    told = subprocess.run(["objdump", "-d", path], capture_output=True, text=True, check=True).stdout
    labels = {int(a, 16): n for a, n in re.findall(r"^([0-9a-f]+) <([^>]+@plt)>:", told, re.MULTILINE)}
    # objdump 2.40 names .plt entries of IBT programs after .plt.sec's; what it names, is named alike.
    assert {start: labels[start] for start in found if start in labels} == {
        s: n for s, n in found.items() if s in labels
    }
    assert ("puts@plt" in found.values()) == ("puts@plt" in labels.values())


@pytest.mark.skipif(shutil.which("strip") is None, reason="needs strip")
def test_a_stripped_program_still_has_its_stubs(compiled, tmp_path):
    path = compiled("stubs_to_strip", SOURCE, "-O1", "-no-pie")
    subprocess.run(["strip", "-o", tmp_path / "stripped", path], check=True)
    binary = read(tmp_path / "stripped")
    assert binary.stripped
    assert "puts@plt" in {binary.table.name(i) for i in range(len(binary.table))}


@pytest.mark.parametrize(
    ("flag", "low", "high"), [("-fno-omit-frame-pointer", 0.9, 1.0), ("-fomit-frame-pointer", 0.0, 0.1)]
)
def test_frame_pointers_are_told_from_the_code(compiled, flag, low, high):
    share = read(compiled("pointers" + flag, SOURCE, "-O2", flag)).frame_pointers
    assert low <= share <= high


def test_frame_pointers_of_a_file_with_few_functions_are_not_judged(compiled):
    path = compiled("tiny", "void _start(void) { for (;;); }", "-nostdlib", "-static")
    assert read(path).frame_pointers is None


def test_a_stripped_libc_still_names_where_threads_begin():
    with open_file("/lib/x86_64-linux-gnu/libc.so.6") as file:
        if file is None:
            pytest.skip("no glibc here")
        table = read_binary(file, (), Counter()).table
    names = [table.name(i) for i in range(len(table))]
    assert {"__libc_start_call_main", "start_thread"} <= set(names)
