"""What comes from the serial port, and how the machine is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from vm import machine
from vm.errors import Unavailable
from vm.kernels import Kernel
from vm.machine import command, parse

KERNEL = Kernel.of("6.1.0-56-amd64")


def test_parse_takes_whole_objects_and_leaves_other_lines_out():
    lines = [b"\x1bc\r\n", b'{"group": "start"}\r\n', b'{"cut": \n', b"", b'{"group": "end"}\n']
    assert list(parse(iter(lines))) == [{"group": "start"}, {"group": "end"}]


def test_command_gives_the_host_read_only_without_network_and_ends_with_its_parent():
    words = command(KERNEL, Path("/folder"), Path("/console"))
    assert words[:3] == ["setpriv", "--pdeathsig", "KILL"]
    assert "readonly=on" in words[words.index("-virtfs") + 1]
    assert words[words.index("-net") + 1] == "none"
    assert "accel=tcg" in words[words.index("-machine") + 1]
    assert f"kernel={KERNEL.directory}" in words[words.index("-append") + 1]


def fake_qemu(monkeypatch, *scripts: str) -> None:
    """Machines that run these shell scripts, one after the other; what they say on stderr is their console."""
    todo = list(scripts)

    def command(*_) -> list[str]:
        machine.BOOT_TIMEOUT_S = 0.05 if todo[0] == HANG else 60.0
        return ["sh", "-c", todo.pop(0)]

    monkeypatch.setattr(machine, "build", lambda: None)
    monkeypatch.setattr(machine, "make_initramfs", lambda _: b"")
    monkeypatch.setattr(machine, "BOOT_TIMEOUT_S", 60.0)
    monkeypatch.setattr(machine, "command", command)


HANG = "exec sleep 60"
REPORTS = """echo '{"group": "start"}'; echo '{"group": "end"}'"""


def test_boot_gives_every_report_and_tells_each(monkeypatch):
    fake_qemu(monkeypatch, REPORTS)
    told = []
    booted = machine.boot(KERNEL, told.append)
    assert booted.reports == told == [{"group": "start"}, {"group": "end"}]
    assert 0 <= booted.boot_s <= booted.total_s


def test_boot_that_hangs_is_tried_again(monkeypatch):
    fake_qemu(monkeypatch, HANG, REPORTS)
    assert [report["group"] for report in machine.boot(KERNEL).reports] == ["start", "end"]


def test_guest_that_dies_is_told_with_its_last_words(monkeypatch):
    fake_qemu(monkeypatch, """echo '{"group": "start"}'; echo 'Kernel panic' >&2""")
    with pytest.raises(Unavailable, match=r"did not come to its end[^\n]*\nKernel panic"):
        machine.boot(KERNEL)
