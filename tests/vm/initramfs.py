"""The guest's first root: a static busybox, some modules, and the script `init` beside this file.

A cpio archive in the "newc" format (Linux Documentation/driver-api/early-userspace/buffer-format.rst), written here:

    entry   "070701" | 13 numbers of 8 hexadecimal digits | name, NUL | padding to 4 | data | padding to 4
    numbers inode, mode, uid, gid, links, mtime, size, device major and minor, rdev major and minor, name size, check
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vm.errors import Unavailable

INIT = Path(__file__).with_name("init")
_DIRECTORIES = ("bin", "dev", "host", "modules", "proc", "sys")
_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    mode: int
    data: bytes = b""

    @classmethod
    def directory(cls, name: str) -> Entry:
        return cls(name, stat.S_IFDIR | 0o755)

    @classmethod
    def file(cls, name: str, data: bytes) -> Entry:
        return cls(name, stat.S_IFREG | 0o755, data)


def archive(entries: Iterable[Entry]) -> bytes:
    """The entries as one cpio archive; times and owners are 0, so equal entries give equal bytes."""
    members = [*entries, Entry(_TRAILER, 0)]
    return b"".join(_member(number, entry) for number, entry in enumerate(members, start=1))


def _member(number: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    numbers = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % value for value in numbers) + name
    return _padded(head) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def make_initramfs(modules: Path) -> bytes:
    """The archive with the modules of a directory.

    Raises:
        Unavailable: no busybox.
    """
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Unavailable("there is no busybox (Debian's busybox-static)")
    programs = {"bin/busybox": Path(busybox), "init": INIT}
    programs |= {f"modules/{path.name}": path for path in sorted(modules.iterdir())}
    directories = [Entry.directory(name) for name in _DIRECTORIES]
    return archive([*directories, *(Entry.file(name, path.read_bytes()) for name, path in programs.items())])
