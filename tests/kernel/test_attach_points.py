import pytest

from ebbflow.errors import KernelError, ProbeNotFound
from ebbflow.kernel import attach_points


@pytest.fixture
def tracefs(tmp_path):
    for number, name in enumerate(("sched_switch", "sched_wakeup")):
        folder = tmp_path / "events" / "sched" / name
        folder.mkdir(parents=True)
        (folder / "id").write_text(f"{number + 300}\n")
    return tmp_path


def test_tracepoint_number_is_read(tracefs):
    assert attach_points.tracepoint_number("sched:sched_wakeup", tracefs) == 301
    assert attach_points.tracepoints(tracefs) == ["sched:sched_switch", "sched:sched_wakeup"]


def test_tracepoint_missing_names_near_ones(tracefs):
    with pytest.raises(ProbeNotFound, match="no tracepoint sched:sched_swich") as caught:
        attach_points.tracepoint_number("sched:sched_swich", tracefs)
    assert caught.value.hint.startswith("nearby: sched:sched_switch")


def test_tracefs_not_mounted_says_how(tmp_path):
    with pytest.raises(KernelError) as caught:
        attach_points.tracepoint_number("sched:sched_switch", tmp_path)
    assert caught.value.hint == f"mount -t tracefs tracefs {tmp_path}"


def test_perf_source_and_its_return_bit(tmp_path):
    (tmp_path / "uprobe" / "format").mkdir(parents=True)
    (tmp_path / "uprobe" / "type").write_text("9\n")
    (tmp_path / "uprobe" / "format" / "retprobe").write_text("config:3\n")
    assert attach_points.perf_source("uprobe", tmp_path) == 9
    assert attach_points.retprobe_bit("uprobe", tmp_path) == 8
    with pytest.raises(KernelError, match="this kernel has no kprobes"):
        attach_points.perf_source("kprobe", tmp_path)


@pytest.mark.parametrize(("text", "cpus"), [("0\n", [0]), ("0-3\n", [0, 1, 2, 3]), ("0-1,4,6-7\n", [0, 1, 4, 6, 7])])
def test_cpus_online_from_a_list(tmp_path, text, cpus):
    (tmp_path / "online").write_text(text)
    assert attach_points.cpus_online(tmp_path / "online") == cpus


def test_threads_of_a_process_or_of_none(tmp_path):
    (tmp_path / "7" / "task" / "7").mkdir(parents=True)
    (tmp_path / "7" / "task" / "9").mkdir()
    assert sorted(attach_points.threads_of(7, tmp_path)) == [7, 9]
    with pytest.raises(ProbeNotFound, match="no process 8"):
        attach_points.threads_of(8, tmp_path)


def test_kernel_functions_are_those_with_code(tmp_path):
    (tmp_path / "kallsyms").write_text("ffff T do_exit\nffff t helper\nffff D data\nffff t modular\t[nf]\n")
    assert attach_points.kernel_functions(tmp_path / "kallsyms") == ["do_exit", "helper"]


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("mallok", ["malloc", "free"], "nearby: malloc"),
        ("alloc", ["je_mallocx", "free"], "nearby: je_mallocx"),
        ("xyz", ["malloc"], "nothing here has a name like xyz"),
        ("xyz", [], "there is none at all"),
    ],
)
def test_nearby_prefers_what_is_alike(name, known, hint):
    assert attach_points.nearby(name, known) == hint
