"""TCP connections: bpf/tcp.c to ebbflow.raw.tcp.

Each connection is told when it begins, fails and ends, with what went through; open ones again in every interval in
which segments came; retransmits and resets when they happen; and for every process, each interval, what its connections
did and how long round trips took. Blind spots are counted: connections that ended without an accept(2) that was seen
(io_uring's is not), and resets that no socket sent, as for a port where nobody listens.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from ebbflow.config import Config
from ebbflow.identity import Processes
from ebbflow.kernel.btf import Btf
from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.kernel.loader import tracepoint_has
from ebbflow.kernel.maps import Map, Swapped
from ebbflow.kernel.offsets import Members
from ebbflow.kernel.socket_owners import socket_owners
from ebbflow.kernel.system_calls import ProgramType, run_raw_tracepoint
from ebbflow.kernel.targets import watched_now
from ebbflow.producing.event_producer import Aggregate, EventProducer
from ebbflow.producing.shared import Shared

_STRUCTS = read_header(BPF_DIRECTORY / "tcp.h").structs
_KEY, _TOTALS = _STRUCTS["tcp_process_key"].dtype, _STRUCTS["tcp_totals"].dtype
_TRACKED, _OWNER, _CONTROL = (_STRUCTS[f"tcp_{name}"].dtype for name in ("tracked", "owner", "control"))
_U32, _U64 = np.dtype("<u4"), np.dtype("<u8")
_HOOKS = {
    "inet_sock_set_state": "tcp_state_changed",
    "tcp_probe": "tcp_segment",
    "tcp_retransmit_skb": "tcp_retransmitted",
    "tcp_retransmit_synack": "tcp_answer_retransmitted",
    "tcp_send_reset": "tcp_reset_sent",
    "tcp_receive_reset": "tcp_reset_received",
    "tcp_destroy_sock": "tcp_freed",
}
_CALLS = {
    "sys_exit_accept": "tcp_accept_ended",
    "sys_exit_accept4": "tcp_accept4_ended",
    "sys_exit_connect": "tcp_connect_ended",
}
# Of struct tcp_sock, read in one piece.
_TRAFFIC = {
    "TCP_BYTES_SENT": "bytes_sent",
    "TCP_BYTES_RETRANS": "bytes_retrans",
    "TCP_BYTES_ACKED": "bytes_acked",
    "TCP_BYTES_RECEIVED": "bytes_received",
    "TCP_SEGS_OUT": "segs_out",
    "TCP_SEGS_IN": "segs_in",
    "TCP_TOTAL_RETRANS": "total_retrans",
    "TCP_SRTT": "srtt_us",
    "TCP_MDEV": "mdev_us",
    "TCP_MIN_RTT": "rtt_min.s",
    "TCP_CWND": "snd_cwnd",
    "TCP_MSS": "mss_cache",
}
_LONGEST_MEMBER_BYTES = 8
# Of 1,024 processes each; a task that ends between two of them may lead astray.
_MOST_WALKS = 64
# The low ten bits of a generation are the CPU's.
_GENERATION_MASK = ~1023


class TcpProducer(EventProducer):
    """See the module's docstring."""

    name: ClassVar[str] = "tcp"
    unseen: ClassVar[tuple[str, ...]] = ("never_accepted", "resets_of_no_socket")
    offsets: ClassVar[Members] = {
        "TASK_TASKS": ("task_struct", "tasks"),
        "SOCKET_INODE": ("socket_alloc", "vfs_inode"),
        "NET_INUM": ("net", "ns.inum"),
        "SOCK_NET": ("sock_common", "skc_net"),
        "SOCK_STATE": ("sock_common", "skc_state"),
        "SOCK_FLAGS": ("sock_common", "skc_flags"),
        "SOCK_PROTOCOL": ("sock", "sk_protocol"),
        "SK_SOCKET": ("sock", "sk_socket"),
        "SK_ERR": ("sock", "sk_err"),
        "INET_SPORT": ("inet_sock", "inet_sport"),
        **{flag: ("tcp_sock", member) for flag, member in _TRAFFIC.items()},
        "MINMAX_VALUE": ("minmax_sample", "v"),
        "REGS_DX": ("pt_regs", "dx"),
        "SKB_LEN": ("sk_buff", "len"),
    }

    def __init__(self, config: Config, shared: Shared) -> None:
        super().__init__(config, shared)
        self._conns_usage = 0.0
        self._tells = True

    def definitions(self) -> Mapping[str, int]:
        return {
            **blocks(self.shared.btf),
            "MAX_CONNECTIONS": self.config.tcp.max_connections,
            "MAX_PROCESSES": self.config.tcp.max_processes,
            "TELL_STATES": int(self.config.tcp.states),
            "HAS_TASK_REGISTERS": int(kernel_at_least(5, 15)),
            "HAS_RESET_REASON": int(tracepoint_has("tcp", "tcp_send_reset", "reason")),
            "HAS_RETRANSMIT_ERROR": int(tracepoint_has("tcp", "tcp_retransmit_skb", "err")),
        }

    def attach_probes(self) -> None:
        self._totals = Swapped.of(self.program, "totals", _KEY, _TOTALS)
        self._conns = Map.of(self.program, "conns", _U64, _TRACKED)
        self._control = Map.of(self.program, "control", _U32, _CONTROL)
        self._tell = self.program.load("tcp_tell", ProgramType.RAW_TRACEPOINT)
        self._settle(settled=False)
        self._find_owners()
        for tracepoint, function in _HOOKS.items():
            self.program.probes.attach_raw_tracepoint(tracepoint, function)
        for tracepoint, function in _CALLS.items():
            self.program.probes.attach_tracepoint(f"syscalls:{tracepoint}", function)

    def started(self) -> None:
        """What was opened while the processes were not watched yet has no owner so far."""
        self._find_owners()
        self._settle(settled=True)

    def _settle(self, *, settled: bool) -> None:
        if not settled:
            self._first_generation = time.monotonic_ns() & _GENERATION_MASK
        self._control.write(0, np.array([(self._first_generation, settled, 0)], _CONTROL))

    def _find_owners(self) -> None:
        processes = Processes()
        found = socket_owners(self._looked_into(processes))
        infos = {pid: processes.read_process(pid) for pid in sorted(set(found.values()))}
        known = {pid: info for pid, info in infos.items() if info is not None}
        self._note_starts([*known])
        rows = [
            (inode, (known[pid].start_boottime_ns, pid, 0, known[pid].comm.encode()[:15]))
            for inode, pid in found.items()
            if pid in known
        ][: self.config.tcp.max_connections]
        if rows:
            inodes, owners = zip(*rows, strict=True)
            Map.of(self.program, "owners", _U64, _OWNER).write(np.array(inodes, _U64), np.array([*owners], _OWNER))

    def _looked_into(self, processes: Processes) -> list[int]:
        """All, where the port or nothing decides; else the watched ones."""
        targets = self.shared.targets
        if targets.everything or targets.ports:
            return processes.pids()
        return sorted(watched_now(targets))

    def _note_starts(self, pids: list[int]) -> None:
        starts = Map.of(self.program, "starts", _U32, _U64)
        chosen = np.array(pids[: starts.max_entries], _U32)
        if len(chosen):
            starts.write(chosen, np.zeros(len(chosen), _U64))
            self._walk_tasks()

    def _walk_tasks(self) -> None:
        program, task = self.program.load("tcp_read_starts", ProgramType.RAW_TRACEPOINT), 0
        for _ in range(_MOST_WALKS):
            self._run(program, task)
            task = int(self._control.get(0)["next_task"])
            if not task:
                return

    def _run(self, program: int, argument: int) -> None:
        """Linux 5.8 and 5.9 cannot: then starts are exact to 10 ms, and open connections are told when they end."""
        if self._tells:
            self._tells = run_raw_tracepoint(program, argument)

    def aggregates(self, since_ns: int, now_ns: int) -> Iterable[Aggregate]:
        del since_ns, now_ns
        if not self._detached:
            self._tell_open()
        keys, totals = self._totals.take()
        yield Aggregate(
            kind=self.layout.kind("process"),
            payload=totals["is"].copy(),
            pids=keys["pid"],
            starts=keys["start_boottime_ns"],
            comms=totals["comm"],
        )

    def _tell_open(self) -> None:
        """Have the kernel write a row of each open connection in which something happened, into the ring."""
        socks, conns = self._conns.items()
        self._conns_usage = len(socks) / self._conns.max_entries
        for sock in socks[stirred(conns)].tolist():
            self._run(self._tell, sock)

    def map_usage(self) -> dict[str, float]:
        return super().map_usage() | {"connections": self._conns_usage, "processes": self._totals.usage()}

    def detach(self) -> None:
        self._tell_open()
        super().detach()


def blocks(btf: Btf) -> dict[str, int]:
    """Where the parts of the kernel's sockets that are read at once begin and how long they are, in bytes."""
    ends = [btf.offset("tcp_sock", member) for member in _TRAFFIC.values()]
    return {
        "SOCK_BYTES": btf.size_of("sock_common"),
        "TCP_AT": min(ends),
        "TCP_BYTES": max(ends) + _LONGEST_MEMBER_BYTES - min(ends),
    }


def kernel_at_least(major: int, minor: int) -> bool:
    """Whether the running kernel is that version or a later one."""
    return tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2]) >= (major, minor)


def stirred(conns: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which of the tracked connections are open and had segments since they were last told; mask of shape (n,)."""
    mask: np.ndarray[Any, Any] = (conns["segments"] != conns["told"]) & (conns["is_closed"] == 0)
    return mask
