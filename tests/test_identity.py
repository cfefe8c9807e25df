import os
import time
from pathlib import Path

import pytest

from ebbflow.errors import KernelError
from ebbflow.identity import Processes, parse_argv, parse_environ, parse_stat, read_host
from ebbflow.service_names import ServiceName, ServiceNameSource

STAT = "{pid} ({comm}) S 1 {pid} {pid} 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 {ticks} 1 1 18446744073709551615\n"
BOOT_ID = "b3d776d4-dab6-4795-bfb2-4b203b7e0718"
MACHINE_ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def tree(tmp_path):
    """A /proc with one process: 42, a Python script."""
    add_process(tmp_path, 42)
    return tmp_path


def add_process(proc, pid, *, comm="python3", ticks=1234, exe="/usr/bin/python3.11"):
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(STAT.format(pid=pid, comm=comm, ticks=ticks))
    (folder / "environ").write_bytes(b"HOME=/\0LANG=C\0")
    (folder / "cmdline").write_bytes(b"python3\0-u\0/srv/shop.py\0--port\0" + b"80\0")
    (folder / "cgroup").write_text("0::/system.slice/shop.service\n")
    (folder / "exe").symlink_to(exe)
    return folder


def read(proc, pid=42):
    return Processes(proc, ticks_per_s=100).read_process(pid)


def test_read_process_whole_process(tree):
    found = read(tree)
    assert (found.pid, found.comm, found.exe) == (42, "python3", "/usr/bin/python3.11")
    assert found.start_boottime_ns == 12_340_000_000
    assert found.command_line == "python3 -u /srv/shop.py --port 80"
    assert found.cgroups.path == "/system.slice/shop.service"
    assert found.container_id == ""
    assert found.service == ServiceName("shop", ServiceNameSource.EXE)
    assert not found.is_ours


def test_read_process_of_ours_is_marked(tree):
    (tree / "42/environ").write_bytes(b"A=b\0EBBFLOW_COMPONENT=sockets\0")
    assert read(tree).is_ours


def test_read_process_that_is_not_there_is_none(tree):
    assert read(tree, 43) is None


@pytest.mark.parametrize("name", ["environ", "cmdline", "cgroup", "exe"])
def test_read_process_missing_file_leaves_the_rest(tree, name):
    (tree / "42" / name).unlink()
    found = read(tree)
    assert found.comm == "python3"
    assert found.service.name == {"exe": "python3", "cmdline": "python3.11"}.get(name, "shop")


def test_read_process_file_that_cannot_be_read_leaves_the_rest(tree):
    (tree / "42/environ").unlink()
    (tree / "42/environ").mkdir()  # reading it fails for root too
    assert read(tree).service.name == "shop"


def test_read_process_replaced_meanwhile_is_none(tree, monkeypatch):
    folder, parse = tree / "42", parse_argv

    def replace(data):
        (folder / "stat").write_text(STAT.format(pid=42, comm="other", ticks=9999))
        return parse(data)

    monkeypatch.setattr("ebbflow.identity.parse_argv", replace)
    assert read(tree) is None


def test_read_process_gone_meanwhile_is_none(tree, monkeypatch):
    monkeypatch.setattr("ebbflow.identity.parse_argv", lambda data: (tree / "42/stat").unlink() or ())
    assert read(tree) is None


def test_read_process_deleted_executable_keeps_its_name(tree):
    (tree / "42/exe").unlink()
    (tree / "42/exe").symlink_to("/srv/shop-server (deleted)")
    found = read(tree)
    assert (found.exe, found.service.name) == ("/srv/shop-server", "shop-server")


def test_read_process_bytes_that_are_no_text_become_text(tree):
    (tree / "42/cmdline").write_bytes(b"python3\0\xff\xfe.py\0")
    found = read(tree)
    assert (
        found.command_line.encode("utf-8").decode() == "python3 \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}.py"
    )


def test_command_line_is_cut(tree):
    (tree / "42/cmdline").write_bytes(b"x" * 10_000)
    assert len(read(tree).command_line) == 4096


@pytest.mark.parametrize(
    ("start_ns", "same"),
    [(12_340_000_000, True), (12_349_999_999, True), (12_350_000_000, False), (12_339_999_999, False)],
)
def test_started_at_compares_in_ticks(tree, start_ns, same):
    assert read(tree).started_at(start_ns) is same


def test_pids_are_the_numbers_in_order(tree):
    add_process(tree, 7)
    (tree / "self").mkdir()
    assert Processes(tree, ticks_per_s=100).pids() == [7, 42]


def test_read_process_this_very_process():
    found = Processes().read_process(os.getpid())
    assert found.comm == Path("/proc/self/comm").read_text().strip()
    assert Path(found.exe) == Path("/proc/self/exe").resolve()
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - found.start_boottime_ns / 1e9
    assert 0 <= age_s < 3600 * 24


@pytest.mark.parametrize("comm", ["a b", "x) S 1 (y", "((", "))", ""])
def test_parse_stat_comm_with_anything_in_it(comm):
    assert parse_stat(STAT.format(pid=1, comm=comm, ticks=77).encode()) == (comm, 77)


@pytest.mark.parametrize("data", [b"", b"1 (x) S 1 2", b"garbage", STAT.format(pid=1, comm="x", ticks="?").encode()])
def test_parse_stat_of_something_else_is_none(data):
    assert parse_stat(data) is None


def test_parse_environ_first_of_a_name_counts():
    assert parse_environ(b"A=1\0A=2\0B=x=y\0NOTHING\0\0") == {"A": "1", "B": "x=y"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ()),
        (b"\0", ()),
        (b"a\0b\0", ("a", "b")),
        (b"a\0\0b\0", ("a", "", "b")),
        (b"nginx: worker   ", ("nginx: worker",)),
    ],
)
def test_parse_argv_words(data, words):
    assert parse_argv(data) == words


@pytest.fixture
def root(tmp_path):
    random = tmp_path / "proc/sys/kernel/random"
    random.mkdir(parents=True)
    (random / "boot_id").write_text(BOOT_ID + "\n")
    (tmp_path / "proc/sys/kernel/hostname").write_text("web-1\n")
    (tmp_path / "etc").mkdir()
    return tmp_path


def test_read_host_machine_id_and_boot_id(root):
    (root / "etc/machine-id").write_text(MACHINE_ID + "\n")
    host = read_host(root)
    assert (host.host_id, host.host_name) == (MACHINE_ID, "web-1")
    assert host.boot_id.hex() == BOOT_ID.replace("-", "")


def test_read_host_second_place_for_the_machine_id(root):
    (root / "etc/machine-id").write_text("uninitialized\n")
    (root / "var/lib/dbus").mkdir(parents=True)
    (root / "var/lib/dbus/machine-id").write_text(MACHINE_ID)
    assert read_host(root).host_id == MACHINE_ID


def test_read_host_without_machine_id_is_stable_and_its_own(root):
    first = read_host(root).host_id
    assert read_host(root).host_id == first
    assert len(bytes.fromhex(first)) == 16
    (root / "proc/sys/kernel/hostname").write_text("web-2\n")
    assert read_host(root).host_id != first


def test_read_host_firmware_id_outlives_a_new_name(root):
    (root / "sys/class/dmi/id").mkdir(parents=True)
    (root / "sys/class/dmi/id/product_uuid").write_text("4c4c4544-0043-3510-8052-b4c04f4a3132\n")
    first = read_host(root).host_id
    (root / "proc/sys/kernel/hostname").write_text("renamed\n")
    assert read_host(root).host_id == first


def test_read_host_without_proc_is_kernel_error_with_hint(tmp_path):
    with pytest.raises(KernelError, match="no boot id") as caught:
        read_host(tmp_path)
    assert caught.value.hint == "mount -t proc proc /proc"
