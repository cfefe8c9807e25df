"""The settings of single features; part of the tree in ebbflow/config.py."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TcpConfig(Section):
    max_connections: int = Field(65536, ge=64, description="connections tracked in the kernel")
    max_processes: int = Field(4096, ge=16, description="processes with connections in one interval")
    states: bool = Field(False, description="a row for every change of a connection's state")


class ProcessConfig(Section):
    arguments_bytes: int = Field(1024, ge=0, le=4096, description="bytes of a command's arguments that are kept")
    threads: bool = Field(False, description="tell of every thread, too; otherwise they are counted")
    max_processes: int = Field(65536, ge=64, description="watched processes followed in the kernel")


class SyscallsConfig(Section):
    slow_s: float = Field(1.0, gt=0, description="calls that take longer are events of their own")
    slow_except: list[str] = Field(
        default_factory=lambda: [
            "accept", "accept4", "clock_nanosleep", "epoll_pwait", "epoll_pwait2", "epoll_wait", "futex", "futex_wait",
            "futex_waitv", "io_getevents", "io_pgetevents", "mq_timedreceive", "msgrcv", "nanosleep", "pause", "poll",
            "ppoll", "pselect6", "recvfrom", "recvmmsg", "recvmsg", "restart_syscall", "rt_sigsuspend",
            "rt_sigtimedwait", "select", "semop", "semtimedop", "wait4", "waitid",
        ],
        description="calls that are made to wait: never slow",
    )  # fmt: skip
    slow_waits: bool = Field(False, description="reads from pipes, sockets and terminals can be slow, too")
    watch: list[str] = Field(
        default_factory=lambda: [
            "ptrace", "setns", "unshare", "bpf", "mount", "init_module", "finit_module", "delete_module",
        ],
        description="calls that are always events of their own",
    )  # fmt: skip
    max_entries: int = Field(16384, ge=64, description="pairs of process and call counted in one interval")


class CpuConfig(Section):
    frequency_hz: int = Field(49, ge=1, le=999, description="samples per second and CPU")
    off_cpu: bool = Field(True, description="where threads wait, and how long they wait for a CPU")
    off_cpu_min_s: float = Field(0.001, ge=0, description="shorter waits are summed up without their stack")
    off_cpu_stacks_per_s: int = Field(
        1000, ge=1, le=1_000_000, description="stacks taken of one thread that keeps switching, after a burst of 64"
    )
    preempted_stacks: bool = Field(False, description="also where threads are preempted; samples say the same")
    symbols: bool = Field(True, description="turn addresses into function names")
    max_stacks: int = Field(4096, ge=64, description="distinct off-CPU stacks held in the kernel in one interval")
    max_threads: int = Field(16384, ge=64, description="watched threads whose waits are followed")


class MemoryConfig(Section):
    sampling: int = Field(
        0, ge=0, description="one allocation in so many is followed, at 1 to 2 us a call; 1: all, 0: none"
    )
    max_allocations: int = Field(262_144, ge=64, description="outstanding allocations followed in the kernel")
    max_stacks: int = Field(16384, ge=64, description="distinct stacks that allocate")
    max_processes: int = Field(64, ge=0, description="processes whose allocations are followed; 0: none")


class DiskConfig(Section):
    max_requests: int = Field(65536, ge=64, description="requests of all devices whose times are followed")
