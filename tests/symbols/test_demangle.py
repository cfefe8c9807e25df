from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebbflow.symbols.cxx_names import CxxNames
from ebbflow.symbols.demangle import Demangler
from ebbflow.symbols.rust_names import rust_name
from ebbflow.symbols.rust_v0 import MAX_OUTPUT_CHARACTERS


def has_libstdcxx():
    with suppress(OSError):
        return bool(ctypes.CDLL("libstdc++.so.6"))
    return False


needs_libstdcxx = pytest.mark.skipif(not has_libstdcxx(), reason="needs libstdc++")

LEGACY = {
    "_ZN4core3fmt5write17h0123456789abcdefE": "core::fmt::write",
    "_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$3bar17h930b740aa94f1d3aE":
        "<Test + 'static as foo::Bar<Test>>::bar",
    "_ZN4core3ptr13drop_in_place17h0123456789abcdefE.llvm.1234": "core::ptr::drop_in_place",
    "_ZN1a13gr$uf6$$udf$e17hc7294238dfb1823aE": "a::größe",
}  # fmt: skip
V0 = {  # the first ones are the RFC's own examples
    "_RNvNtCs1234_7mycrate3foo3bar": "mycrate::foo::bar",
    "_RINvNtC3std3mem8align_ofjE": "std::mem::align_of::<usize>",
    "_RNvMs0_NtNtCs1_7mycrate1a1bNtB5_3Foo3new": None,
    "_RNCNvC7mycrate4main0B3_": "mycrate::main::{closure#0}",
    "_RNCNvC7mycrate4mains_0B3_": "mycrate::main::{closure#1}",
    "_RNvYNtC1a1SNtC1b1T1f": "<a::S as b::T>::f",
    "_RNvXC1aNtB2_1SNtC1b1T1f": "<a::S as b::T>::f",
    "_RINvC1a1fRSeOhAhj20_E": "a::f::<&[str], *mut u8, [u8; 32]>",
    "_RINvC1a1fFKCmlEzDNtC1b1TEL_TjEE": 'a::f::<extern "C" fn(u32, i32) -> !, dyn b::T, (usize,)>',
    "_RINvC1a1fKb1_Kln5_Kc61_KpE": "a::f::<true, -5, 'a', _>",
    "_RNvC1au9gre_fka0d": None,
    "_RNqCs4fqI2P2rA04_11utf8_identsu30____7hkackfecea1cbdathfdh9hlq6y": "utf8_idents::საჭმელად_გემრიელი_სადილი",
}


@pytest.mark.parametrize(("name", "path"), LEGACY.items())
def test_legacy_rust_names_lose_their_hash(name, path):
    assert rust_name(name) == path


@pytest.mark.parametrize(("name", "path"), [(name, path) for name, path in V0.items() if path])
def test_v0_rust_names_become_paths(name, path):
    assert rust_name(name) == path


@pytest.mark.parametrize(
    "name", ["_ZN3foo3barEv", "_ZN3foo3barE", "_RNv", "_R9NvC1a1b", "_RNvC99a1b", "_RB_", "_RNvB0_1a", "main", "_R", ""]
)
def test_other_names_are_not_rusts(name):
    assert rust_name(name) is None


def test_a_name_that_expands_without_end_is_left_alone():
    # A tuple of a tuple of …, each twice what stands before it, by back references.
    name = "_RINvC1a1fThhE"
    at = 8
    for _ in range(40):
        next_at = len(name) - 2
        name += f"TB{base_62(at)}B{base_62(at)}E"
        at = next_at
    assert rust_name(name + "E") is None


def base_62(value: int) -> str:
    digits, value = "", value - 1
    alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    while True:
        digits, value = alphabet[value % 62] + digits, value // 62
        if not value:
            return digits + "_"


@settings(max_examples=200, deadline=None)
@given(st.text("_NvCIRsBTEKpjh0123456789abSAXYMFGLDOQZ.$uxé", max_size=60), st.sampled_from(["_R", "_ZN", "_RINv", ""]))
def test_garbage_never_raises_and_stays_short(text, prefix):
    name = rust_name(prefix + text)
    assert name is None or len(name) <= MAX_OUTPUT_CHARACTERS


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*LEGACY, *V0]), st.data())
def test_damaged_names_never_raise(name, data):
    at = data.draw(st.integers(0, len(name)))
    rust_name(
        name[:at] + data.draw(st.text("_NvCIRsBTEKpj01a", max_size=3)) + name[at + data.draw(st.integers(0, 2)) :]
    )


@pytest.fixture
def cxx():
    troubles: Counter[str] = Counter()
    names = CxxNames(troubles)
    yield names, troubles
    names.close()


@needs_libstdcxx
def test_cxx_names_are_demangled(cxx):
    names, troubles = cxx
    assert (
        names.demangle("_ZNSt6vectorIiSaIiEE9push_backEOi")
        == "std::vector<int, std::allocator<int> >::push_back(int&&)"
    )
    assert names.demangle("_Znot_a_name") == "_Znot_a_name"
    assert names.demangle("_Z" + "x" * 5000) == "_Z" + "x" * 5000
    assert troubles == Counter()


@needs_libstdcxx
def test_a_name_that_expands_without_end_stays_as_it_is_and_others_follow(cxx, monkeypatch):
    monkeypatch.setattr("ebbflow.symbols.cxx_names._ANSWER_S", 0.1)
    names, troubles = cxx
    bomb = "_Z1f1B1AIS_S_E" + "".join(f"S0_IS{index}_S{index}_E" for index in "123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert names.demangle(bomb) == bomb
    # It died of memory, or said nothing in time: whichever it was, it is over.
    names._rest_until_s = 0.0
    monkeypatch.setattr("ebbflow.symbols.cxx_names._ANSWER_S", 60)
    assert names.demangle("_Z3foov") == "foo()"
    assert troubles == {"demangler_failed": 1}


def test_a_helper_that_dies_is_counted_and_rests_before_the_next(cxx):
    names, troubles = cxx
    clock = [0.0]
    names._now = lambda: clock[0]
    helper = names._running()
    helper.kill()
    helper.wait()
    assert names.demangle("_Z3foov") == "_Z3foov"
    assert (troubles["demangler_failed"], names._running()) == (1, None)
    clock[0] += 60
    assert names._running() is not None


@needs_libstdcxx
def test_the_helper_has_no_rights(cxx):
    names, _ = cxx
    names.demangle("_Z3foov")
    status = Path(f"/proc/{names._helper.pid}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (int(facts["CapEff"], 16), int(facts["CapPrm"], 16), facts["NoNewPrivs"]) == (0, 0, "1")
    assert "0" not in facts["Uid"].split()


def test_closing_ends_the_helper(cxx):
    names, _ = cxx
    helper = names._running()
    names.close()
    assert helper.poll() is not None
    names.close()


def test_a_demangler_leaves_plain_names_alone_and_keeps_plt():
    demangler = Demangler(Counter(), max_known=2)
    assert demangler.demangle("main") == "main"
    assert demangler.demangle("_RNvC1a1f@plt") == "a::f@plt"
    assert [demangler.demangle(f"_RNvC1a1{c}") for c in "ghij"] == ["a::g", "a::h", "a::i", "a::j"]
    assert len(demangler) == 2
    demangler.close()


@needs_libstdcxx
@pytest.mark.skipif(shutil.which("c++filt") is None or shutil.which("nm") is None, reason="needs binutils")
def test_cxx_names_agree_with_cxxfilt(cxx):
    told = subprocess.run(
        ["nm", "-D", "--defined-only", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6"],
        capture_output=True,
        text=True,
        check=True,
    )
    mangled = sorted({m for m in re.findall(r" [TW] (_Z[\w.]+)", told.stdout) if not re.search("S[a-su-z]", m)})[::97]
    filtered = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    assert [cxx[0].demangle(name) for name in mangled] == filtered.splitlines()
