from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from cffi import FFI
from hypothesis import given
from hypothesis import strategies as st

from ebbflow.errors import InternalError
from ebbflow.kernel.layout import BPF_DIRECTORY, Header, read_header

SIZES = {f"__{sign}{bits}": bits // 8 for sign in "us" for bits in (8, 16, 32, 64)}
# The others hold code, not layouts.
HEADERS = sorted(
    path
    for path in BPF_DIRECTORY.glob("*.h")
    if "static inline" not in (text := path.read_text("ascii")) and re.search(r"^struct \w+ \{", text, re.MULTILINE)
)
_numbers = itertools.count()


@pytest.fixture(scope="session")
def parse(tmp_path_factory):
    """Header text to Header; a new file every time, because results are cached by path."""
    directory = tmp_path_factory.mktemp("headers")

    def parse_text(text: str) -> Header:
        path = directory / f"h{next(_numbers)}.h"
        path.write_text(text)
        return read_header(path)

    return parse_text


def c_sizes(text: str) -> FFI:
    """The same header as the C compiler's rules lay it out, by cffi."""
    ffi = FFI()
    types = "".join(f"typedef {'u' * (t[2] == 'u')}int{t[3:]}_t {t};" for t in SIZES)
    ffi.cdef(types + re.sub(r"^#.*$", "", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL), flags=re.MULTILINE))
    return ffi


def test_read_header_all_types_become_little_endian(parse):
    fields = "".join(f"\t{name} f{name};\n" for name in sorted(SIZES, key=SIZES.get, reverse=True))
    layout = parse(f"struct all {{\n{fields}\t__u16 rest;\n}};\n").structs["all"]
    formats = {name: layout.dtype[f"f{name}"] for name in SIZES}
    assert formats == {name: np.dtype(f"<{name[2].replace('s', 'i')}{size}") for name, size in SIZES.items()}
    assert layout.size == 32


def test_read_header_nested_structs_and_arrays(parse):
    inner = "struct in {\n\t__u16 a;\n\t__u16 b;\n};\n"
    text = f"{inner}struct out {{\n\tstruct in pair[2];\n\tchar name[8];\n\t__u8 raw[4];\n}};\n"
    dtype = parse(text).structs["out"].dtype
    row = np.frombuffer(b"\1\0\2\0\3\0\4\0" + b"abc\0\0\0\0\0" + b"\1\2\3\4", dtype)[0]
    assert row["pair"].tolist() == [(1, 2), (3, 4)]
    assert (row["name"], row["raw"].tolist()) == (b"abc", [1, 2, 3, 4])


def test_read_header_enums_map_names_to_values(parse):
    assert parse("enum colour {\n\tRED = 1,\n\tBLUE = 7,\n};\n").enums == {"colour": {"RED": 1, "BLUE": 7}}


def test_read_header_comments_and_directives_are_skipped(parse):
    text = "#define X\n/* struct no { __u8 a; };\n * more */\nstruct yes {\n\t__u8 a; /* __u64 b; */\n};\n"
    assert list(parse(text).structs) == ["yes"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("__u8 a;\n\t__u32 b;", "implicit hole before b"),
        ("__u32 a;\n\t__u8 b;", "implicit hole at the end"),
        ("__u32 a : 3;\n\t__u32 b : 29;", "bit-field"),
        ("__u64 *a;", "outside the header grammar"),
        ("float a;", "outside the header grammar"),
        ("unknown_t a;", "outside the header grammar"),
        ("__u8 a[];", "outside the header grammar"),
        ("char a;", "outside the header grammar"),
        ("union { __u8 a; __u8 b; } c;", "outside the header grammar"),
    ],
)
def test_read_header_what_two_compilers_could_read_differently_is_refused(parse, body, told):
    with pytest.raises(InternalError, match=told):
        parse(f"struct odd {{\n\t{body}\n}};\n")


def test_hash_is_the_same_for_the_same_arrangement(parse):
    one = parse("struct s {\n\t__u32 a;\n\t__u32 b;\n};\n").structs["s"]
    two = parse("/* again */\nstruct s {\n\t__u32 a; /* first */\n\t__u32 b;\n};\n").structs["s"]
    assert one.hash == two.hash


@pytest.mark.parametrize(
    "body", ["__u32 a;\n\t__u32 c;", "__u32 b;\n\t__u32 a;", "__u32 a;\n\t__s32 b;", "__u32 a;\n\t__u32 b;\n\t__u32 c;",
             "__u32 a[2];", "__u64 a;", "__u32 a;\n\tchar b[4];"],
)  # fmt: skip
def test_hash_changes_with_names_types_order_and_size(parse, body):
    known = parse("struct s {\n\t__u32 a;\n\t__u32 b;\n};\n").structs["s"]
    assert parse(f"struct s {{\n\t{body}\n}};\n").structs["s"].hash != known.hash


@given(types=st.lists(st.sampled_from(sorted(SIZES)), min_size=1, max_size=8))
def test_read_header_agrees_with_c_or_refuses(parse, types):
    fields = "".join(f"\t{kind} f{index};\n" for index, kind in enumerate(types))
    text = f"struct any {{\n{fields}}};\n"
    ffi = c_sizes(text)
    has_no_hole = ffi.sizeof("struct any") == sum(SIZES[kind] for kind in types)
    try:
        dtype = parse(text).structs["any"].dtype
    except InternalError:
        assert not has_no_hole
    else:
        offsets = [dtype.fields[f"f{index}"][1] for index in range(len(types))]
        assert offsets == [ffi.offsetof("struct any", f"f{index}") for index in range(len(types))]
        assert dtype.itemsize == ffi.sizeof("struct any")


@pytest.mark.parametrize("path", HEADERS, ids=lambda path: path.name)
def test_committed_header_agrees_with_c(path):
    ffi = c_sizes(path.read_text())
    header = read_header(path)
    assert header.structs
    for name, layout in header.structs.items():
        fields = {field: ffi.offsetof(f"struct {name}", field) for field in layout.dtype.names}
        assert {field: layout.dtype.fields[field][1] for field in fields} == fields
        assert layout.size == ffi.sizeof(f"struct {name}")
