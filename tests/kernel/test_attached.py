import errno
import os
import struct

import pytest

from ebbflow.errors import PermissionDenied
from ebbflow.kernel import attached
from ebbflow.kernel.attached import Attachment, is_ebbflow, shown
from ebbflow.kernel.objects import LoadedProgram

SAMPLER, OTHER = (LoadedProgram(number, f"p{number}", "perf_event", "", 0, 0, 0, 0) for number in (41, 42))


@pytest.fixture
def proc(tmp_path):
    """A process with three perf events and a link."""
    kinds = {3: "[perf_event]", 4: "[perf_event]", 5: "[perf_event]", 6: "bpf_link"}
    for folder in ("fd", "fdinfo"):
        (tmp_path / "7" / folder).mkdir(parents=True)
    for fd, kind in kinds.items():
        (tmp_path / "7" / "fd" / str(fd)).symlink_to(f"anon_inode:{kind}")
        (tmp_path / "7" / "fdinfo" / str(fd)).write_text("pos:\t0\n")
    link = "link_type:\traw_tracepoint\nlink_id:\t1\nprog_id:\t40\ntp_name:\tsys_enter\n"
    (tmp_path / "7" / "fdinfo" / "6").write_text(link)
    return tmp_path


def answers(monkeypatch, by_fd):
    def bpf(_command, asked):
        _, fd = struct.unpack_from("=II", asked)
        answer = by_fd[fd]
        if isinstance(answer, OSError):
            raise answer
        program, kind, offset, address = answer
        return 0, asked[:24] + struct.pack("=IIQQ", program, kind, offset, address)

    monkeypatch.setattr(attached, "bpf", bpf)


def test_attachments_tell_kind_target_program_and_how_often(monkeypatch, proc):
    sample = OSError(errno.EOPNOTSUPP, "not supported")
    answers(monkeypatch, {3: (39, 2, 0, 0xFFFF), 4: sample, 5: sample})
    assert attached.attachments(7, [SAMPLER], proc) == [
        Attachment("kprobe", "0xffff", 39, 1),
        Attachment("perf_event", "cpu-clock", 41, 2),
        Attachment("raw_tracepoint", "sys_enter", 40, 1),
    ]


def test_attachments_of_one_of_several_samplers_say_so(monkeypatch, proc):
    nothing = OSError(errno.ENOENT, "no program")
    answers(monkeypatch, {3: nothing, 4: OSError(errno.EOPNOTSUPP, "x"), 5: nothing})
    found = attached.attachments(7, [SAMPLER, OTHER], proc)
    assert {(one.target, one.program_id) for one in found if one.kind == "perf_event"} == {
        ("cpu-clock (one of 2 programs)", 41), ("cpu-clock (one of 2 programs)", 42),
    }  # fmt: skip


def test_user_place_of_a_file_that_is_gone_keeps_the_offset(tmp_path):
    assert attached.user_place("uprobe", f"{tmp_path}/gone", 0x40) == ("uprobe", f"{tmp_path}/gone+0x40")


def test_rights_that_are_missing_are_a_typed_error(monkeypatch):
    answers(monkeypatch, {0: PermissionError(1, "no")})
    with pytest.raises(PermissionDenied) as caught:
        attached.require_rights()
    assert "sudo ebbflow probes" in caught.value.hint
    answers(monkeypatch, {0: OSError(errno.EBADF, "no program there")})
    attached.require_rights()


@pytest.mark.parametrize(
    ("arguments", "environment", "ours", "text"),
    [
        (["/usr/bin/python3", "/x/.venv/bin/ebbflow", "produce", "sockets"], b"", True, "ebbflow produce sockets"),
        (["python", "-m", "ebbflow.cli", "produce"], b"A=1", True, "ebbflow produce"),
        (["/usr/bin/java", "-cp", "x"], b"A=1\0EBBFLOW_COMPONENT=kafka\0", True, "java -cp x"),
        (["/usr/bin/java", "-cp", "x"], b"A=EBBFLOW_COMPONENT=kafka", False, "java -cp x"),
        (["grep", "-r", "x", "y", "ebbflow"], b"", False, "grep -r x y ebbflow"),
        ([], b"", False, ""),
    ],
)
def test_ebbflow_is_told_by_its_command_or_its_mark(arguments, environment, ours, text):
    assert is_ebbflow(arguments, environment) == ours
    assert shown(arguments) == text


def test_owners_are_ebbflows_or_everyones(monkeypatch, proc):
    answers(monkeypatch, dict.fromkeys((3, 4, 5), OSError(errno.ENOENT, "x")))
    (proc / "7" / "cmdline").write_bytes(b"/usr/bin/other\0")
    assert attached.owners(proc=proc) == ([], 0)
    (found,), unseen = attached.owners(everyone=True, proc=proc)
    assert (found.pid, found.command, unseen) == (7, "other", 0)
    assert found.attachments == [Attachment("raw_tracepoint", "sys_enter", 40, 1)]


@pytest.mark.bpf
def test_owner_of_every_kind_of_probe_tells_each_with_its_function():
    from pathlib import Path

    from ebbflow.kernel.libraries import library_of
    from ebbflow.kernel.loader import Program

    libc, python = library_of(os.getpid(), "libc.so").path, Path("/proc/self/exe").resolve()
    program = Program(Path(__file__).with_name("probed.c"), {"PID": os.getpid()})
    try:
        probes = program.probes
        probes.attach_raw_tracepoint("sys_enter", "on_raw")
        probes.attach_uprobe(libc, "getppid", "on_call")
        probes.attach_uretprobe(libc, "getppid", "on_return")
        probes.attach_usdt(python, "python", "gc__start", "on_usdt")
        probes.attach_perf_event("on_sample", frequency_hz=49)
        ours = {one.id: one.name for one in program.programs()}
        found = {
            (one.kind, one.target, ours[one.program_id])
            for one in attached.owner(os.getpid()).attachments
            if one.program_id in ours
        }
        assert found == {
            ("tracepoint", "syscalls:sys_enter_getppid", "tracepoint__syscalls__sys_enter_getppid"),
            ("raw_tracepoint", "sys_enter", "on_raw"),
            ("uprobe", f"{libc}:getppid", "on_call"),
            ("uretprobe", f"{libc}:getppid", "on_return"),
            ("usdt", f"{python}:python:gc__start", "on_usdt"),
            ("perf_event", "cpu-clock", "on_sample"),
        }
    finally:
        program.close()
