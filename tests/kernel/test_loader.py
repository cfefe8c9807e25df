import pytest

from ebbflow.errors import KernelError
from ebbflow.kernel.loader import tracepoint_has


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
