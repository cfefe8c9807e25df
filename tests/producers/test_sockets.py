"""The real program on the real kernel: a child process does known things, the producer must say exactly those.

Every test watches only the child that it started.
"""

import os
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from ebbflow.config import load
from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.records import decode
from ebbflow.testing.producers import attached
from ebbflow.v1 import raw_pb2
from producers.sockets import ROW, SocketsProducer

pytestmark = pytest.mark.bpf

HEADER = read_header(BPF_DIRECTORY / "sockets.h")
KINDS = {value: name.removeprefix("SOCKETS_") for name, value in HEADER.enums["sockets_kind"].items()}
CLOSE = HEADER.structs["sockets_close"].dtype
RECEIVE, SEND = 0, 1

PRELUDE = """
import ctypes, os, socket, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
def tcp(family=socket.AF_INET, host="127.0.0.1"):
    listener = socket.socket(family); listener.bind((host, 0)); listener.listen(5)
    client = socket.socket(family); client.connect(listener.getsockname())
    server, _ = listener.accept()
    listener.close()
    return client, server
def ready(*values):
    print(*values, flush=True)
    return sys.stdin.readline().strip()
"""


class Child:
    """A Python program that says when it is ready, waits for a line, works, and ends."""

    started: ClassVar[list[subprocess.Popen]] = []

    def __init__(self, code: str, executable: str = sys.executable) -> None:
        # `ready()` first: the test attaches in between.
        self.process = subprocess.Popen(
            [executable, "-c", PRELUDE + textwrap.dedent(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        Child.started.append(self.process)
        self.said = self.process.stdout.readline().split()
        self.pid = self.process.pid

    def go(self) -> str:
        out, _ = self.process.communicate("\n", timeout=20)
        assert self.process.returncode == 0
        return out


class Captured:
    """Everything a producer published, decoded."""

    def __init__(self, producer: SocketsProducer) -> None:
        self.rows, self.connections, self.processes, self.losses = [], {}, {}, Counter()
        while producer.drain():
            pass
        producer.housekeeping()
        for item in producer.batches(everything=True):
            self.add(decode(item.value, ROW))

    def add(self, batch) -> None:
        for index, row in enumerate(batch.rows):
            self.rows.append((row, batch.payload(index)))
        for connection in batch.envelope.connections:
            self.connections[connection.generation] = connection
            self.processes[connection.generation] = batch.envelope.processes[connection.process]
        for loss in batch.envelope.losses:
            self.losses[loss.stage] += loss.events

    def of(self, kind: str, direction: int | None = None) -> list:
        return [
            (row, payload)
            for row, payload in self.rows
            if KINDS[int(row["kind"])] == kind and direction in (None, int(row["direction"]))
        ]

    def stream(self, direction: int, role: int) -> list:
        """Data of the connections of one role: (position, size, payload) in order."""
        return [
            (int(row["position"]), int(row["size"]), payload)
            for row, payload in self.of("DATA", direction)
            if self.connections[int(row["generation"])].role == role
        ]


@pytest.fixture
def watch():
    """Start a producer on targets; closed in the end. Redaction is off: the child's bytes are made up."""

    def start(*targets: str, **flags) -> SocketsProducer:
        settings = {"capture.targets": list(targets), "redaction.enabled": False, "capture.ring_bytes": 1 << 22}
        config = load(
            environ={}, flags=settings | {key.replace("__", "."): value for key, value in flags.items()}
        ).config
        return stack.enter_context(attached(SocketsProducer, config))

    with ExitStack() as stack:
        yield start
    for process in Child.started:
        process.kill()
        process.communicate()
    Child.started.clear()


def capture(watch, code: str, **flags) -> Captured:
    child = Child(code)
    producer = watch(f"pid:{child.pid}", **flags)
    child.go()
    return Captured(producer)


CALLS = {
    "read_write": "os.write(client.fileno(), data); os.read(server.fileno(), 100)",
    "send_recv": "client.send(data); server.recv(100)",
    "recvfrom": "client.send(data); server.recvfrom(100)",
    "readv_writev": (
        "os.writev(client.fileno(), [data[:2], b'', data[2:5], data[5:]]);"
        "os.readv(server.fileno(), [bytearray(3), bytearray(50)])"
    ),
    "sendmsg_recvmsg": "client.sendmsg([data[:1], data[1:4], data[4:]]); server.recvmsg(100)",
    "recvmsg_into": "client.sendmsg([data]); server.recvmsg_into([bytearray(4), bytearray(50)])",
}


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX"])
@pytest.mark.parametrize("call", CALLS)
def test_sockets_every_call_and_family_gives_both_directions(watch, family, call):
    make = {
        "AF_INET": "tcp()",
        "AF_INET6": "tcp(socket.AF_INET6, '::1')",
        "AF_UNIX": "socket.socketpair()",
    }[family]
    seen = capture(watch, f"ready()\nclient, server = {make}\ndata = b'hello world'\n{CALLS[call]}")
    sent = [(int(r["position"]), int(r["size"]), p) for r, p in seen.of("DATA", SEND)]
    received = [(int(r["position"]), int(r["size"]), p) for r, p in seen.of("DATA", RECEIVE)]
    assert sent == received == [(0, 11, b"hello world")]
    families = {connection.family for connection in seen.connections.values()}
    assert families == {getattr(raw_pb2, "FAMILY_" + family.removeprefix("AF_"))}
    assert sum(seen.losses.values()) == 0


def test_sockets_mmsg_gives_one_event_a_message(watch):
    code = """
    ready()
    class Iov(ctypes.Structure): _fields_ = [("base", ctypes.c_char_p), ("len", ctypes.c_size_t)]
    class Hdr(ctypes.Structure): _fields_ = [
        ("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.POINTER(Iov)),
        ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int)]
    class Msg(ctypes.Structure): _fields_ = [("hdr", Hdr), ("len", ctypes.c_uint)]
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    parts = [b"one", b"three", b"seven77"]
    iovs = [Iov(part, len(part)) for part in parts]
    msgs = (Msg * 3)(*[Msg(Hdr(None, 0, ctypes.pointer(iov), 1, None, 0, 0), 0) for iov in iovs])
    assert libc.sendmmsg(a.fileno(), msgs, 3, 0) == 3
    buffers = [ctypes.create_string_buffer(50) for _ in parts]
    iovs = [Iov(ctypes.cast(buffer, ctypes.c_char_p), 50) for buffer in buffers]
    msgs = (Msg * 3)(*[Msg(Hdr(None, 0, ctypes.pointer(iov), 1, None, 0, 0), 0) for iov in iovs])
    assert libc.recvmmsg(b.fileno(), msgs, 3, 0, None) == 3
    """
    seen = capture(watch, code)
    for direction in (SEND, RECEIVE):
        rows = seen.of("DATA", direction)
        assert [payload for _, payload in rows] == [b"one", b"three", b"seven77"]
        assert [int(row["position"]) for row, _ in rows] == [0, 3, 8]
        assert [int(row["nth"]) for row, _ in rows] == [0, 1, 2]


def test_sockets_roles_tuples_and_identity_are_right(watch):
    code = """
    ready()
    client, server = tcp()
    client.send(b"x"); server.recv(1)
    print(*client.getsockname(), *server.getsockname(), client.fileno(), server.fileno(),
          os.fstat(client.fileno()).st_ino, os.fstat(server.fileno()).st_ino)
    """
    child = Child(code)
    producer = watch(f"pid:{child.pid}")
    words = child.go().split()
    seen = Captured(producer)
    by_role = {connection.role: connection for connection in seen.connections.values()}
    client, server = by_role[raw_pb2.ROLE_CLIENT], by_role[raw_pb2.ROLE_SERVER]
    loopback = socket.inet_aton("127.0.0.1")
    assert (client.local_address, client.remote_address) == (loopback, loopback)
    assert (client.local_port, client.remote_port) == (int(words[1]), int(words[3]))
    assert (server.local_port, server.remote_port) == (int(words[3]), int(words[1]))
    assert (client.fd, server.fd) == (int(words[4]), int(words[5]))
    assert (client.inode, server.inode) == (int(words[6]), int(words[7]))
    assert {client.origin, server.origin} == {raw_pb2.ORIGIN_SEEN}
    process = seen.processes[client.generation]
    assert process.pid == child.pid
    assert process.comm.startswith("python")


def test_sockets_opened_before_start_are_found_and_marked(watch):
    code = """
    client, server = tcp()
    pair = socket.socketpair()
    client.send(b"before"); server.recv(6)
    ready()
    client.send(b"after"); server.recv(5)
    pair[0].send(b"p"); pair[1].recv(1)
    """
    seen = capture(watch, code)
    assert {c.origin for c in seen.connections.values()} == {raw_pb2.ORIGIN_BEFORE}
    assert sorted(p for _, p in seen.of("DATA", SEND)) == [b"after", b"p"]
    inet = [c for c in seen.connections.values() if c.family == raw_pb2.FAMILY_INET]
    assert {(c.local_port, c.remote_port) for c in inet} == {(c.remote_port, c.local_port) for c in inet}
    assert {int(r["position"]) for r, _ in seen.of("DATA")} == {0}


def test_sockets_unix_path_is_the_listeners_on_both_ends(watch, tmp_path):
    path = tmp_path / "listening.sock"
    code = f"""
    ready()
    listener = socket.socket(socket.AF_UNIX); listener.bind({str(path)!r}); listener.listen()
    client = socket.socket(socket.AF_UNIX); client.connect({str(path)!r})
    server, _ = listener.accept()
    abstract = socket.socket(socket.AF_UNIX); abstract.bind("\\0hidden"); abstract.listen()
    other = socket.socket(socket.AF_UNIX); other.connect("\\0hidden")
    client.send(b"x"); server.recv(1); other.send(b"y")
    """
    seen = capture(watch, code)
    assert Counter(c.unix_path for c in seen.connections.values()) == {str(path): 2, "@hidden": 1}


def test_sockets_capture_limit_is_larger_for_the_first_event(watch):
    code = """
    ready()
    client, server = tcp()
    for _ in range(2):
        client.sendall(b"a" * 6000)
        got = 0
        while got < 6000: got += len(server.recv(6000, socket.MSG_WAITALL))
    """
    seen = capture(watch, code)
    assert [(s, len(p)) for _, s, p in seen.stream(SEND, raw_pb2.ROLE_CLIENT)] == [(6000, 4096), (6000, 1024)]
    assert [(s, len(p)) for _, s, p in seen.stream(RECEIVE, raw_pb2.ROLE_SERVER)] == [(6000, 4096), (6000, 1024)]


def test_sockets_many_iovecs_keep_the_position_and_say_so(watch):
    code = """
    ready()
    client, server = tcp()
    os.writev(client.fileno(), [b"%d" % (n % 10) for n in range(20)])
    server.recv(100)
    """
    ((row, payload),) = capture(watch, code).of("DATA", SEND)
    assert (int(row["size"]), payload, int(row["flags"])) == (20, b"01234567", 4)


def test_sockets_peeked_and_urgent_bytes_do_not_move_the_stream(watch):
    code = """
    ready()
    client, server = tcp()
    client.send(b"abc")
    server.recv(3, socket.MSG_PEEK)
    server.recv(3, socket.MSG_PEEK | socket.MSG_WAITALL)
    server.recv(1); server.recv(2)
    client.send(b"!", socket.MSG_OOB)
    client.send(b"d"); server.recv(1)
    """
    seen = capture(watch, code)
    assert seen.stream(RECEIVE, raw_pb2.ROLE_SERVER) == [(0, 1, b"a"), (1, 2, b"bc"), (3, 1, b"d")]
    assert seen.stream(SEND, raw_pb2.ROLE_CLIENT) == [(0, 3, b"abc"), (3, 1, b"d")]


def test_sockets_sendfile_and_splice_move_the_stream_without_payload(watch, tmp_path):
    file = tmp_path / "body"
    file.write_bytes(b"z" * 5000)
    code = f"""
    ready()
    client, server = tcp()
    client.send(b"head")
    fd = os.open({str(file)!r}, os.O_RDONLY)
    assert os.sendfile(client.fileno(), fd, 0, 3000) == 3000
    r, w = os.pipe()
    assert os.splice(fd, w, 2000, offset_src=0) == 2000
    assert os.splice(r, client.fileno(), 2000) == 2000
    client.send(b"tail")
    got = 0
    while got < 4008: got += len(server.recv(4008 - got))
    assert os.splice(server.fileno(), w, 1000) == 1000
    """
    seen = capture(watch, code)
    sent = seen.stream(SEND, raw_pb2.ROLE_CLIENT)
    assert sent == [(0, 4, b"head"), (4, 3000, b""), (3004, 2000, b""), (5004, 4, b"tail")]
    received = seen.stream(RECEIVE, raw_pb2.ROLE_SERVER)
    assert sum(size for _, size, _ in received) == 5008
    assert received[-1] == (4008, 1000, b"")
    moved = [int(row["flags"]) for row, _ in seen.of("DATA") if int(row["flags"])]
    assert moved == [2, 2, 2]


def test_sockets_dup_shares_the_stream_and_the_last_close_ends_it(watch):
    code = """
    ready()
    client, server = tcp()
    other = os.dup(client.fileno()); third = socket.socket(); os.dup2(client.fileno(), third.fileno())
    client.send(b"a"); os.write(other, b"b"); os.write(third.fileno(), b"c")
    client.close(); os.write(other, b"d"); os.close(other); third.send(b"e"); third.close()
    server.recv(9)
    """
    seen = capture(watch, code)
    sent = seen.stream(SEND, raw_pb2.ROLE_CLIENT)
    assert sent == [(0, 1, b"a"), (1, 1, b"b"), (2, 1, b"c"), (3, 1, b"d"), (4, 1, b"e")]
    client = next(c.generation for c in seen.connections.values() if c.role == raw_pb2.ROLE_CLIENT)
    closes = [(r, p) for r, p in seen.of("CLOSE") if int(r["generation"]) == client]
    assert len(closes) == 1
    import numpy as np

    totals = np.frombuffer(closes[0][1], CLOSE)[0]
    assert (int(totals["sent"]), int(totals["sent_events"]), int(totals["received"])) == (5, 5, 0)


def test_sockets_reused_descriptor_is_another_generation(watch):
    code = """
    ready()
    for n in range(23):
        client, server = tcp()
        client.send(b"%d" % n); server.recv(9)
        client.close(); server.close()
    """
    seen = capture(watch, code)
    sent = seen.stream(SEND, raw_pb2.ROLE_CLIENT)
    assert [payload for _, _, payload in sent] == [b"%d" % n for n in range(23)]
    assert {position for position, _, _ in sent} == {0}
    assert len(seen.connections) == 46
    assert len(seen.of("CLOSE")) == 46


def test_sockets_end_of_stream_shutdown_and_exit_are_told(watch):
    code = """
    ready()
    client, server = tcp()
    client.send(b"x"); server.recv(1)
    client.shutdown(socket.SHUT_WR); server.recv(1); server.recv(1)
    """
    seen = capture(watch, code)
    ((shutdown, _),) = seen.of("SHUTDOWN")
    assert int(shutdown["aux"]) == socket.SHUT_WR
    ((eof, _),) = seen.of("EOF")
    assert int(eof["position"]) == 1
    assert len(seen.of("EXIT")) == 1


def test_sockets_reset_is_told_with_its_errno(watch):
    code = """
    ready()
    client, server = tcp()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0")
    server.close()
    try: client.recv(1)
    except ConnectionResetError: pass
    """
    ((error, _),) = capture(watch, code).of("ERROR")
    assert int(error["aux"]) == 104


def test_sockets_nonblocking_connect_is_a_client_from_its_first_byte(watch):
    code = """
    ready()
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.socket(); client.setblocking(False); client.connect_ex(listener.getsockname())
    server, _ = listener.accept()
    client.send(b"x")
    """
    seen = capture(watch, code)
    assert seen.stream(SEND, raw_pb2.ROLE_CLIENT) == [(0, 1, b"x")]


def test_sockets_files_and_pipes_are_not_captured(watch, tmp_path):
    code = f"""
    ready()
    r, w = os.pipe(); os.write(w, b"pipe"); os.read(r, 4)
    with open({str(tmp_path / "f")!r}, "wb") as f: f.write(b"file")
    """
    seen = capture(watch, code)
    assert seen.of("DATA") == []


def test_sockets_children_are_watched_and_strangers_are_not(watch):
    stranger = Child("ready()\nclient, server = tcp()\nclient.send(b'stranger')")
    code = """
    ready()
    pid = os.fork()
    if pid == 0:
        client, server = tcp(); client.send(b"child"); os._exit(0)
    os.waitpid(pid, 0)
    """
    child = Child(code)
    producer = watch(f"pid:{child.pid}")
    stranger.go()
    child.go()
    seen = Captured(producer)
    assert [payload for _, payload in seen.of("DATA", SEND)] == [b"child"]
    assert {process.pid for process in seen.processes.values()} != {child.pid}


def test_sockets_port_target_takes_both_ends_and_nothing_else(watch):
    code = """
    one = socket.create_server(("127.0.0.1", 0)); two = socket.create_server(("127.0.0.1", 0))
    ready(one.getsockname()[1])
    for listener in (one, two):
        client = socket.create_connection(listener.getsockname()); server, _ = listener.accept()
        client.send(b"%d" % listener.getsockname()[1]); server.recv(9)
    """
    child = Child(code)
    port = child.said[0]
    producer = watch(f"port:{port}")
    child.go()
    seen = Captured(producer)
    assert [payload for _, payload in seen.of("DATA")] == [port.encode()] * 2


def test_sockets_excluded_port_is_never_captured(watch):
    code = """
    one = socket.create_server(("127.0.0.1", 0)); two = socket.create_server(("127.0.0.1", 0))
    ready(one.getsockname()[1])
    for listener in (one, two):
        client = socket.create_connection(listener.getsockname()); client.send(b"%d" % listener.getsockname()[1])
    """
    child = Child(code)
    producer = watch(f"pid:{child.pid}", capture__exclude_ports=[int(child.said[0])])
    child.go()
    (payload,) = [payload for _, payload in Captured(producer).of("DATA")]
    assert payload != child.said[0].encode()


def test_sockets_exe_target_takes_programs_started_later(watch, tmp_path):
    copy = tmp_path / "own-python"
    copy.write_bytes(Path(sys.executable).resolve().read_bytes())
    copy.chmod(0o755)
    producer = watch(f"exe:{copy}")
    Child("ready()\nclient, server = tcp()\nclient.send(b'other')").go()
    Child("ready()\nclient, server = tcp()\nclient.send(b'own')", executable=str(copy)).go()
    assert [payload for _, payload in Captured(producer).of("DATA", SEND)] == [b"own"]


def cgroup_root() -> str:
    for root in ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup"):
        if Path(root, "cgroup.procs").exists():
            return root
    pytest.fail("no cgroup hierarchy is mounted")


def test_sockets_cgroup_target_takes_who_is_there_and_who_comes(watch):
    group = f"{cgroup_root()}/ebbflow-test-{os.getpid()}"
    Path(group).mkdir()
    try:
        inside, later, outside = (
            Child(f"ready()\nclient, server = tcp()\nclient.send(b'{name}')") for name in ("inside", "later", "outside")
        )
        move(group, inside.pid)
        producer = watch(f"cgroup:{group}")
        move(group, later.pid)
        for child in (inside, later, outside):
            child.go()
        assert sorted(payload for _, payload in Captured(producer).of("DATA", SEND)) == [b"inside", b"later"]
    finally:
        Path(group).rmdir()


def move(group: str, pid: int) -> None:
    Path(group, "cgroup.procs").write_text(str(pid))


def test_sockets_full_ring_counts_every_lost_event(watch):
    code = """
    ready()
    client, server = tcp()
    for n in range(503):
        client.send(b"x" * 100); server.recv(100)
    """
    child = Child(code)
    producer = watch(f"pid:{child.pid}", capture__ring_bytes=8192)
    child.go()
    seen = Captured(producer)
    kept = len(seen.rows)
    # 2 connections opened, 1,006 events, 2 (or fewer: at exit nobody closes) closes, 1 exit.
    assert producer.captured() == kept + producer.lost()
    assert seen.losses[raw_pb2.Loss.STAGE_RING] == producer.lost() > 900
    sequences = sorted((int(row["cpu"]), int(row["sequence"])) for row, _ in seen.rows)
    assert len(set(sequences)) == kept


def test_sockets_full_ring_still_tells_what_opened_and_what_it_came_to(watch):
    code = """
    ready()
    client, server = tcp()
    for n in range(200): client.send(b"x" * 100)
    other, peer = tcp()
    other.send(b"unseen" * 20)
    other.close()
    for n in range(10): client.send(b"x" * 100)
    client.close()
    """
    child = Child(code)
    producer = watch(f"pid:{child.pid}", capture__ring_bytes=4096)
    child.go()
    seen = Captured(producer)
    assert all(b"unseen" not in payload for _, payload in seen.rows)
    assert len(seen.of("OPEN")) == len(seen.connections) == 4
    ends = [np.frombuffer(payload, CLOSE)[0] for _, payload in seen.of("CLOSE")]
    sent = {int(totals["sent_events"]): int(totals["sent"]) for totals in ends}
    assert {1: 120, 210: 21_000}.items() <= sent.items()
    assert len(seen.of("EXIT")) == 1
    assert producer.captured() == len(seen.rows) + producer.lost()
    times = [int(row["time_ns"]) for row, _ in seen.rows]
    assert times == sorted(times)
    assert KINDS[int(seen.rows[-1][0]["kind"])] == "EXIT"


def test_sockets_detached_gives_what_it_has_seen_and_no_more(watch):
    code = """
    ready()
    client, server = tcp()
    client.send(b"before")
    ready()
    client.send(b"after")
    """
    child = Child(code)
    producer = watch(f"pid:{child.pid}")
    child.process.stdin.write("\n")
    child.process.stdin.flush()
    child.process.stdout.readline()
    producer.detach()
    child.go()
    seen = Captured(producer)
    assert [payload for _, payload in seen.of("DATA")] == [b"before"]
    assert producer.captured() == len(seen.rows)


def test_sockets_secrets_never_leave_the_producer(watch):
    code = """
    ready()
    client, server = tcp()
    client.sendall(b"POST /login?token=hushhush HTTP/1.1\\r\\nCookie: hushhush\\r\\n"
                   b"Content-Length: 8\\r\\n\\r\\nhushhush")
    server.recv(1000)
    server.sendall(b"HTTP/1.1 200 OK\\r\\nSet-Cookie: hushhush\\r\\nContent-Length: 8\\r\\n\\r\\nhushhush")
    pair = socket.socketpair(); pair[0].send(b"AUTH hushhush\\r\\n")
    """
    child = Child(code)
    producer = watch(f"pid:{child.pid}", redaction__enabled=True)
    child.go()
    while producer.drain():
        pass
    values = [batch.value for batch in producer.batches(everything=True)]
    # The command line holds the program's text: arguments are masked by name, not by content.
    rows = [decode(value, ROW) for value in values]
    assert b"hushhush" not in b"".join(batch.heap for batch in rows)
    assert b"POST /login?token=********" in b"".join(batch.heap for batch in rows)


def test_sockets_close_leaves_nothing_in_the_kernel(watch):
    config = load(environ={}, flags={"capture.targets": [f"pid:{os.getpid()}"]}).config
    with attached(SocketsProducer, config) as producer:
        ours = own_programs(producer)
        assert ours <= programs()
        assert len(ours) == 7
    deadline = time.monotonic() + 5
    while ours & programs() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not ours & programs()
    assert [fd for fd in open_files() if "bpf" in fd] == []


def own_programs(producer: SocketsProducer) -> set[str]:
    """Ids of the programs that this producer has loaded."""
    ids = set()
    for program in (producer._program, producer._shared.watch._program):
        for function in program._bpf.funcs.values():
            info = Path(f"/proc/self/fdinfo/{function.fd}").read_text()
            ids |= {line.split()[1] for line in info.splitlines() if line.startswith("prog_id:")}
    return ids


def open_files() -> list[str]:
    files = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own descriptor
            files.append(str(entry.readlink()))
    return files


def programs() -> set[str]:
    """Ids of all programs the kernel has."""
    out = subprocess.run(["bpftool", "prog", "show"], capture_output=True, text=True, check=True).stdout
    return {line.split(":")[0] for line in out.splitlines() if line[:1].isdigit()}
