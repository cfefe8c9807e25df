"""One QEMU machine that runs tests/vm/guest.py under another kernel, over this host's own files read-only.

No image: the guest's root is the host's, by 9p (see `init`). Two serial ports: the first has the kernel's console, kept
in a file for when something goes wrong; on the second the guest writes one JSON object a line. Emulated (TCG): KVM
hangs on some hosts, and a machine that tests ebbflow is often a guest itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vm.errors import Unavailable
from vm.initramfs import make_initramfs
from vm.kernels import CHECKOUT, Kernel
from vm.workloads import build

BOOTS = 3
MOST_CPUS = 4
BOOT_TIMEOUT_S = 90.0  # to the first report; ten seconds are normal
TIMEOUT_S = 300.0  # between two reports
DISK_BYTES = 64 << 20
_CONSOLE_LINES = 30
_KILL_WAIT_S = 10.0
Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Boot:
    """What a guest reported, and seconds from start to its first report and to power-off."""

    reports: list[Report]
    boot_s: float
    total_s: float


def boot(kernel: Kernel, told: Callable[[Report], object] = lambda _: None, checks: Sequence[str] = ()) -> Boot:
    """Boot a kernel, wait for its reports and its power-off.

    An emulated kernel hangs now and then while it boots, before anything of ours has run: then it is tried again.

    Args:
        kernel: one that was fetched.
        told: called with each report as it comes.
        checks: names of groups or of single checks; all when there are none.

    Raises:
        Unavailable: it did not come to its end; the text has the last lines of its console.
    """
    build()
    for _ in range(BOOTS):
        booted, console = _boot(kernel, told, checks)
        if booted.reports and booted.reports[-1]["group"] == "end":
            return booted
        if booted.reports:
            break
    raise Unavailable(f"{kernel.release} did not come to its end after {booted.total_s:g} s:\n{console}")


def _boot(kernel: Kernel, told: Callable[[Report], object], checks: Sequence[str]) -> tuple[Boot, str]:
    """What came of one start, and the end of what the kernel said."""
    started_s = time.monotonic()
    reports: list[Report] = []
    boot_s = 0.0
    with tempfile.TemporaryDirectory(prefix="ebbflow-vm-") as folder:
        console = Path(folder) / "console"
        with _machine(kernel, Path(folder), console, checks) as machine:
            for report in parse(machine.lines):
                machine.ends_in(TIMEOUT_S)
                boot_s = boot_s or time.monotonic() - started_s
                reports.append(report)
                told(report)
        said = console.read_text("utf-8", "replace").splitlines()[-_CONSOLE_LINES:]
    return Boot(reports, round(boot_s, 1), round(time.monotonic() - started_s, 1)), "\n".join(said)


def parse(lines: Iterator[bytes]) -> Iterator[Report]:
    """The JSON objects among the lines; a serial port may bring others."""
    for line in lines:
        if line.startswith(b"{") and line.rstrip().endswith(b"}"):
            yield json.loads(line)


class _Running:
    """A QEMU process, killed when its time is over."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.lines: Iterator[bytes] = iter(process.stdout)
        self._process = process
        self._timer = threading.Timer(BOOT_TIMEOUT_S, process.kill)
        self._timer.start()

    def ends_in(self, seconds: float) -> None:
        """From now on it has so long."""
        self._timer.cancel()
        self._timer = threading.Timer(seconds, self._process.kill)
        self._timer.start()

    def end(self) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.communicate(timeout=_KILL_WAIT_S)


@contextmanager
def _machine(kernel: Kernel, folder: Path, console: Path, checks: Sequence[str]) -> Iterator[_Running]:
    """A machine that is gone afterwards, whatever happened; its `lines` are what its second serial port says."""
    (folder / "initramfs").write_bytes(make_initramfs(kernel.directory / "modules"))
    with (folder / "disk").open("wb") as disk:
        disk.truncate(DISK_BYTES)
    with console.open("wb") as errors:
        process = subprocess.Popen(
            command(kernel, folder, console, checks), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        )
    running = _Running(process)
    try:
        yield running
    finally:
        running.end()


def command(kernel: Kernel, folder: Path, console: Path, checks: Sequence[str] = ()) -> list[str]:
    """setpriv: the machine ends with whoever started it, even by SIGKILL."""
    asked = f"checkout={CHECKOUT} kernel={kernel.directory} checks={','.join(checks)}"
    arguments = f"console=ttyS0 panic=-1 mitigations=off {asked}"
    return [
        "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64",
        "-machine", "q35,accel=tcg", "-cpu", "Nehalem", "-smp", str(min(os.cpu_count() or 1, MOST_CPUS)), "-m", "3G",
        "-nodefaults", "-no-reboot", "-display", "none", "-net", "none",
        "-kernel", str(kernel.directory / "vmlinuz"), "-initrd", str(folder / "initramfs"), "-append", arguments,
        "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        "-drive", f"file={folder / 'disk'},format=raw,if=virtio",
        "-serial", f"file:{console}", "-chardev", "stdio,id=reports", "-serial", "chardev:reports",
    ]  # fmt: skip
