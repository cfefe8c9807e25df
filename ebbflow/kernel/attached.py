"""What the processes of this host have attached, seen from outside: by their descriptors.

A perf event with a program on it tells by BPF_TASK_FD_QUERY what it is; a BPF link tells in its fdinfo. The kernel does
not tell for CPU-clock samples which program runs: where a process has one program for samples it is that, where it has
several each is named, and the target says that it is one of them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ebbflow.errors import EbbflowError, PermissionDenied
from ebbflow.identity import OURS
from ebbflow.kernel.attach_points import tracepoints
from ebbflow.kernel.elf import Elf
from ebbflow.kernel.objects import (
    PROC,
    LoadedMap,
    LoadedProgram,
    descriptors,
    fields_of,
    loaded,
)
from ebbflow.kernel.system_calls import Command, bpf

_QUERY = struct.Struct("=IIIIQIIQQ")
_TARGET_LENGTH = 4096
_KINDS = ("raw_tracepoint", "tracepoint", "kprobe", "kretprobe", "uprobe", "uretprobe")
_SAMPLES = "perf_event"
_LINKS = frozenset({"bpf_link", "bpf-link", "bpf-raw-tracepoint"})
_TOKENS_TO_LOOK_AT = 4


@dataclass(frozen=True, slots=True)
class Attachment:
    """A program at a place; `times` is how many descriptors hold it there: one for each CPU, thread or repetition."""

    kind: str
    target: str
    program_id: int
    times: int


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that holds something of BPF; `command` is its arguments, shortened for people."""

    pid: int
    command: str
    programs: list[LoadedProgram]
    maps: list[LoadedMap]
    attachments: list[Attachment]


def owners(*, everyone: bool = False, proc: Path = PROC) -> tuple[list[Owner], int]:
    """Processes with BPF objects, ebbflow's or everyone's; and how many could not be looked at."""
    found, unseen = [], 0
    for pid in sorted(int(path.name) for path in proc.glob("[0-9]*")):
        arguments = _arguments(pid, proc)
        if not everyone and not is_ebbflow(arguments, _environment(pid, proc)):
            continue
        try:
            one = owner(pid, shown(arguments), proc)
        except PermissionDenied:
            unseen += 1
            continue
        if one.programs or one.maps or one.attachments:
            found.append(one)
    return found, unseen


def require_rights() -> None:
    """Raises PermissionDenied where the kernel would not tell."""
    try:
        query(os.getpid(), 0)
    except PermissionError:
        raise PermissionDenied(
            "listing what is attached needs CAP_SYS_ADMIN", hint="run it as root: sudo ebbflow probes"
        ) from None
    except OSError:
        return


def owner(pid: int, command: str = "", proc: Path = PROC) -> Owner:
    """What one process holds."""
    programs, maps = loaded(pid, proc)
    return Owner(pid, command, programs, maps, attachments(pid, programs, proc))


def attachments(pid: int, programs: Iterable[LoadedProgram], proc: Path = PROC) -> list[Attachment]:
    """What a process has attached, in the order of its descriptors."""
    samplers = [program.id for program in programs if program.type == _SAMPLES]
    counts: dict[tuple[str, str, int], int] = {}
    for fd, kind in sorted(descriptors(pid, proc).items()):
        for place in _places(pid, fd, kind, samplers, proc):
            counts[place] = counts.get(place, 0) + 1
    return [Attachment(*place, times) for place, times in counts.items()]


def _places(pid: int, fd: int, kind: str, samplers: list[int], proc: Path) -> list[tuple[str, str, int]]:
    if kind == "[perf_event]":
        return _perf_places(pid, fd, samplers)
    if kind in _LINKS:
        fields = fields_of(fd, pid, proc)
        if "prog_id" in fields:
            return [(fields.get("link_type", "link"), fields.get("tp_name", ""), int(fields["prog_id"]))]
    return []


def _perf_places(pid: int, fd: int, samplers: list[int]) -> list[tuple[str, str, int]]:
    try:
        program, number, text, offset, address = query(pid, fd)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            return []  # a perf event without a program, or closed meanwhile
        target = "cpu-clock" if len(samplers) == 1 else f"cpu-clock (one of {len(samplers)} programs)"
        return [(_SAMPLES, target, sampler) for sampler in samplers]
    kind = _KINDS[number] if number < len(_KINDS) else str(number)
    if kind == "tracepoint":
        text = tracepoint_named(text)
    elif kind in {"uprobe", "uretprobe"}:
        kind, text = user_place(kind, text, offset)
    elif kind in {"kprobe", "kretprobe"}:
        text = f"{text or hex(address)}{f'+{offset:#x}' if offset else ''}"
    return [(kind, text, program)]


def query(pid: int, fd: int) -> tuple[int, int, str, int, int]:
    """BPF_TASK_FD_QUERY: program id, kind, name, offset, address.

    Raises:
        OSError: EPERM without the right; EOPNOTSUPP for CPU-clock samples; others when no program is there.
    """
    name = ctypes.create_string_buffer(_TARGET_LENGTH)
    asked = _QUERY.pack(pid, fd, 0, _TARGET_LENGTH, ctypes.addressof(name), 0, 0, 0, 0)
    _, answer = bpf(Command.TASK_FD_QUERY, asked)
    *_, program, kind, offset, address = _QUERY.unpack(answer)
    return program, kind, os.fsdecode(name.value), offset, address


@lru_cache(maxsize=1)
def _categories() -> dict[str, str]:
    return {name.partition(":")[2]: name for name in tracepoints()}


def tracepoint_named(name: str) -> str:
    """category:name, where tracefs says the category."""
    return _categories().get(name, name)


def user_place(kind: str, path: str, offset: int) -> tuple[str, str]:
    """Kind and target of a uprobe: the function or the USDT probe at that offset, if the file can still be read."""
    with suppress(EbbflowError):
        found = _names_in(path).get(offset)
        if found:
            return (kind if found[0] == "uprobe" else found[0]), f"{path}:{found[1]}"
    return kind, f"{path}+{offset:#x}"


@lru_cache(maxsize=64)
def _names_in(path: str) -> dict[int, tuple[str, str]]:
    file = Elf(Path(path))
    names = {offset: ("uprobe", name) for name, offset in sorted(file.functions().items(), reverse=True)}
    return names | {usdt.location: ("usdt", f"{usdt.provider}:{usdt.name}") for usdt in file.usdt()}


def _arguments(pid: int, proc: Path) -> list[str]:
    with suppress(OSError):
        return os.fsdecode((proc / str(pid) / "cmdline").read_bytes()).rstrip("\0").split("\0")
    return []


def _environment(pid: int, proc: Path) -> bytes:
    with suppress(OSError):
        return (proc / str(pid) / "environ").read_bytes()
    return b""


def is_ebbflow(arguments: list[str], environment: bytes = b"") -> bool:
    """Whether a process is a part of ebbflow: by what it was started as, or by the mark that `ebbflow run` gives."""
    if f"\0{OURS}=".encode() in b"\0" + environment:
        return True
    words = arguments[:_TOKENS_TO_LOOK_AT]
    return any(Path(word).name == "ebbflow" or "ebbflow.cli" in word for word in words)


def shown(arguments: list[str]) -> str:
    """The command without the interpreter and its options: `ebbflow produce sockets`."""
    for number, word in enumerate(arguments[:_TOKENS_TO_LOOK_AT]):
        if Path(word).name == "ebbflow" or "ebbflow.cli" in word:
            return " ".join(["ebbflow", *arguments[number + 1 :]])
    return " ".join([Path(arguments[0]).name, *arguments[1:]]) if arguments else ""
