"""The payload of an EXEC row: bytes to words, masked words to bytes, and the process that comes of it. Pure.

After struct process_exec_head come the file name, the interpreter, and the arguments with a NUL after each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ebbflow import service_names
from ebbflow.containers import Cgroups
from ebbflow.producing.process_dictionary import command_line_of, placed
from ebbflow.v1 import raw_pb2


@dataclass(frozen=True, slots=True)
class Execution:
    """What became of a process.

    Attributes:
        head: struct process_exec_head.
        filename: what exec was called with: of a script, the script; may be relative.
        interpreter: the program that runs a script; empty for others.
        argv: bytes that are not UTF-8 as surrogates, so that nothing is lost.
        is_cut: the last word has no end.
    """

    head: np.void
    filename: str
    interpreter: str
    argv: tuple[str, ...]
    is_cut: bool

    @property
    def exe(self) -> str:
        """Path of the program that runs, as far as the call says it; links are not followed."""
        return self.interpreter or self.filename


def parse_execution(payload: bytes, head: np.dtype[Any]) -> Execution:
    """Read a payload; lengths that say more than there is are cut to it."""
    fields = np.frombuffer(payload, head, count=1)[0]
    names = head.itemsize + int(fields["filename_bytes"])
    words = names + int(fields["interpreter_bytes"])
    data = payload[words : words + int(fields["arguments_bytes"])]
    is_cut = not data.endswith(b"\0")
    text = data if is_cut else data[:-1]
    return Execution(
        fields,
        _text(payload[head.itemsize : names]),
        _text(payload[names:words]),
        tuple(_text(word) for word in text.split(b"\0")) if data else (),
        is_cut and bool(data),
    )


def payload_with(execution: Execution, masked: Sequence[str]) -> bytes:
    """The payload with these words for its arguments; `arguments_bytes` says how long they are."""
    arguments = "\0".join(masked).encode("utf-8", "surrogateescape")
    if masked and not execution.is_cut:
        arguments += b"\0"
    head = execution.head.copy()
    head["arguments_bytes"] = len(arguments)
    names = (execution.filename + execution.interpreter).encode("utf-8", "surrogateescape")
    return head.tobytes() + names + arguments


def process_of_execution(
    row: np.void, execution: Execution, masked: Sequence[str], cgroups: Cgroups
) -> raw_pb2.Process:
    """The dictionaries' entry of a process that has executed, for as long as /proc has not said more.

    `row` is its struct event_row; of the command line only the masked words are used.
    """
    comm, exe = row["comm"].decode("utf-8", "replace"), _clean(execution.exe)
    service = service_names.choose(
        environ={}, container_id=cgroups.container_id, exe=exe, argv=[*map(_clean, masked)], comm=comm
    )
    return raw_pb2.Process(
        pid=int(row["pid"]),
        start_boottime_ns=int(row["start_boottime_ns"]),
        comm=comm,
        exe=exe,
        cgroup=cgroups.path,
        container_id=cgroups.container_id,
        service_name=service.name,
        service_name_source=cast("raw_pb2.ServiceNameSource", int(service.source)),
        command_line=_clean(command_line_of(masked)),
        **placed(cgroups.path),
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _clean(text: str) -> str:
    """For protobuf, whose strings must be UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
