"""Programs on this kernel: what is refused says where, what is shared is one map, what is closed leaves nothing."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from ebbflow.errors import KernelError, ProbeNotFound, ProgramRefused
from ebbflow.kernel.loader import Program
from ebbflow.kernel.system_calls import ProgramType

pytestmark = pytest.mark.bpf
HERE = Path(__file__).parent
PROBED = HERE / "probed.c"


@pytest.fixture
def write(tmp_path):
    """Write a program file, and close what was made of it."""
    made = []

    def program(text, name="main.c", **definitions):
        (tmp_path / name).write_text(text)
        made.append(Program(tmp_path / name, definitions))
        return made[-1]

    yield program
    for one in made:
        one.close()


def load(program, function="on"):
    with pytest.raises(ProgramRefused) as caught:
        program.load(function, ProgramType.RAW_TRACEPOINT)
    return str(caught.value), caught.value.hint


def test_program_syntax_error_in_a_header_names_file_line_and_text(write, tmp_path):
    (tmp_path / "head.h").write_text("static inline int f(void)\n{\n\treturn nothing;\n}\n")
    with pytest.raises(ProgramRefused) as caught:
        write('#include "head.h"\nint on(void *ctx)\n{\n\treturn f();\n}\n')
    assert "main.c: compile: head.h:3:9: error: use of undeclared identifier 'nothing'" in str(caught.value)
    assert str(caught.value).endswith("| in `return nothing;`")


def test_program_lines_after_a_tracepoint_probe_and_a_header_are_right(write, tmp_path):
    (tmp_path / "head.h").write_text("enum { ONE };\n")
    with pytest.raises(ProgramRefused, match=r"main\.c:5:\d+: error: .*'nothing' \| in `return nothing;`"):
        write('TRACEPOINT_PROBE(sched, sched_process_exec) { return 0; }\n#include "head.h"\n'
              "int on(void *ctx)\n{\n\treturn nothing;\n}\n")  # fmt: skip


def test_program_unchecked_lookup_names_the_header_line_log_and_cure(write, tmp_path):
    (tmp_path / "head.h").write_text(
        "BPF_ARRAY(xs, u64, 4);\nstatic inline u64 pick(u32 i)\n{\n\tu64 *x = xs.lookup(&i);\n\treturn *x;\n}\n"
    )
    text, hint = load(write('#include "head.h"\nint on(void *ctx)\n{\n\treturn pick(3);\n}\n'))
    assert text.startswith("main.c: on: load: at head.h:5: `return *x;`: ")
    assert text.endswith("R0 invalid mem access 'map_value_or_null'")
    assert "NULL" in hint


def test_program_out_of_bounds_names_the_line(write):
    text, hint = load(
        write("struct v { u8 b[8]; };\nBPF_ARRAY(xs, struct v, 1);\nint on(struct bpf_raw_tracepoint_args *ctx)\n{\n"
              "\tint z = 0;\n\tstruct v *x = xs.lookup(&z);\n\tif (!x)\n\t\treturn 0;\n"
              "\treturn x->b[ctx->args[1] & 15];\n}\n")
    )  # fmt: skip
    assert "at main.c:9: `return x->b[ctx->args[1] & 15];`" in text
    assert "bound the index" in hint


def test_program_endless_loop_is_refused_with_a_cure(write):
    text, hint = load(
        write("int on(struct bpf_raw_tracepoint_args *ctx)\n{\n\tvolatile u64 n = 0;\n"
              "#pragma nounroll\n\twhile (n < ctx->args[1] + 1)\n\t\tn += 0;\n\treturn n;\n}\n")
    )  # fmt: skip
    assert "main.c:" in text
    assert "loop" in hint or "tail calls" in hint


def test_program_of_too_many_instructions_is_refused_with_a_cure(write):
    text, hint = load(
        write("BPF_ARRAY(xs, u64, 4);\nint on(struct bpf_raw_tracepoint_args *ctx)\n{\n\tu64 n = ctx->args[1];\n"
              "\tvolatile u64 sum = 0;\n#pragma nounroll\n\tfor (int i = 0; i < 2000000; i++)\n\t\tsum += n;\n"
              "\treturn sum;\n}\n")
    )  # fmt: skip
    assert "too large" in text
    assert "tail calls" in hint


def test_program_function_that_is_not_there_is_not_found_with_near_names(write):
    program = write("int on(void *ctx)\n{\n\treturn 0;\n}\n")
    with pytest.raises(ProbeNotFound) as caught:
        program.load("onn", ProgramType.KPROBE)
    assert caught.value.hint == "nearby: on"


def test_program_function_has_one_type(write):
    program = write("int on(void *ctx)\n{\n\treturn 0;\n}\n")
    program.load("on", ProgramType.KPROBE)
    assert program.load("on", ProgramType.KPROBE) == program.load("on", ProgramType.KPROBE)
    with pytest.raises(KernelError, match="loaded as KPROBE, and cannot be PERF_EVENT"):
        program.load("on", ProgramType.PERF_EVENT)


def test_program_key_depends_on_text_flags_and_nothing_else(write):
    text = "int on(void *ctx)\n{\n\treturn WHAT;\n}\n"
    same = write(text, WHAT=1).key
    assert same == write(text, WHAT=1).key
    assert same != write(text, WHAT=2).key
    assert same != write(text + "/* */", WHAT=1).key


def test_program_lists_what_it_has_loaded_as_bpftool_does():
    program = Program(PROBED, {"PID": os.getpid()})
    try:
        program.load("on_raw", ProgramType.RAW_TRACEPOINT)
        for one in program.programs():
            told = bpftool("prog", one.id)
            names = [told["name"][:15], one.name[:15]]
            assert names[0] == names[1]
            assert (one.type, one.tag, one.memory_bytes) == (told["type"], told["tag"], told["bytes_memlock"])
        assert [one.name for one in program.programs()] == ["tracepoint__syscalls__sys_enter_getppid", "on_raw"]
        for one in program.maps():
            told = bpftool("map", one.id)
            assert (one.name, one.type, one.memory_bytes) == (told["name"], told["type"], told["bytes_memlock"])
            assert (one.key_bytes, one.value_bytes, one.max_entries) == (
                told["bytes_key"], told["bytes_value"], told["max_entries"],
            )  # fmt: skip
        assert {one.name for one in program.maps()} == {"hits", "ring"}
    finally:
        program.close()


def bpftool(kind, number):
    command = ["bpftool", "-j", kind, "show", "id", str(number)]
    return orjson.loads(subprocess.run(command, capture_output=True, check=True).stdout)


SHARED = """#ifdef OWNER
#define TABLE(key, value, name, size) BPF_TABLE_PUBLIC("hash", key, value, name, size)
#else
#define TABLE(key, value, name, size) BPF_TABLE("extern", key, value, name, size)
#endif
TABLE(u32, u32, shared, SIZE);
BPF_ARRAY(seen, u32, 1);

TRACEPOINT_PROBE(syscalls, sys_enter_getppid)
{
	u32 key = 5, *value = shared.lookup(&key);
	int zero = 0;

	if (value)
		seen.update(&zero, value);
	return 0;
}
"""


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_program_shared_table_is_the_owners_map_in_every_run(write, tmp_path, order):
    """BCC finds the map of the first run by a number that is long somebody else's."""
    hold = os.open("/dev/null", os.O_RDONLY)  # so that numbers differ from run to run
    try:
        (tmp_path / "shared.h").write_text(SHARED)
        owner = write('#define OWNER\n#include "shared.h"\n', SIZE=64)
        users = [write('#include "shared.h"\n', f"user{n}.c", SIZE=64) for n in range(2)]
        owner.map("shared")[ctypes.c_uint(5)] = ctypes.c_uint(23)
        os.getppid()
        programs = [owner, *users]
        assert [program.map("seen")[0].value for program in programs] == [23, 23, 23]
        assert len({one.id for program in programs for one in program.maps() if one.name == "shared"}) == 1
        for number in order:
            programs[number].close()
    finally:
        os.close(hold)


def test_program_shared_table_without_owner_or_of_another_size_is_refused(write, tmp_path):
    (tmp_path / "shared.h").write_text(SHARED)
    with pytest.raises(ProgramRefused) as caught:
        write('#include "shared.h"\n', SIZE=64)
    assert "owns the shared table first" in caught.value.hint
    write('#define OWNER\n#include "shared.h"\n', "owner.c", SIZE=64)
    with pytest.raises(KernelError, match=r"table shared is declared as .*'max_entries': 65.* owner made it as"):
        write('#include "shared.h"\n', SIZE=65)


@pytest.mark.parametrize("missing", ["bpf", "perfmon"])
def test_program_without_the_capability_names_it(missing):
    """In a child of root that lacks CAP_SYS_ADMIN and one more."""
    code = (
        "import sys; from pathlib import Path; from ebbflow.kernel.loader import Program\n"
        "from ebbflow.errors import PermissionDenied\n"
        f"try: Program(Path({str(PROBED)!r}), {{'PID': 1}})\n"
        "except PermissionDenied as error: print(error)"
    )
    capabilities = f"-sys_admin,-{missing}"
    command = ["setpriv", "--bounding-set", capabilities, "--inh-caps", capabilities, sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert f": CAP_{missing.upper()} missing" in output


def test_program_that_failed_leaves_nothing(tmp_path):
    before = open_bpf()
    (tmp_path / "main.c").write_text("TRACEPOINT_PROBE(sched, sched_nothing) { return 0; }\nBPF_ARRAY(xs, u64, 4);\n")
    with pytest.raises((ProgramRefused, ProbeNotFound)):
        Program(tmp_path / "main.c", {})
    (tmp_path / "main.c").write_text("BPF_ARRAY(xs, u64, 4);\nint kprobe__nothing_at_all(void *ctx) { return 0; }\n")
    with pytest.raises(KernelError):
        Program(tmp_path / "main.c", {})
    assert open_bpf() == before


def open_bpf():
    from ebbflow.kernel.objects import descriptors

    return descriptors()
