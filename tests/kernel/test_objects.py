import os
import subprocess

import orjson
import pytest

from ebbflow.errors import KernelError, PermissionDenied
from ebbflow.kernel import objects
from ebbflow.kernel.objects import LoadedMap, LoadedProgram

PROGRAM = """pos:\t0
prog_type:\t17
prog_tag:\t729794a8feae369d
memlock:\t4096
prog_id:\t4000000001
run_time_ns:\t6956874
run_cnt:\t96531
recursion_misses:\t3
"""
MAP = """map_type:\t2
key_size:\t4
value_size:\t8
max_entries:\t16
map_flags:\t0x0
memlock:\t384
map_id:\t4000000002
"""


@pytest.fixture
def proc(tmp_path):
    """A process with a program held twice, a map, and a file that is nothing of BPF."""
    for fd, (kind, text) in enumerate(
        [("bpf-prog", PROGRAM), ("bpf-prog", PROGRAM), ("bpf-map", MAP), ("inotify", "")]
    ):
        for folder in ("fd", "fdinfo"):
            (tmp_path / "7" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "7" / "fd" / str(fd)).symlink_to(f"anon_inode:{kind}")
        (tmp_path / "7" / "fdinfo" / str(fd)).write_text(text)
    return tmp_path


def test_loaded_are_counted_once_with_all_that_fdinfo_says(proc):
    assert objects.descriptors(7, proc) == {0: "bpf-prog", 1: "bpf-prog", 2: "bpf-map"}
    programs, maps = objects.loaded(7, proc)
    assert programs == [LoadedProgram(4000000001, "", "raw_tracepoint", "729794a8feae369d", 4096, 96531, 6956874, 3)]
    assert maps == [LoadedMap(4000000002, "", "array", 4, 8, 16, 384)]


def test_loaded_of_a_process_that_is_gone_is_nothing(proc):
    assert objects.loaded(8, proc) == ([], [])
    assert objects.fields_of(9, 7, proc) == {}


def test_always_counting_follows_the_setting(tmp_path):
    assert not objects.always_counting(tmp_path)
    (tmp_path / "sys" / "kernel").mkdir(parents=True)
    (tmp_path / "sys" / "kernel" / "bpf_stats_enabled").write_text("1\n")
    assert objects.always_counting(tmp_path)


@pytest.mark.parametrize(
    ("error", "kind"), [(PermissionError(1, "no"), PermissionDenied), (OSError(22, "no"), KernelError)]
)
def test_statistics_that_cannot_be_had_are_typed_errors(monkeypatch, error, kind):
    def refuse(*_):
        raise error

    monkeypatch.setattr(objects, "bpf", refuse)
    with pytest.raises(kind) as caught, objects.statistics():
        pass
    assert caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look at every process")
def test_descriptors_of_others_are_an_error_of_rights():
    with pytest.raises(PermissionDenied):
        objects.descriptors(1)


@pytest.mark.bpf
def test_names_and_statistics_agree_with_bpftool(tmp_path):
    from ebbflow.kernel.loader import Program
    from ebbflow.kernel.system_calls import Command

    long = "a_function_whose_name_is_longer_than_fifteen"
    (tmp_path / "x.c").write_text(f"BPF_ARRAY(an_array, u64, 4);\nint {long}(struct bpf_raw_tracepoint_args *ctx)\n"
                                  "{\n\tint zero = 0;\n\tan_array.lookup(&zero);\n\treturn 0;\n}\n")  # fmt: skip
    program = Program(tmp_path / "x.c", {})
    try:
        with objects.statistics():
            program.probes.attach_raw_tracepoint("sys_enter", long)
            for _ in range(101):
                os.getppid()
            program.detach()
        (one,) = program.programs()
        command = ["bpftool", "-j", "prog", "show", "id", str(one.id)]
        told = orjson.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        assert (one.name, told["name"]) == (long, long)
        assert (one.runs, one.run_time_ns) == (told["run_cnt"], told["run_time_ns"])
        assert one.runs > 101
        assert objects.name_of(Command.MAP_GET_FD_BY_ID, program.maps()[0].id) == "an_array"
    finally:
        program.close()
