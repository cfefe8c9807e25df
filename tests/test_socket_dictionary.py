import socket
from types import SimpleNamespace

import numpy as np
import pytest

from ebbflow.batching import Dictionaries
from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.socket_dictionary import SocketDictionary, connection_of
from ebbflow.v1 import raw_pb2

OPEN = read_header(BPF_DIRECTORY / "sockets.h").structs["sockets_open"].dtype
START = 123_456_789_012


def opened(**fields):
    value = np.zeros(1, OPEN)
    value["start_boottime_ns"] = START
    value["comm"] = b"server"
    for name, content in fields.items():
        if name.endswith("_address"):
            value[name][0, : len(content)] = np.frombuffer(content, np.uint8)
        else:
            value[name] = content
    return value[0]


def info(pid=7, *, ours=False, start=START):
    return SimpleNamespace(
        pid=pid, comm="server", exe="/usr/bin/server", argv=("server", "--token=abc"), is_ours=ours,
        container_id="c" * 64, cgroups=SimpleNamespace(path="/docker/c"),
        service=SimpleNamespace(name="shop", source=1), started_at=lambda ns: ns == start,
    )  # fmt: skip


class Processes:
    """/proc as a dictionary; counts reads."""

    def __init__(self, known=None):
        self.known = known or {}
        self.reads = 0

    def read_process(self, pid):
        self.reads += 1
        return self.known.get(pid)


@pytest.fixture
def clock():
    return SimpleNamespace(now=0.0)


def make(known, clock, ours=None):
    processes, dictionaries = Processes(known), Dictionaries()
    excluded = [] if ours is None else ours
    made = SocketDictionary(dictionaries, processes, excluded.append, lambda: clock.now)
    return made, dictionaries, processes


def entries(dictionaries, *generations):
    envelope = raw_pb2.RawBatch()
    dictionaries.fill(envelope, generations)
    return envelope


def test_opened_known_process_is_described_and_its_arguments_masked(clock):
    made, dictionaries, _ = make({7: info()}, clock)
    made.opened(7, 4, 1024, opened(family=2, local_port=80))
    process = entries(dictionaries, 1024).processes[0]
    assert (process.pid, process.start_boottime_ns, process.exe) == (7, START, "/usr/bin/server")
    assert (process.service_name, process.service_name_source) == ("shop", raw_pb2.SERVICE_NAME_SOURCE_OTEL_ENV)
    assert process.command_line == "server --token=***"
    assert process.container_id == "c" * 64


@pytest.mark.parametrize("known", [{}, {7: info(start=START + 10**9)}])
def test_opened_vanished_or_replaced_process_keeps_what_the_kernel_said(clock, known):
    made, dictionaries, _ = make(known, clock)
    made.opened(7, 4, 1024, opened(family=2))
    process = entries(dictionaries, 1024).processes[0]
    assert (process.comm, process.service_name, process.exe) == ("server", "server", "")
    assert process.service_name_source == raw_pb2.SERVICE_NAME_SOURCE_COMM


def test_opened_own_process_is_excluded_and_not_described(clock):
    ours = []
    made, dictionaries, _ = make({7: info(ours=True)}, clock, ours)
    made.opened(7, 4, 1024, opened(family=2))
    assert ours == [7]
    assert len(dictionaries) == 0


def test_opened_again_soon_reads_proc_once_and_later_again(clock):
    made, _, processes = make({7: info()}, clock)
    for generation in range(100):
        made.opened(7, 4, generation, opened(family=2))
    assert processes.reads == 1
    clock.now = 3.0
    made.opened(7, 4, 101, opened(family=2))
    assert processes.reads == 2


def test_opened_process_gone_later_keeps_what_was_known(clock):
    made, dictionaries, processes = make({7: info()}, clock)
    made.opened(7, 4, 1, opened(family=2))
    processes.known.clear()
    clock.now = 3.0
    made.opened(7, 5, 2, opened(family=2))
    assert entries(dictionaries, 2).processes[0].service_name == "shop"


def test_closed_and_exited_forget(clock):
    made, dictionaries, _ = make({7: info(), 8: info(8)}, clock)
    for pid, generation in ((7, 1), (7, 2), (7, 3), (8, 4)):
        made.opened(pid, 4, generation, opened(family=2))
    made.closed(7, 2)
    assert len(dictionaries) == 3
    assert sorted(made.exited(7)) == [1, 3]
    assert sorted(made.exited(7)) == []
    assert 4 in dictionaries


def test_connection_of_ipv4():
    entry = connection_of(
        5, 9, opened(family=2, socket_type=1, role=2, inode=77, local_port=80, remote_port=4242,
                     local_address=socket.inet_aton("10.0.0.1"), remote_address=socket.inet_aton("10.0.0.2")),
    )  # fmt: skip
    assert entry.family == raw_pb2.FAMILY_INET
    assert (entry.local_address, entry.local_port) == (socket.inet_aton("10.0.0.1"), 80)
    assert (entry.remote_address, entry.remote_port) == (socket.inet_aton("10.0.0.2"), 4242)
    assert (entry.role, entry.origin) == (raw_pb2.ROLE_SERVER, raw_pb2.ORIGIN_SEEN)
    assert (entry.fd, entry.generation, entry.inode, entry.socket_type) == (5, 9, 77, 1)


def test_connection_of_ipv6_and_mapped_ipv4():
    six = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    entry = connection_of(5, 9, opened(family=10, local_address=six, before=1))
    assert (entry.family, entry.local_address, len(entry.remote_address)) == (raw_pb2.FAMILY_INET6, six, 16)
    assert entry.origin == raw_pb2.ORIGIN_BEFORE
    mapped = socket.inet_pton(socket.AF_INET6, "::ffff:10.0.0.1")
    entry = connection_of(5, 9, opened(family=10, local_address=mapped, remote_address=mapped))
    assert (entry.family, entry.local_address) == (raw_pb2.FAMILY_INET, socket.inet_aton("10.0.0.1"))


def test_connection_of_unix_has_a_path_and_no_addresses():
    entry = connection_of(5, 9, opened(family=1, unix_path=b"/run/app.sock"))
    assert (entry.family, entry.unix_path, entry.local_address) == (raw_pb2.FAMILY_UNIX, "/run/app.sock", b"")
