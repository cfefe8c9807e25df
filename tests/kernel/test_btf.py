"""BTF against blobs of an encoder written from the format's description, and against bpftool on the running kernel."""

import re
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebbflow.errors import KernelError, LayoutMismatch
from ebbflow.kernel.btf import VMLINUX, Btf

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST = range(1, 11)
FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)


class Encoder:
    """Writes BTF one type at a time; every method returns the new type's id."""

    def __init__(self):
        self.types, self.names, self.count = b"", b"\0", 0

    def name(self, text):
        if not text:
            return 0
        at = len(self.names)
        self.names += text.encode() + b"\0"
        return at

    def add(self, kind, name="", size_or_type=0, vlen=0, flag=0, extra=b""):
        self.types += struct.pack("=III", self.name(name), flag << 31 | kind << 24 | vlen, size_or_type) + extra
        self.count += 1
        return self.count

    def int(self, name="int", size=4):
        return self.add(INT, name, size, extra=struct.pack("=I", size * 8))

    def record(self, kind, name, size, members, flag=0):
        extra = b"".join(struct.pack("=III", self.name(m), type_id, place) for m, type_id, place in members)
        return self.add(kind, name, size, len(members), flag, extra)

    def struct(self, name, size, *members):
        return self.record(STRUCT, name, size, members)

    def blob(self, header=24):
        head = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, header, 0, len(self.types), len(self.types), len(self.names))
        return head.ljust(header, b"\0") + self.types + self.names

    def parse(self, **kwargs):
        return Btf.parse(self.blob(**kwargs))


def test_offset_of_direct_member_is_bytes():
    e = Encoder()
    e.struct("pair", 8, ("a", e.int(), 0), ("b", 1, 32))
    assert e.parse().offset("pair", "b") == 4


def test_offset_dotted_path_goes_through_nested_struct_and_typedef_and_qualifiers():
    e = Encoder()
    integer = e.int()
    inner = e.struct("inner", 12, ("x", integer, 64))
    alias = e.add(TYPEDEF, "inner_t", e.add(CONST, size_or_type=e.add(VOLATILE, size_or_type=inner)))
    e.struct("outer", 32, ("pad", integer, 0), ("in", e.add(TYPE_TAG, "rcu", alias), 128))
    assert e.parse().offset("outer", "in.x") == 16 + 8


def test_offset_anonymous_members_are_looked_through_at_any_depth():
    e = Encoder()
    integer = e.int()
    ports = e.struct("", 4, ("skc_dport", integer, 0), ("skc_num", integer, 16))
    union = e.record(UNION, "", 4, [("skc_portpair", integer, 0), ("", ports, 0)])
    alias = e.add(CONST, size_or_type=union)
    e.struct("sock_common", 32, ("skc_hash", integer, 0), ("", alias, 96), ("skc_family", integer, 128))
    btf = e.parse()
    assert btf.offset("sock_common", "skc_num") == 14
    assert btf.offset("sock_common", "skc_portpair") == 12
    assert btf.offset("sock_common", "skc_family") == 16


def test_offset_struct_named_by_typedef_only_is_found():
    e = Encoder()
    e.add(TYPEDEF, "kuid_t", e.struct("", 4, ("val", e.int(), 0)))
    assert e.parse().offset("kuid_t", "val") == 0
    assert e.parse().size_of("kuid_t") == 4


def test_offset_bits_with_kind_flag_has_place_and_width():
    e = Encoder()
    e.record(STRUCT, "flags", 8, [("whole", e.int(), 0), ("one", 1, 1 << 24 | 37), ("three", 1, 3 << 24 | 40)], flag=1)
    btf = e.parse()
    assert btf.offset_bits("flags", "one") == 37
    assert btf.member("flags", "three").width_bits == 3
    assert btf.offset("flags", "whole") == 0


@pytest.mark.parametrize("member", ["one", "three"])
def test_offset_of_bit_field_is_layout_mismatch(member):
    e = Encoder()
    e.record(STRUCT, "flags", 8, [("one", e.int(), 1 << 24 | 37), ("three", 1, 3 << 24 | 40)], flag=1)
    with pytest.raises(LayoutMismatch, match=rf"flags\.{member} is a bit-field"):
        e.parse().offset("flags", member)


def test_offset_bits_of_nested_bit_field_adds_up():
    e = Encoder()
    inner = e.record(STRUCT, "inner", 4, [("bit", e.int(), 1 << 24 | 3)], flag=1)
    e.struct("outer", 8, ("in", inner, 32))
    assert e.parse().offset_bits("outer", "in.bit") == 35


def test_offset_missing_struct_is_layout_mismatch_that_names_it():
    e = Encoder()
    e.int()
    with pytest.raises(LayoutMismatch, match="no struct task_struct") as caught:
        e.parse().offset("task_struct", "pid")
    assert "uname -r" in caught.value.hint


@pytest.mark.parametrize("path", ["nothing", "a.b", "a.", "", "p.x"])
def test_offset_missing_member_is_layout_mismatch_that_names_it(path):
    e = Encoder()
    integer = e.int()
    pointed = e.struct("pointed", 4, ("x", integer, 0))
    e.struct("s", 16, ("a", integer, 0), ("p", e.add(PTR, size_or_type=pointed), 64))
    with pytest.raises(LayoutMismatch, match=f"struct s of this kernel has no member {re.escape(path)}$"):
        e.parse().offset("s", path)


def test_has_says_whether_struct_and_member_exist():
    e = Encoder()
    e.struct("s", 4, ("a", e.int(), 0))
    btf = e.parse()
    assert [btf.has("s", "a"), btf.has("s", "b"), btf.has("t", "a")] == [True, False, False]


def test_offset_same_name_twice_and_agreeing_is_found():
    e = Encoder()
    e.struct("s", 8, ("a", e.int(), 32))
    e.struct("s", 16, ("a", 1, 32), ("b", 1, 64))
    btf = e.parse()
    assert btf.offset("s", "a") == 4
    assert btf.offset("s", "b") == 8
    with pytest.raises(LayoutMismatch, match="several of different sizes"):
        btf.size_of("s")


def test_offset_same_name_twice_and_disagreeing_is_refused():
    e = Encoder()
    e.struct("s", 8, ("a", e.int(), 32))
    e.struct("s", 8, ("a", 1, 0))
    with pytest.raises(LayoutMismatch, match="several structs s with a in different places"):
        e.parse().offset("s", "a")


def test_walk_skips_every_other_kind():
    e = Encoder()
    e.int()
    e.add(FLOAT, "double", 8)
    e.add(PTR)
    e.add(ARRAY, extra=struct.pack("=III", 1, 1, 4))
    e.add(ENUM, "colour", 4, 2, extra=struct.pack("=IiIi", e.name("RED"), 0, e.name("BLUE"), 1))
    e.add(ENUM64, "wide", 8, 1, extra=struct.pack("=III", e.name("W"), 0, 1))
    e.add(FWD, "later")
    e.add(FUNC, "f", e.add(FUNC_PROTO, vlen=2, extra=struct.pack("=IIII", 0, 1, 0, 1)))
    e.add(VAR, "v", 1, extra=struct.pack("=I", 1))
    e.add(DATASEC, ".data", 4, 1, extra=struct.pack("=III", 10, 0, 4))
    e.add(DECL_TAG, "tag", 1, extra=struct.pack("=i", -1))
    e.struct("last", 4, ("m", 1, 0))
    assert e.parse().size_of("last") == 4
    assert not e.parse().has("later", "m")


def test_parse_longer_header_is_honoured():
    e = Encoder()
    e.struct("s", 4, ("a", e.int(), 0))
    assert e.parse(header=40).size_of("s") == 4


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "0 bytes are no header"),
        (b"\x7fELF" + bytes(60), "not BTF version 1"),
        (struct.pack("=HBBIIIII", 0x9FEB, 1, 0, 24, 0, 0, 0, 0), "magic 0x9feb"),
        (struct.pack("=HBBIIIII", 0xEB9F, 2, 0, 24, 0, 0, 0, 0), "version 2"),
        (struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, 1), "cut short"),
    ],
)
def test_parse_not_btf_is_kernel_error(blob, message):
    with pytest.raises(KernelError, match=message):
        Btf.parse(blob)


def test_parse_unknown_kind_is_kernel_error():
    e = Encoder()
    e.add(25)
    with pytest.raises(KernelError, match="type 1 is of unknown kind 25"):
        e.parse()


def test_parse_type_past_the_end_is_kernel_error():
    e = Encoder()
    e.add(STRUCT, "s", 4, vlen=9)
    with pytest.raises(KernelError, match="type 1 runs past the end"):
        e.parse()


def test_member_of_unknown_type_is_kernel_error():
    e = Encoder()
    e.struct("s", 4, ("a", 77, 0))
    with pytest.raises(KernelError, match="type 77 of 1"):
        e.parse().offset("s", "a.b")


def test_member_with_name_outside_the_strings_is_kernel_error():
    e = Encoder()
    e.int()
    e.add(STRUCT, "s", 4, 1, extra=struct.pack("=III", 9999, 1, 0))
    with pytest.raises(KernelError, match="a name at 9999"):
        e.parse().offset("s", "a")


def test_load_missing_file_is_kernel_error_with_hint(tmp_path):
    with pytest.raises(KernelError, match="no BTF") as caught:
        Btf.load(tmp_path / "vmlinux")
    assert "CONFIG_DEBUG_INFO_BTF" in caught.value.hint


def test_load_damaged_file_names_it(tmp_path):
    path = tmp_path / "vmlinux"
    path.write_bytes(b"nonsense")
    with pytest.raises(KernelError, match=r"vmlinux: not BTF"):
        Btf.load(path)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from([1, 2, 4, 8]), st.booleans()), min_size=1, max_size=20))
def test_offset_any_packed_struct_matches_running_sum(members):
    """Oracle: a packed struct's offsets are the running sum of its members' sizes, wrapped anonymously or not."""
    e = Encoder()
    integers = {size: e.int(f"u{size}", size) for size in (1, 2, 4, 8)}
    encoded, expected, end = [], {}, 0
    for index, (size, wrapped) in enumerate(members):
        name, expected[f"m{index}"] = f"m{index}", end
        if wrapped:
            encoded.append(("", e.struct("", size, (name, integers[size], 0)), end * 8))
        else:
            encoded.append((name, integers[size], end * 8))
        end += size
    e.struct("packed", end, *encoded)
    btf = e.parse()
    assert {name: btf.offset("packed", name) for name in expected} == expected
    assert btf.size_of("packed") == end


def bpftool_structs():
    """Every named struct of the running kernel with its size and direct members, as bpftool prints them."""
    tool = shutil.which("bpftool", path="/usr/sbin:/usr/bin:/sbin:/bin") or pytest.skip("bpftool is not installed")
    dump = subprocess.run([tool, "btf", "dump", "file", VMLINUX], capture_output=True, text=True, check=True).stdout
    found, members = {}, {}
    for line in dump.splitlines():
        if line[:1] == "[":
            head = re.match(r"\[(\d+)\] STRUCT '(\w+)' size=(\d+)", line)
            members = {}
            if head:
                found.setdefault(head[2], []).append((int(head[3]), members))
        elif field := re.match(r"\t'(\w+)' type_id=\d+ bits_offset=(\d+)", line):
            members[field[1]] = int(field[2])
    return found


@pytest.mark.bpf
@pytest.mark.skipif(not Path(VMLINUX).exists(), reason="this kernel has no BTF")
def test_load_running_kernel_agrees_with_bpftool_on_every_struct():
    btf, wrong, compared = Btf.load(), [], 0
    for name, variants in bpftool_structs().items():
        if len(variants) > 1 or len(btf.names[name.encode()]) > 1:
            continue
        size, members = variants[0]
        compared += len(members)
        if btf.size_of(name) != size or {m: btf.offset_bits(name, m) for m in members} != members:
            wrong.append(name)
    assert wrong == []
    assert compared > 10_000


@pytest.mark.bpf
@pytest.mark.skipif(not Path(VMLINUX).exists(), reason="this kernel has no BTF")
def test_load_running_kernel_takes_less_than_half_a_second():
    start = time.perf_counter()
    btf = Btf.load()
    assert btf.offset("sock", "__sk_common.skc_dport") == btf.offset("sock_common", "skc_dport")
    assert time.perf_counter() - start < 0.5


def test_parameters_of_a_function_type_are_spelled():
    e = Encoder()
    boolean = e.add(TYPEDEF, "bool", e.int("_Bool", 1))
    task = e.add(PTR, size_or_type=e.add(CONST, size_or_type=e.struct("task_struct", 8)))
    prototype = e.add(
        FUNC_PROTO, vlen=4, extra=struct.pack("=IIIIIIII", 0, e.add(PTR), 0, boolean, 0, task, 0, e.int("unsigned int"))
    )
    e.add(TYPEDEF, "btf_trace_switch", e.add(PTR, size_or_type=prototype))
    e.add(TYPEDEF, "number", 1)
    assert e.parse().parameters("btf_trace_switch") == ["void *", "bool", "task_struct *", "unsigned int"]
    for name in ("number", "absent"):
        with pytest.raises(LayoutMismatch, match=name):
            e.parse().parameters(name)
