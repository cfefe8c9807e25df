import pytest

from ebbflow.errors import DependencyError, PermissionDenied, ProgramRefused
from ebbflow.kernel.refusal import refusal
from ebbflow.kernel.source import SourceText

NOTHING = SourceText("", {})
# What Linux 6.18 wrote for a lookup whose result was followed unchecked.
UNCHECKED = """bpf: Failed to load program: Permission denied
0: R1=ctx() R10=fp0
;  @ main.c:4
0: (b7) r1 = 3                        ; R1=3
;  @ head.h:3
2: (18) r1 = 0xffff88814c297000       ; R1=map_ptr(map=xs,ks=4,vs=8)
;  @ main.c:0
5: (07) r2 += -4                      ; R2=fp-4
;  @ head.h:2
7: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0

HINT: The 'map_value_or_null' error can happen if you dereference a pointer value
"""


@pytest.fixture
def source(tmp_path):
    (tmp_path / "head.h").write_text("one\n\treturn *found;\n")
    return SourceText("", {"head.h": tmp_path / "head.h"})


def test_refusal_of_the_verifier_carries_line_log_and_hint(source):
    error = refusal(source, "main.c: on", "load", UNCHECKED, "Failed to load BPF program b'on': Permission denied")
    assert isinstance(error, ProgramRefused)
    assert str(error).startswith("main.c: on: load: at head.h:2: `return *found;`: ")
    assert str(error).endswith("| 7: (79) r0 = *(u64 *)(r0 +0) | R0 invalid mem access 'map_value_or_null'")
    assert "NULL" in error.hint


def test_refusal_without_places_quotes_the_text_of_the_line():
    log = "; return *found;\n7: (79) r0 = *(u64 *)(r0 +0)\nR0 invalid mem access 'map_value_or_null'\n"
    assert "at `return *found;`: " in str(refusal(NOTHING, "x.c", "load", log, ""))


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        ("invalid access to map value, value_size=8 off=800 size=8", "bound the index"),
        ("back-edge from insn 8 to 4", "loop"),
        ("infinite loop detected at insn 3", "loop"),
        ("BPF program is too large. Processed 1000001 insn", "tail calls"),
        ("combined stack size of 2 calls is 600. Too large", "512 bytes"),
        ("R2 unbounded memory access, use 'var &= const' or 'if (var < const)'", "bound the length"),
        ("R1 !read_ok", "every path"),
        ("R3 invalid mem access 'scalar'", "bpf_probe_read"),
        ("program of this type cannot use helper bpf_get_stack#67", "helper"),
        ("Unreleased reference id=2 alloc_insn=3", "submit or discard"),
        ("something that nobody has seen", "ebbflow doctor"),
    ],
)
def test_refusal_hints_at_what_helps(verdict, word):
    assert word in refusal(NOTHING, "x.c", "load", f"0: (b7) r0 = 0\n{verdict}\nprocessed 1 insns\n", "").hint


def test_refusal_of_the_verifier_keeps_its_last_lines():
    log = "\n".join(f"{n}: (79) r1 = 0" for n in range(100)) + "\nR2 unbounded memory access\n"
    error = refusal(NOTHING, "x.c", "load", log, "Permission denied")
    assert str(error).endswith("| R2 unbounded memory access")
    assert str(error).count("(79) r1") == 5


def test_refusal_of_the_compiler_keeps_its_errors_and_the_line(source):
    log = "head.h:2:10: error: use of undeclared identifier 'found'\nsource line\n1 error generated.\n"
    error = refusal(source, "x.c", "compile", log, "Failed to compile")
    assert isinstance(error, ProgramRefused)
    assert str(error) == (
        "x.c: compile: head.h:2:10: error: use of undeclared identifier 'found' | in `return *found;`"
    )


def test_refusal_without_headers_says_how_to_get_them():
    log = "Unable to find kernel headers. Try rebuilding kernel with CONFIG_IKHEADERS=m\n"
    error = refusal(NOTHING, "x.c", "compile", log, "Failed")
    assert isinstance(error, DependencyError)
    assert "make setup" in error.hint


def test_refusal_without_a_log_keeps_the_exception():
    assert "just so" in str(refusal(NOTHING, "x.c", "load", "", "just so"))


def test_refusal_without_a_verdict_is_of_rights():
    error = refusal(NOTHING, "x.c", "load", "bpf: Failed to load program: Operation not permitted\n", "Need super-user")
    assert isinstance(error, PermissionDenied)
    assert "lockdown" in error.hint


def test_refusal_of_an_extern_table_without_an_owner_says_the_order():
    log = "w.h:6:1: error: expected ')'\nnote: expanded from macro EXTERN_TYPE_shared\n"
    assert "owns the shared table first" in refusal(NOTHING, "x.c", "compile", log, "").hint


def test_refusal_for_size_comes_without_a_log_and_says_so():
    error = refusal(NOTHING, "x.c", "load", "", "Failed to load BPF program b'on': Argument list too long")
    assert "too large: the verifier gave up after 1,000,000 instructions" in str(error)
    assert "tail calls" in error.hint
