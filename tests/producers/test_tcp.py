"""Connections on the real kernel: what a child does over loopback, the producer must say exactly."""

import itertools

import numpy as np
import pytest
from tcp_seen import CLIENT, LOOPBACK, PEER, SERVER, STATES, US, Told, start, us

pytestmark = pytest.mark.bpf
__all__ = ["start"]  # a fixture


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_tcp_each_connect_accept_and_close_is_one_row_with_exact_bytes(start, family):
    told = start.told(f"""
    listener = listen(socket.{family})
    ready()
    for i in range(23):
        client, server = pair(listener)
        client.sendall(bytes(1009 + i)); receive(server, 1009 + i)
        server.sendall(bytes(503 * i)); receive(client, 503 * i)
        finish(client, server)
    """)
    assert told.counts() == {"connect": 23, "accept": 23, "close": 46}
    for role in (CLIENT, SERVER):
        for i, (_, close) in enumerate(sorted(told.of("close", role), key=lambda each: int(each[0]["since_ns"]))):
            traffic = close["traffic"]
            expected = (1009 + i, 503 * i) if role == CLIENT else (503 * i, 1009 + i)
            assert (int(traffic["sent_bytes"]), int(traffic["received_bytes"])) == expected
            assert int(traffic["acked_bytes"]) == expected[0]
            assert int(traffic["retransmitted_bytes"]) == 0
            assert int(close["ended_by"]) == (US if role == CLIENT else PEER)
            assert int(close["error"]) == 0
    assert {int(close["connection"]["family"]) for _, close in told.of("close")} == {2 if family == "AF_INET" else 10}
    assert told.total("connects") == told.total("accepts") == 23
    assert told.total("closes") == 46
    assert told.total("sent_bytes") == told.total("received_bytes") == sum(1009 + i + 503 * i for i in range(23))
    assert told.producer.blind_spots()["never_accepted"] == told.lost == 0
    assert told.producer.captured() == sum(len(rows) for rows in told.rows.values())


def test_tcp_rows_of_one_connection_agree_on_who_and_where(start):
    child = start.child("""
    listener = listen()
    ready()
    client, server = pair(listener)
    client.send(b"x"); server.recv(1)
    print(*client.getsockname()[1:], *server.getsockname()[1:], os.fstat(client.fileno()).st_ino,
          os.fstat(server.fileno()).st_ino, os.stat("/proc/self/ns/net").st_ino)
    finish(client, server)
    """)
    producer = start.producer(f"pid:{child.pid}")
    client_port, server_port, client_inode, server_inode, netns = map(int, child.go())
    told = Told(producer)
    for kind, role in (("connect", CLIENT), ("accept", SERVER), ("close", CLIENT), ("close", SERVER)):
        [(row, payload)] = told.of(kind, role)
        connection = payload["connection"]
        ports = (client_port, server_port) if role == CLIENT else (server_port, client_port)
        assert (int(connection["local_port"]), int(connection["remote_port"])) == ports
        assert int(connection["inode"]) == (client_inode if role == CLIENT else server_inode)
        assert (bytes(connection["local_address"]), bytes(connection["remote_address"])) == (LOOPBACK, LOOPBACK)
        assert (int(connection["netns"]), int(connection["before"])) == (netns, 0)
        assert int(row["pid"]) == child.pid
        process = told.processes[child.pid, int(row["start_boottime_ns"])]
        assert process.comm == row["comm"].decode() == "python"
        assert int(row["tid"]) == (0 if kind == "close" else child.pid)
    generations = [{int(p["connection"]["generation"]) for _, p in told.of("close", role)} for role in (CLIENT, SERVER)]
    assert generations[0] | generations[1] == {
        int(p["connection"]["generation"]) for kind in ("connect", "accept") for _, p in told.of(kind)
    }
    assert not generations[0] & generations[1]


def test_tcp_durations_are_those_of_handshake_queue_and_life(start):
    child = start.child("""
    listener = listen()
    ready()
    began = time.monotonic_ns()
    client = socket.create_connection(listener.getsockname())
    print(time.monotonic_ns() - began)
    time.sleep(0.05)
    server = listener.accept()[0]
    time.sleep(0.05)
    finish(client, server)
    """)
    producer = start.producer(f"pid:{child.pid}")
    [most_ns] = map(int, child.go())
    told = Told(producer)
    [(connect, _)], [(accept, waited)] = told.of("connect"), told.of("accept")
    assert 0 < us(connect) <= most_ns / 1000
    assert 0 < int(waited["handshake_us"]) <= most_ns / 1000
    assert us(accept) > 50_000
    assert all(us(close) > 100_000 for close, _ in told.of("close"))


def test_tcp_round_trip_times_are_counted_once_by_connection_and_by_process(start):
    told = start.told("""
    listener = listen()
    ready()
    client, server = pair(listener)
    for _ in range(101):
        client.send(b"ping"); server.recv(4); server.send(b"pong"); client.recv(4)
    finish(client, server)
    """)
    by_connection = [close["rtt"] for _, close in told.of("close")]
    [by_process] = [process["rtt"] for _, process in told.of("process")]
    for rtt in (*by_connection, by_process):
        assert int(rtt["count"]) == int(rtt["slots"].sum()) > 101
        assert int(rtt["min_us"]) <= int(rtt["sum_us"]) / int(rtt["count"]) <= int(rtt["max_us"])
        slots = np.flatnonzero(rtt["slots"])
        assert (int(rtt["min_us"]).bit_length() - 1, int(rtt["max_us"]).bit_length() - 1) == (slots[0], slots[-1])
    assert (by_connection[0]["slots"] + by_connection[1]["slots"]).tolist() == by_process["slots"].tolist()
    assert sum(int(rtt["sum_us"]) for rtt in by_connection) == int(by_process["sum_us"])


def test_tcp_open_connections_are_told_again_only_when_something_came(start):
    child = start.child("""
    listener = listen()
    ready()
    client, server = pair(listener)
    client.sendall(bytes(1009)); receive(server, 1009)
    ready()
    """)
    producer = start.producer(f"pid:{child.pid}")
    child.step()
    for _ in range(3):
        producer.aggregate()
    told = Told(producer)
    assert len(told.of("alive", CLIENT)) == len(told.of("alive", SERVER)) == 1
    assert {int(alive["state"]) for _, alive in told.of("alive")} == {STATES["ESTABLISHED"]}


def test_tcp_states_are_told_when_asked_for(start):
    told = start.told(
        """
    listener = listen()
    ready()
    client, server = pair(listener); finish(client, server)
    """,
        tcp__states=True,
    )
    seen = {role: [(int(p["before"]), int(p["after"])) for _, p in told.of("state", role)] for role in (CLIENT, SERVER)}
    path = [STATES[name] for name in ("SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "CLOSE")]
    assert seen[CLIENT] == [*itertools.pairwise(path)]
    path = [STATES[name] for name in ("ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSE")]
    assert seen[SERVER] == [*itertools.pairwise(path)]
