import pytest

from ebbflow.errors import DependencyError, KernelError, PermissionDenied, ProgramRefused
from ebbflow.kernel import loader
from ebbflow.kernel.loader import effective_capabilities, require_capabilities, tracepoint_has

SYS_ADMIN, PERFMON, BPF = 1 << 21, 1 << 38, 1 << 39


def test_effective_capabilities_are_read_from_status_text():
    assert effective_capabilities("Name:\tx\nCapPrm:\tff\nCapEff:\t000001fffeffffff\n") == 0x1FFFEFFFFFF
    assert effective_capabilities("Name:\tx\n") == 0


@pytest.mark.parametrize("enough", [SYS_ADMIN, PERFMON | BPF])
def test_require_capabilities_enough_is_silent(enough):
    require_capabilities(enough)


@pytest.mark.parametrize(
    ("held", "missing"), [(0, "CAP_BPF and CAP_PERFMON"), (BPF, "CAP_PERFMON"), (PERFMON, "CAP_BPF")]
)
def test_require_capabilities_names_what_is_missing(held, missing):
    with pytest.raises(PermissionDenied, match=f": {missing} missing") as caught:
        require_capabilities(held)
    assert "sudo" in caught.value.hint


def test_refusal_of_the_compiler_keeps_its_errors(tmp_path):
    log = "x.c:1:2: error: unknown type name 'u128'\nsource line\n1 error generated.\n"
    error = loader._refusal(tmp_path / "x.c", "compile", log, Exception("Failed to compile"))
    assert isinstance(error, ProgramRefused)
    assert str(error) == "x.c: compile: x.c:1:2: error: unknown type name 'u128'"


def test_refusal_of_the_verifier_keeps_its_last_lines(tmp_path):
    log = "\n".join(f"{n}: (79) r1 = 0" for n in range(100)) + "\nR2 unbounded memory access\n"
    error = loader._refusal(tmp_path / "x.c", "load", log, Exception("Permission denied"))
    assert str(error).endswith("| R2 unbounded memory access")
    assert "(79) r1" in str(error)
    assert len(str(error)) < 300


def test_refusal_without_headers_says_how_to_get_them(tmp_path):
    log = "Unable to find kernel headers. Try rebuilding kernel with CONFIG_IKHEADERS=m\n"
    error = loader._refusal(tmp_path / "x.c", "compile", log, Exception("Failed"))
    assert isinstance(error, DependencyError)
    assert "make setup" in error.hint


def test_refusal_without_a_log_keeps_the_exception(tmp_path):
    assert "just so" in str(loader._refusal(tmp_path / "x.c", "attach", "", Exception("just so")))


def test_tracepoint_has_field_or_not(tmp_path):
    folder = tmp_path / "events" / "sched" / "sched_process_exit"
    folder.mkdir(parents=True)
    (folder / "format").write_text("name: x\n\tfield:bool group_dead;\toffset:32;\tsize:1;\n")
    assert tracepoint_has("sched", "sched_process_exit", "group_dead", tmp_path)
    assert not tracepoint_has("sched", "sched_process_exit", "prio", tmp_path)


def test_tracepoint_missing_says_how_to_mount(tmp_path):
    with pytest.raises(KernelError) as caught:
        tracepoint_has("sched", "nothing", "x", tmp_path)
    assert caught.value.hint == f"mount -t tracefs tracefs {tmp_path}"
