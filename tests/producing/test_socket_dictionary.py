import socket

import numpy as np

from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.producing.batching import Dictionaries
from ebbflow.producing.socket_dictionary import SocketDictionary, connection_of
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


class Processes:
    """Knows every process but ebbflow's own, which is pid 1."""

    def __init__(self):
        self.gone = []

    def describe(self, pid, start_boottime_ns, comm):
        assert (start_boottime_ns, comm) == (START, b"server")
        return None if pid == 1 else raw_pb2.Process(pid=pid)

    def exited(self, pid):
        self.gone.append(pid)


def make():
    processes, dictionaries = Processes(), Dictionaries()
    return SocketDictionary(dictionaries, processes), dictionaries, processes


def test_opened_connection_is_known_with_its_process():
    made, dictionaries, _ = make()
    made.opened(7, 4, 1024, opened(family=2, local_port=80))
    assert 1024 in dictionaries


def test_opened_own_process_is_not_described():
    made, dictionaries, _ = make()
    made.opened(1, 4, 1024, opened(family=2))
    assert len(dictionaries) == 0


def test_closed_and_exited_forget():
    made, dictionaries, processes = make()
    for pid, generation in ((7, 1), (7, 2), (7, 3), (8, 4)):
        made.opened(pid, 4, generation, opened(family=2))
    made.closed(7, 2)
    assert len(dictionaries) == 3
    assert sorted(made.exited(7)) == [1, 3]
    assert sorted(made.exited(7)) == []
    assert 4 in dictionaries
    assert processes.gone == [7, 7]


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
