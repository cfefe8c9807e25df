import pytest

from ebbflow.errors import KernelError
from ebbflow.kernel.source import read_source


def test_source_has_headers_in_place_once_and_names_every_line(tmp_path):
    (tmp_path / "a.h").write_text('#include "b.h"\na\n')
    (tmp_path / "b.h").write_text("b\n")
    (tmp_path / "main.c").write_text('#include <linux/x.h>\n#include "a.h"\n  # include "b.h"\nmain\n')
    source = read_source(tmp_path / "main.c")
    assert source.text.splitlines()[1:] == [
        '#line 1 "main.c"', "#include <linux/x.h>",
        '#line 1 "a.h"', '#line 1 "b.h"', "b", '#line 2 "a.h"', "a",
        '#line 3 "main.c"', '#line 4 "main.c"', "main",
    ]  # fmt: skip
    assert source.line("b.h", 1) == "b"
    assert [source.line("b.h", 9), source.line("b.h", 0), source.line("c.h", 1)] == ["", "", ""]


def test_source_counts_bodies_of_functions_from_their_brace(tmp_path):
    (tmp_path / "main.c").write_text("int f(void)\n{\n\tif (1) {\n\t}\n}\n")
    assert read_source(tmp_path / "main.c").text.splitlines()[2:] == [
        "int f(void)", "{", '#line 3 "main.c"', "\tif (1) {", "\t}", "}",
    ]  # fmt: skip


def test_source_tables_of_other_programs_are_left_to_the_loader(tmp_path):
    (tmp_path / "main.c").write_text(
        'BPF_TABLE_PUBLIC("hash", u32, u32, ours, 64);\nBPF_TABLE( "extern", u32, u32, theirs, 64);\n'
    )
    lines = read_source(tmp_path / "main.c").text.splitlines()
    assert lines[2:] == ['BPF_TABLE("hash", u32, u32, ours, 64);', "EXTERN_TABLE( u32, u32, theirs, 64);"]


def test_source_missing_header_is_named(tmp_path):
    (tmp_path / "main.c").write_text('#include "gone.h"\n')
    with pytest.raises(KernelError, match=r"gone\.h: No such file"):
        read_source(tmp_path / "main.c")
