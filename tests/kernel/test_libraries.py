"""Files of other processes: in another mount namespace, below another root, gone; and of processes that start later."""

import os
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from ebbflow.errors import KernelError, ProbeNotFound
from ebbflow.kernel.libraries import (
    Binary,
    LaterProcesses,
    executable_of,
    is_library,
    library_of,
    mapped_files,
)
from ebbflow.kernel.loader import Program

PROBED = Path(__file__).with_name("probed.c")
UPROBE_HITS = 3
# Calls the library's function once for each line that it is given, so that probes can be attached before.
MAIN = """#include <stdio.h>
int order(int n);
int main(void) { int c, n = 0; puts("ready"); fflush(stdout);
	while ((c = getchar()) != EOF) if (c == '\\n') n = order(n); return n & 1; }
"""
LIBRARY = "int order(int n) { return n + 1; }\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A program, and a library of its own beside it."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "main.c").write_text(MAIN)
    (folder / "order.c").write_text(LIBRARY)
    for command in (
        "gcc -O1 -shared -fPIC -Wl,-soname,libshop.so.1 -o libshop.so.1 order.c",
        "gcc -O1 -o shop main.c -L. -l:libshop.so.1",
    ):
        subprocess.run(command.split(), cwd=folder, check=True)
    return folder


@contextmanager
def started(*command, libraries, **options):
    """A program that is ready; `libraries` is where it looks for its own, below its own root."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, **pipes, **options)
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.fixture
def running(shop):
    with started("./shop", cwd=shop, libraries=shop) as process:
        yield process


def identity(path):
    status = path.stat()
    return status.st_dev, status.st_ino


@pytest.mark.parametrize(
    ("file", "name", "same"),
    [
        ("libc.so.6", "libc.so", True), ("libc.so", "libc.so", True), ("libc-2.31.so", "libc.so", True),
        ("libcrypt.so.1", "libc.so", False), ("libc.so.6", "libc.so.6", True), ("libc.so.60", "libc.so.6", False),
        ("libc++.so.1", "libc++.so", True), ("liblibc.so.6", "libc.so", False),
    ],
)  # fmt: skip
def test_is_library_of_any_version(file, name, same):
    assert is_library(file, name) == same


def test_mapped_files_of_a_process_are_those_with_code(running, shop):
    names = {Path(file.path).name for file in mapped_files(running.pid)}
    assert {"shop", "libshop.so.1"} <= names
    assert all(file.path.startswith("/") and not file.deleted for file in mapped_files(running.pid))


def test_mapped_files_of_a_process_that_is_gone_are_none():
    assert mapped_files(1 << 22) == []


def test_library_is_found_by_name_and_identity(running, shop):
    binary = library_of(running.pid, "libshop.so")
    assert (binary.device, binary.inode) == identity(shop / "libshop.so.1")
    assert binary.name == str(shop / "libshop.so.1")
    assert binary == library_of(running.pid, "libshop.so.1")


def test_library_that_is_not_mapped_names_near_ones(running):
    with pytest.raises(ProbeNotFound, match=r"has no libshoop\.so mapped") as caught:
        library_of(running.pid, "libshoop.so")
    assert "libshop.so.1" in caught.value.hint
    with pytest.raises(ProbeNotFound) as caught:
        library_of(1 << 22, "libc.so")
    assert "ended" in caught.value.hint


def test_executable_of_a_process_or_of_none(running, shop):
    binary = executable_of(running.pid)
    assert (binary.device, binary.inode) == identity(shop / "shop")
    with pytest.raises(ProbeNotFound):
        executable_of(1 << 22)


class Recorded:
    """Remembers what was attached and detached; one binary can be refused."""

    def __init__(self, refuse=None):
        self.calls = []
        self.refuse = refuse

    def attach(self, binary):
        if binary == self.refuse:
            raise KernelError("no such symbol")
        self.calls.append(("attach", binary))

    def detach(self, binary):
        self.calls.append(("detach", binary))


ONE, TWO = (Binary(1, inode, Path(f"/lib/{inode}"), f"/lib/{inode}") for inode in (1, 2))
MAPPED = {10: [ONE], 11: [ONE, TWO], 12: [TWO]}


def find(pid):
    if pid not in MAPPED:
        raise ProbeNotFound("gone")
    return MAPPED[pid]


def test_later_processes_attach_each_binary_once_and_detach_it_after_the_last():
    recorded = Recorded()
    later = LaterProcesses(find, recorded.attach, recorded.detach)
    assert later.refresh([10]) == [ONE]
    assert later.add([11, 99]) == [TWO]
    assert later.refresh([10, 11, 12]) == []
    assert later.refresh([12]) == []
    assert later.known == {TWO}
    assert later.refresh([]) == []
    assert recorded.calls == [("attach", ONE), ("attach", TWO), ("detach", ONE), ("detach", TWO)]


def test_later_processes_binary_that_fails_is_told_once_and_forgotten_when_gone():
    recorded = Recorded(refuse=ONE)
    later = LaterProcesses(find, recorded.attach, recorded.detach)
    assert later.refresh([11]) == [TWO]
    assert later.refresh([11]) == []
    assert list(later.failed) == [ONE]
    later.refresh([12])
    assert later.failed == {}
    recorded.refuse = None
    assert later.refresh([10, 12]) == [ONE]


# --- with the kernel


@pytest.fixture(scope="module")
def program():
    """Counts all processes: PID is compared with the pid of each."""
    made = Program(PROBED, {"PID": "(bpf_get_current_pid_tgid() >> 32)"})
    yield made
    made.close()


@pytest.fixture
def count(program):
    program.map("hits")[UPROBE_HITS] = program.map("hits").Leaf(0)
    yield lambda: program.map("hits")[UPROBE_HITS].value
    program.detach()


def order(process, times):
    """Let it call the function so often, and end."""
    process.stdin.write("\n" * times)
    process.stdin.close()
    process.wait(timeout=10)


def copied(shop, root):
    """A root directory with the program, and all that it needs to run."""
    listed = subprocess.run(["ldd", shop / "shop"], capture_output=True, text=True, check=True).stdout
    for path in [shop / "shop", shop / "libshop.so.1", *map(Path, re.findall(r"(/\S+) \(", listed))]:
        target = root / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        target.chmod(0o755)
    return str(shop / "shop")


@pytest.mark.bpf
def test_library_in_another_mount_namespace_is_found_and_attached(shop, tmp_path, program, count):
    """Below a tmpfs that only the other namespace has: its paths lead nowhere from here."""
    (tmp_path / "root").mkdir()
    (tmp_path / "old").mkdir()
    command = copied(shop, tmp_path / "old")
    script = "mount -t tmpfs none root && cp -a old/. root/ && exec chroot root " + command
    with started("unshare", "--mount", "sh", "-c", script, cwd=tmp_path, libraries=shop) as process:
        binary = library_of(process.pid, "libshop.so")
        assert (binary.device, binary.inode) != identity(shop / "libshop.so.1")
        assert not any(Path(tmp_path / "root").iterdir()), "nothing of it can be seen from here"
        program.probes.attach_uprobe(binary.path, "order", "on_call")
        order(process, 23)
    assert count() == 23


@pytest.mark.bpf
def test_library_below_another_root_is_found_and_attached(shop, tmp_path, program, count):
    command = copied(shop, tmp_path)
    with started("chroot", tmp_path, command, libraries=shop) as process:
        binary = library_of(process.pid, "libshop.so")
        assert (binary.device, binary.inode) == identity(tmp_path / str(shop).lstrip("/") / "libshop.so.1")
        program.probes.attach_uprobe(binary.path, "order", "on_call")
        order(process, 23)
    assert count() == 23


@pytest.mark.bpf
def test_library_that_was_replaced_or_deleted_is_the_one_that_runs(shop, tmp_path, program, count):
    command = tmp_path / copied(shop, tmp_path).lstrip("/")
    with started(command, libraries=command.parent) as process:
        library = command.with_name("libshop.so.1")
        was = identity(library)
        (tmp_path / "new").write_bytes(library.read_bytes())
        (tmp_path / "new").rename(library)
        binary = library_of(process.pid, "libshop.so")
        assert (binary.device, binary.inode) == was != identity(library)
        assert "map_files" in str(binary.path)
        program.probes.attach_uprobe(binary.path, "order", "on_call")
        order(process, 23)
    assert count() == 23


@pytest.mark.bpf
def test_later_processes_are_counted_from_their_start_and_their_files_let_go(shop, tmp_path, program, count):
    """One probe serves the first process and one that starts later; another file gets one of its own."""
    probes, held = program.probes, {}
    later = LaterProcesses(
        lambda pid: [library_of(pid, "libshop.so")],
        lambda binary: held.__setitem__(binary, probes.attach_uprobe(binary.path, "order", "on_call")),
        lambda binary: probes.detach(held.pop(binary)),
    )
    command = copied(shop, tmp_path)
    with (
        started("./shop", cwd=shop, libraries=shop) as first,
        started("chroot", tmp_path, command, libraries=shop) as other,
    ):
        assert len(later.refresh([first.pid, other.pid])) == 2
        with started("./shop", cwd=shop, libraries=shop) as second:
            assert later.add([second.pid]) == []
            order(second, 11)
        order(first, 7)
        assert count() == 18
        later.refresh([first.pid, other.pid])
        assert len(probes.attached()) == 1
        order(other, 5)
        assert count() == 23
    later.refresh([first.pid, other.pid])
    assert probes.attached() == []
