"""Whose connections are told, those from before, limits; and the same run seen by tcplife and ss."""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter

import pytest
from tcp_seen import CLIENT, SERVER, Told, start

pytestmark = pytest.mark.bpf
__all__ = ["start"]  # a fixture
TCPLIFE = shutil.which("tcplife", path=os.environ["PATH"] + ":/usr/sbin")  # of libbpf-tools


def test_tcp_accepting_process_and_thread_are_the_owners(start):
    child = start.child("""
    listener = listen()
    children = []
    for _ in range(3):
        pid = os.fork()
        if not pid:
            sys.stdin.close()
            while True:
                server = listener.accept()[0]
                word = server.recv(100)
                server.send(str(os.getpid()).encode()); server.recv(1); server.close()
        children.append(pid)
    ready(*children)
    for _ in range(31):
        client = socket.create_connection(listener.getsockname())
        client.send(b"who"); print(client.recv(100).decode()); client.close()
    def accept():
        server = listener.accept()[0]; server.send(str(threading.get_native_id()).encode()); server.recv(1)
    for pid in children: os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
    thread = threading.Thread(target=accept); thread.start()
    client = socket.create_connection(listener.getsockname()); print(client.recv(100).decode()); client.close()
    thread.join()
    """)
    producer = start.producer(f"pid:{child.pid}")
    *by_children, by_thread = map(int, child.go())
    told = Told(producer)
    accepts = sorted(told.of("accept"), key=lambda each: int(each[0]["time_ns"]))
    assert [int(row["pid"]) for row, _ in accepts[:-1]] == by_children
    assert (int(accepts[-1][0]["pid"]), int(accepts[-1][0]["tid"])) == (child.pid, by_thread)
    owner = {int(p["connection"]["generation"]): int(row["pid"]) for row, p in accepts}
    assert {int(p["connection"]["generation"]): int(row["pid"]) for row, p in told.of("close", SERVER)} == owner


def test_tcp_connections_from_before_are_found_and_marked(start):
    child = start.child("""
    listener = listen()
    client, server = pair(listener)
    idle = pair(listener)
    client.sendall(bytes(1009)); receive(server, 1009)
    ready()
    server.sendall(bytes(2003)); receive(client, 2003)
    ready()
    idle[0].close(); idle[1].recv(1); idle[1].close()
    finish(client, server)
    """)
    producer = start.producer(f"pid:{child.pid}")
    child.step()
    producer.aggregate()
    child.go()
    told = Told(producer)
    assert {name: len(rows) for name, rows in told.rows.items() if rows and name != "process"} == {
        "alive": 2,
        "close": 4,
    }
    assert {int(p["connection"]["before"]) for name in ("alive", "close") for _, p in told.of(name)} == {1}
    alive = sorted((int(a["traffic"]["sent_bytes"]), int(a["traffic"]["received_bytes"])) for _, a in told.of("alive"))
    assert alive == [(1009, 2003), (2003, 1009)]
    closes = sorted((int(c["traffic"]["sent_bytes"]), int(c["traffic"]["received_bytes"])) for _, c in told.of("close"))
    assert closes == [(0, 0), (0, 0), *alive]
    assert {(int(row["pid"])) for row, _ in told.of("close")} == {child.pid}
    # To the nanosecond, as other features have it.
    [start_ns] = {int(row["start_boottime_ns"]) for row, _ in told.of("close")}
    assert start_ns % 10_000_000
    assert {(int(row["start_boottime_ns"])) for row, _ in told.of("process")} == {start_ns}


def test_tcp_short_lived_clients_lose_nothing(start):
    told = start.told("""
    listener = listen()
    ready()
    for _ in range(29):
        pid = os.fork()
        if not pid:
            client = socket.create_connection(listener.getsockname()); client.close(); os._exit(0)
        server = listener.accept()[0]; server.recv(1); server.close(); os.waitpid(pid, 0)
    """)
    assert told.counts() == {"connect": 29, "accept": 29, "close": 58}
    assert len({int(row["pid"]) for row, _ in told.of("connect")}) == 29


@pytest.mark.parametrize(("target", "told_of"), [("port", [3]), ("pid", [3, 7])])
def test_tcp_ports_decide_where_they_are_asked_for(start, target, told_of):
    child = start.child("""
    listeners = [listen(), listen(), listen()]
    ready(*(listener.getsockname()[1] for listener in listeners))
    for count, listener in zip((3, 5, 7), listeners):
        for _ in range(count): finish(*pair(listener))
    """)
    wanted, excluded, _ = map(int, child.said)
    number = wanted if target == "port" else child.pid
    producer = start.producer(f"{target}:{number}", capture__exclude_ports=[excluded])
    child.go()
    told = Told(producer)
    assert told.counts() == {"connect": sum(told_of), "accept": sum(told_of), "close": 2 * sum(told_of)}
    ports = Counter(int(p["connection"]["remote_port"]) for _, p in told.of("close", CLIENT))
    assert sorted(ports.values()) == told_of
    assert excluded not in ports


def test_tcp_strangers_are_not_told(start):
    watched = start.child("ready()")
    stranger = start.child("listener = listen()\nready()\nfor _ in range(3): finish(*pair(listener))")
    producer = start.producer(f"pid:{watched.pid}")
    stranger.go()
    assert Told(producer).counts() == {}
    assert producer.captured() == 0


def test_tcp_connections_beyond_the_limit_are_counted(start):
    child = start.child("""
    listener = listen()
    ready()
    ends = [pair(listener) for _ in range(101)]
    for client, server in ends:
        client.send(b"x"); server.recv(1); finish(client, server)
    """)
    producer = start.producer(f"pid:{child.pid}", tcp__max_connections=64)
    child.go()
    told = Told(producer)
    assert len(told.of("close")) == 64
    assert producer.blind_spots()["map_lost"] == 2 * 101 - 64


def test_tcp_ten_thousand_connections_are_told_or_lost_by_number(start):
    child = start.child("""
    listener = listen()
    ready()
    for _ in range(10_007):
        client, server = pair(listener)
        client.close(); server.close()
    """)
    producer = start.producer(f"pid:{child.pid}", capture__event_ring_bytes=1 << 20)
    child.go()
    told = Told(producer)
    rows = sum(told.counts().values())
    assert rows + told.lost == 4 * 10_007
    assert told.lost > 0  # a megabyte does not hold them, and nobody drained
    assert (told.total("connects"), told.total("accepts"), told.total("closes")) == (10_007, 10_007, 20_014)


def test_tcp_agrees_with_tcplife(start):
    if not TCPLIFE:
        pytest.skip("tcplife of libbpf-tools is not installed")
    child = start.child("""
    listener = listen()
    ready()
    for i in range(11):
        client, server = pair(listener)
        client.sendall(bytes(100_003 * (i + 1))) if i < 2 else client.sendall(bytes(10_007 * i))
        receive(server, 100_003 * (i + 1) if i < 2 else 10_007 * i)
        finish(client, server)
    print(listener.getsockname()[1])
    """)
    producer = start.producer(f"pid:{child.pid}")
    with subprocess.Popen(["stdbuf", "-oL", TCPLIFE, "-p", str(child.pid)], stdout=subprocess.PIPE, text=True) as peer:
        header = peer.stdout.readline()
        assert "TX_KB" in header
        child.go()
        lines = []
        while len(lines) < 22:
            lines.append(peer.stdout.readline().split())
        peer.send_signal(signal.SIGINT)
        peer.stdout.read()
    theirs = {(int(line[3]), int(line[5])): [float(word) for word in line[6:9]] for line in lines}
    ours = {}
    for row, close in Told(producer).of("close"):
        traffic, connection = close["traffic"], close["connection"]
        lived_ms = (int(row["time_ns"]) - int(connection["opened_ns"])) / 1e6
        ports = int(connection["local_port"]), int(connection["remote_port"])
        ours[ports] = int(traffic["sent_bytes"]), int(traffic["received_bytes"]), lived_ms
    assert ours.keys() == theirs.keys()
    for ports, (sent, received, ms) in ours.items():
        tx_kb, rx_kb, their_ms = theirs[ports]
        assert tx_kb == pytest.approx(sent / 1024, abs=0.011)  # two digits, and the FIN it counts
        assert rx_kb == pytest.approx(received / 1024, abs=0.011)
        assert their_ms == pytest.approx(ms, abs=5)


def test_tcp_agrees_with_ss(start):
    child = start.child("""
    listener = listen()
    ready()
    client, server = pair(listener)
    for i in range(53):
        client.sendall(bytes(997 + i)); receive(server, 997 + i); server.sendall(b"ok"); receive(client, 2)
    ready(client.getsockname()[1], server.getsockname()[1])
    """)
    producer = start.producer(f"pid:{child.pid}")
    ports = child.step()
    text = subprocess.run(
        ["ss", "-tinHO", "sport", f":{ports[0]}", "dport", f":{ports[1]}"], capture_output=True, text=True, check=True
    ).stdout
    [(_, alive)] = Told(producer).of("alive", CLIENT)
    field = dict(re.findall(r"(\w+):(\S+)", text))
    srtt_ms, variance_ms = map(float, field["rtt"].split("/"))
    traffic = alive["traffic"]
    assert int(traffic["sent_bytes"]) == int(field["bytes_sent"]) == sum(997 + i for i in range(53))
    assert int(traffic["acked_bytes"]) == int(field["bytes_acked"]) - 1  # SYN
    assert int(traffic["received_bytes"]) == int(field["bytes_received"]) == 106
    assert int(traffic["srtt_us"]) == round(srtt_ms * 1000)
    assert int(traffic["rtt_variance_us"]) == round(variance_ms * 1000)
    assert int(traffic["min_rtt_us"]) == round(float(field["minrtt"]) * 1000)
    assert int(traffic["congestion_window_segments"]) == int(field["cwnd"])
    assert int(traffic["sent_segments"]) - int(field["segs_out"]) in {0, 1}  # an ACK may have been due
    assert int(traffic["received_segments"]) == int(field["segs_in"])
