"""Opens files that belong to other processes, without trusting them.

A path of another process means something in that process's root directory only, its symbolic links too: openat2(2) with
RESOLVE_IN_ROOT keeps both there, so that no link in a container leads to a file of the host. What is not a regular file
is never opened for reading (a FIFO would block, a device could act). Files are read with pread(2), not mapped: their
owner may truncate them, and that would kill whoever has them mapped (SIGBUS).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10
_NOT_ALLOWED = (errno.ENOSYS, errno.EPERM)  # an old kernel; a seccomp filter that does not know the call


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class Source(Protocol):
    """Bytes at offsets: a file, or memory."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset`; fewer than `length` where the source ends."""
        ...


class MemorySource:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


class FileSource:
    """A regular file; to be closed, or used in a `with` statement.

    Attributes:
        identity: device, inode, size and time of the last change: the same file with the same content.
        uid: owner, as this process sees it.
        mode: permission bits.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        status = os.fstat(fd)
        self.size = status.st_size
        self.identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        self.uid, self.mode = status.st_uid, stat.S_IMODE(status.st_mode)

    def read(self, offset: int, length: int) -> bytes:
        """As `Source.read`; empty where the file cannot be read any more."""
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return b""
        with suppress(OSError):
            return os.pread(self._fd, length, offset)
        return b""

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_file(path: Path | str) -> FileSource | None:
    """A regular file by a path of this process, links followed; None for anything else."""
    return _reopen(lambda: os.open(path, os.O_PATH | os.O_CLOEXEC))


def open_in_root(root: Path, path: str, *, follow_last: bool = True) -> FileSource | None:
    """A regular file by a path that counts from `root` (`/proc/PID/root`); links cannot lead out of there.

    Without `follow_last`, a symbolic link in the path's last part is refused.
    """
    flags = os.O_PATH | os.O_CLOEXEC | (0 if follow_last else os.O_NOFOLLOW)
    return _reopen(lambda: _open_below(root, path, flags))


def _open_below(root: Path, path: str, flags: int) -> int:
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _OpenHow(flags, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        fd = _syscall(_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    finally:
        os.close(directory)
    if fd >= 0:
        return int(fd)
    number = ctypes.get_errno()
    if number in _NOT_ALLOWED:  # links below the root then count from this process's root: no link at the end at least
        return os.open(f"{root}/{path.lstrip('/')}", flags | os.O_NOFOLLOW)
    raise OSError(number, os.strerror(number))


def _reopen(open_path: Callable[[], int]) -> FileSource | None:
    """Open for reading what is known to be a regular file."""
    try:
        handle = open_path()
    except (OSError, ValueError):  # ValueError: a path with a zero byte
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        return FileSource(os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError:
        return None
    finally:
        os.close(handle)
