"""bpf(2) and perf_event_open(2) without a library: what BCC does not offer, or does not undo.

Sources: linux/bpf.h, linux/perf_event.h. Every failure is an OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from enum import IntEnum, IntFlag

_NR_PERF_EVENT_OPEN, _NR_BPF = 298, 321  # x86-64
_LIBC = ctypes.CDLL(None, use_errno=True)
_PERF_FLAG_FD_CLOEXEC = 8
_ENOTSUPP = 524  # the kernel's own, not in errno.h
_ENABLE, _SET_BPF = 0x2400, 0x40042408
# type, size, config, sample_period or frequency, sample_type, read_format, flags, wakeup_events, bp_type, config1, 2
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQQ")


class Command(IntEnum):
    """The first argument of bpf(2)."""

    MAP_CREATE = 0
    PROG_TEST_RUN = 10
    PROG_GET_NEXT_ID = 11
    MAP_GET_NEXT_ID = 12
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    RAW_TRACEPOINT_OPEN = 17
    BTF_GET_FD_BY_ID = 19
    TASK_FD_QUERY = 20
    LINK_GET_FD_BY_ID = 30
    LINK_GET_NEXT_ID = 31
    ENABLE_STATS = 32


class PerfType(IntEnum):
    """`type` of the perf events that are always there; kprobe and uprobe get theirs at boot."""

    SOFTWARE = 1
    TRACEPOINT = 2


class PerfFlag(IntFlag):
    DISABLED = 1 << 0
    INHERIT = 1 << 1
    FREQUENCY = 1 << 10
    INHERIT_THREAD = 1 << 35


class ProgramType(IntEnum):
    """enum bpf_prog_type, those that are used here."""

    KPROBE = 2
    TRACEPOINT = 5
    PERF_EVENT = 7
    RAW_TRACEPOINT = 17


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def bpf(command: Command, attributes: bytes | bytearray) -> tuple[int, bytes]:
    """What the call returned, and the attributes as the kernel left them."""
    buffer = ctypes.create_string_buffer(bytes(attributes), len(attributes))
    result = _LIBC.syscall(_NR_BPF, int(command), buffer, len(attributes))
    return _checked(result), buffer.raw


def open_raw_tracepoint(name: str, program_fd: int) -> int:
    """A descriptor; closing it detaches."""
    text = ctypes.create_string_buffer(name.encode())
    return bpf(Command.RAW_TRACEPOINT_OPEN, struct.pack("=QII", ctypes.addressof(text), program_fd, 0))[0]


def run_raw_tracepoint(program_fd: int, argument: int) -> bool:
    """Run a raw tracepoint's program once, here and now, as if it had fired with this argument (BPF_PROG_TEST_RUN).

    Returns:
        False where the kernel cannot do it: before Linux 5.10.
    """
    context = ctypes.create_string_buffer(struct.pack("=Q", argument), 8)
    try:
        # prog_fd, retval, data sizes, data, repeat, duration, context sizes, context
        bpf(Command.PROG_TEST_RUN, struct.pack(
            "=IIIIQQIIIIQQIII4x", program_fd, 0, 0, 0, 0, 0, 0, 0, 8, 0, ctypes.addressof(context), 0, 0, 0, 0
        ))  # fmt: skip
    except OSError as error:
        if error.errno in {errno.EINVAL, _ENOTSUPP, errno.EOPNOTSUPP}:
            return False
        raise
    return True


def open_perf_event(
    kind: int,
    program_fd: int,
    *,
    config: int = 0,
    frequency_hz: int = 0,
    name: str = "",
    config2: int = 0,
    flags: PerfFlag = PerfFlag(0),  # noqa: B008 - immutable
    pid: int = -1,
    cpu: int = -1,
) -> int:
    """Open a perf event, put the program on it, and let it run: a descriptor; closing it detaches.

    Args:
        kind: its `type`.
        program_fd: descriptor of the loaded program.
        config: what it means depends on `kind`.
        frequency_hz: of samples.
        name: symbol or path for kprobes and uprobes; its address goes into config1.
        config2: offset for kprobes and uprobes.
        flags: of struct perf_event_attr; PerfFlag.
        pid: thread to watch, -1 for all.
        cpu: to watch, -1 for all (then pid must be given).
    """
    text = ctypes.create_string_buffer(os.fsencode(name))
    config1 = ctypes.addressof(text) if name else 0
    bits = PerfFlag.DISABLED | flags | (PerfFlag.FREQUENCY if frequency_hz else PerfFlag(0))
    attributes = _ATTRIBUTES.pack(
        kind, _ATTRIBUTES.size, config, frequency_hz, 0, 0, int(bits), 0, 0, config1, config2
    )  # fmt: skip
    fd = _checked(_LIBC.syscall(_NR_PERF_EVENT_OPEN, attributes, pid, cpu, -1, ctypes.c_ulong(_PERF_FLAG_FD_CLOEXEC)))
    try:
        fcntl.ioctl(fd, _SET_BPF, program_fd)
        fcntl.ioctl(fd, _ENABLE, 0)
    except OSError:
        os.close(fd)
        raise
    return fd
