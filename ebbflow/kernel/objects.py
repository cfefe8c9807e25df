"""What the kernel tells about loaded BPF programs and maps: by /proc/PID/fdinfo, and by id through bpf(2).

Layouts: struct bpf_prog_info, bpf_map_info, bpf_btf_info, bpf_func_info of linux/bpf.h. Names in them have 15 letters;
the whole name of a function is in its BTF. Looking up by id needs CAP_SYS_ADMIN.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ebbflow.errors import KernelError, PermissionDenied
from ebbflow.kernel.system_calls import Command, bpf

PROC = Path("/proc")
_OBJECTS = frozenset(
    f"anon_inode:{kind}"
    for kind in ("bpf-prog", "bpf-map", "bpf_link", "bpf-link", "bpf-raw-tracepoint", "[perf_event]")
)
_PROGRAM_INFO_BYTES, _MAP_INFO_BYTES, _BTF_INFO_BYTES = 232, 88, 32
_NAME = {Command.PROG_GET_FD_BY_ID: 64, Command.MAP_GET_FD_BY_ID: 24}
_BTF_ID, _FUNCTION_RECORD_BYTES, _FUNCTIONS, _FUNCTION_COUNT = 128, 132, 136, 144
_NAME_LENGTH = 16
_RUN_TIME_STATS = 0
# As bpftool writes them.
PROGRAM_TYPES = {
    1: "socket_filter", 2: "kprobe", 3: "sched_cls", 5: "tracepoint", 6: "xdp", 7: "perf_event", 8: "cgroup_skb",
    13: "sock_ops", 15: "cgroup_device", 17: "raw_tracepoint", 26: "tracing", 29: "lsm",
}  # fmt: skip
MAP_TYPES = {
    1: "hash", 2: "array", 3: "prog_array", 4: "perf_event_array", 5: "percpu_hash", 6: "percpu_array",
    7: "stack_trace", 9: "lru_hash", 10: "lru_percpu_hash", 11: "lpm_trie", 12: "array_of_maps", 13: "hash_of_maps",
    22: "queue", 23: "stack", 27: "ringbuf", 29: "task_storage",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LoadedProgram:
    """One verified function. `runs` and `run_time_ns` count only while the kernel's statistics are on."""

    id: int
    name: str
    type: str
    tag: str
    memory_bytes: int
    runs: int
    run_time_ns: int
    recursion_misses: int


@dataclass(frozen=True, slots=True)
class LoadedMap:
    id: int
    name: str
    type: str
    key_bytes: int
    value_bytes: int
    max_entries: int
    memory_bytes: int


def descriptors(pid: int | str = "self", proc: Path = PROC) -> dict[int, str]:
    """Numbers of a process's descriptors that are BPF's or perf's, and what each is; empty when it has ended.

    Raises:
        PermissionDenied: it is another user's.
    """
    found: dict[int, str] = {}
    try:
        for entry in (proc / str(pid) / "fd").iterdir():
            with suppress(FileNotFoundError):
                target = str(entry.readlink())
                if target in _OBJECTS:
                    found[int(entry.name)] = target.removeprefix("anon_inode:")
    except PermissionError:
        raise PermissionDenied(
            f"descriptors of process {pid} cannot be read", hint="run it as root: sudo ebbflow …"
        ) from None
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return found


def fields_of(fd: int, pid: int | str = "self", proc: Path = PROC) -> dict[str, str]:
    """The lines of /proc/PID/fdinfo/FD; empty when it has been closed."""
    with suppress(FileNotFoundError, ProcessLookupError):
        lines = (proc / str(pid) / "fdinfo" / str(fd)).read_text("utf-8").splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {}


def program_of(fields: dict[str, str]) -> LoadedProgram:
    """From fdinfo of a program's descriptor."""
    number, kind = int(fields["prog_id"]), int(fields["prog_type"])
    return LoadedProgram(
        number,
        name_of(Command.PROG_GET_FD_BY_ID, number),
        PROGRAM_TYPES.get(kind, str(kind)),
        fields["prog_tag"],
        int(fields["memlock"]),
        *(int(fields.get(name, 0)) for name in ("run_cnt", "run_time_ns", "recursion_misses")),
    )


def map_of(fields: dict[str, str]) -> LoadedMap:
    """From fdinfo of a map's descriptor."""
    number, kind = int(fields["map_id"]), int(fields["map_type"])
    return LoadedMap(
        number,
        name_of(Command.MAP_GET_FD_BY_ID, number),
        MAP_TYPES.get(kind, str(kind)),
        *(int(fields[name]) for name in ("key_size", "value_size", "max_entries", "memlock")),
    )


def loaded(pid: int | str = "self", proc: Path = PROC) -> tuple[list[LoadedProgram], list[LoadedMap]]:
    """Programs and maps that a process holds, in the order of their ids; the same held twice counts once."""
    programs: dict[int, LoadedProgram] = {}
    maps: dict[int, LoadedMap] = {}
    for fd, kind in descriptors(pid, proc).items():
        fields = fields_of(fd, pid, proc)
        if kind == "bpf-prog" and "prog_id" in fields:
            programs[int(fields["prog_id"])] = program_of(fields)
        elif kind == "bpf-map" and "map_id" in fields:
            maps[int(fields["map_id"])] = map_of(fields)
    return [programs[number] for number in sorted(programs)], [maps[number] for number in sorted(maps)]


@lru_cache(maxsize=1024)  # ids are not used again
def name_of(command: Command, number: int) -> str:
    """Of a program or a map, by its id; empty without the right to ask, or when it is gone."""
    with suppress(OSError), _by_id(command, number) as fd:
        info = _info(fd, bytes(_PROGRAM_INFO_BYTES if command == Command.PROG_GET_FD_BY_ID else _MAP_INFO_BYTES))
        at = _NAME[command]
        short = info[at : at + _NAME_LENGTH].partition(b"\0")[0].decode()
        if command == Command.PROG_GET_FD_BY_ID and len(short) == _NAME_LENGTH - 1:
            return _whole_name(fd, info) or short
        return short
    return ""


@contextmanager
def _by_id(command: Command, number: int) -> Iterator[int]:
    fd, _ = bpf(command, struct.pack("=III", number, 0, 0))
    try:
        yield fd
    finally:
        os.close(fd)


def _info(fd: int, asked: bytes) -> bytes:
    """BPF_OBJ_GET_INFO_BY_FD: the struct, of which `asked` says where else to write."""
    buffer = ctypes.create_string_buffer(asked, len(asked))
    bpf(Command.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(asked), ctypes.addressof(buffer)))
    return buffer.raw


def _whole_name(fd: int, info: bytes) -> str:
    """By the first function record, whose type id is that of a FUNC in the program's BTF."""
    number = struct.unpack_from("=I", info, _BTF_ID)[0]
    if not number:
        return ""
    record = ctypes.create_string_buffer(8)
    asked = bytearray(_PROGRAM_INFO_BYTES)
    struct.pack_into("=I", asked, _FUNCTION_RECORD_BYTES, 8)
    struct.pack_into("=QI", asked, _FUNCTIONS, ctypes.addressof(record), 1)
    _info(fd, bytes(asked))
    with _by_id(Command.BTF_GET_FD_BY_ID, number) as btf:
        size = struct.unpack_from("=I", _info(btf, bytes(_BTF_INFO_BYTES)), 8)[0]
        blob = ctypes.create_string_buffer(size)
        _info(btf, struct.pack("=QI", ctypes.addressof(blob), size) + bytes(_BTF_INFO_BYTES - 12))
    return _function_name(blob.raw, struct.unpack_from("=I", record.raw, 4)[0])


def _function_name(blob: bytes, number: int) -> str:
    from ebbflow.kernel.btf import Btf  # noqa: PLC0415 - only for names that were cut

    btf = Btf.parse(blob)
    at = int(btf.words[btf.starts[number]])
    return btf.strings[at : btf.strings.index(b"\0", at)].decode()


@contextmanager
def statistics() -> Iterator[None]:
    """Let the kernel count runs and time of every program on the host; costs each run some 20 ns, and ends with this.

    Raises:
        PermissionDenied: without CAP_SYS_ADMIN.
        KernelError: before 5.8.
    """
    try:
        fd, _ = bpf(Command.ENABLE_STATS, struct.pack("=I", _RUN_TIME_STATS))
    except PermissionError:
        raise PermissionDenied(
            "counting runs of programs needs CAP_SYS_ADMIN", hint="run it as root: sudo ebbflow …"
        ) from None
    except OSError as error:
        raise KernelError(
            f"the kernel cannot count runs of programs for a while: {error.strerror}",
            hint="sysctl -w kernel.bpf_stats_enabled=1",
        ) from None
    try:
        yield
    finally:
        os.close(fd)


def always_counting(proc: Path = PROC) -> bool:
    """Whether kernel.bpf_stats_enabled is on."""
    with suppress(OSError):
        return (proc / "sys/kernel/bpf_stats_enabled").read_text("ascii").strip() == "1"
    return False
