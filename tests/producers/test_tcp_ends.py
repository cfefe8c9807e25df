"""Connections that fail, are reset, lose segments, or whose process ends. Loss is made with socket filters."""

import socket
import time

import pytest
from tcp_seen import CLIENT, PEER, SERVER, STATES, US, Told, start, us

pytestmark = pytest.mark.bpf
__all__ = ["start"]  # a fixture


def test_tcp_refused_connects_are_failures_with_their_errno(start):
    told = start.told("""
    taken = socket.socket(); taken.bind(("127.0.0.1", 0)); port = taken.getsockname()[1]
    ready()
    for _ in range(17):
        try: socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError: pass
    """)
    assert told.counts() == {"failed": 17, "reset": 17}
    assert {int(failed["error"]) for _, failed in told.of("failed")} == {111}
    assert all(int(failed["connection"]["local_port"]) for _, failed in told.of("failed"))
    assert told.total("failed") == told.total("resets_received") == 17
    assert told.producer.blind_spots()["resets_of_no_socket"] >= 17


def test_tcp_connect_that_fails_before_syn_is_told_with_where_to(start):
    told = start.told("""
    ready()
    for address in ("255.255.255.255", "127.0.0.1"):
        end = socket.socket()
        if address == "127.0.0.1":  # the same pair of addresses and ports twice
            listener, first = listen(), socket.socket()
            for each, port in ((first, lambda: 0), (end, lambda: first.getsockname()[1])):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); each.bind(("127.0.0.1", port()))
                if each is first: first.connect(listener.getsockname())
        for _ in range(3):
            try: end.connect((address, 9 if address != "127.0.0.1" else listener.getsockname()[1]))
            except OSError as error: print(error.errno)
    """)
    failed = [
        (int(f["error"]), socket.inet_ntoa(bytes(f["connection"]["remote_address"][:4]))) for _, f in told.of("failed")
    ]
    assert failed == [(101, "255.255.255.255")] * 3 + [(99, "127.0.0.1")] * 3


def test_tcp_nonblocking_connects_are_told_by_what_came_of_them(start):
    told = start.told("""
    listener, silent = listen(), listen()
    deaf(silent)
    refusing = socket.socket(); refusing.bind(("127.0.0.1", 0))
    ready()
    for address in (listener, refusing, silent):
        end = socket.socket(); end.setblocking(False)
        assert end.connect_ex(address.getsockname()) == errno.EINPROGRESS
        if address is not silent:
            select.select([], [end], [], 10)
            end.connect_ex(address.getsockname())
        end.close()
    """)
    assert len(told.of("connect")) == 1
    assert sorted(int(failed["error"]) for _, failed in told.of("failed")) == [0, 111]


def test_tcp_connect_without_an_answer_times_out_after_retransmits(start):
    told = start.told("""
    silent = listen(); deaf(silent)
    ready()
    end = socket.socket(); end.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1500)
    assert end.connect_ex(silent.getsockname()) == errno.ETIMEDOUT
    """)
    [(row, failed)] = told.of("failed")
    assert int(failed["error"]) == 110
    assert int(failed["retransmits"]) == len(told.of("retransmit")) >= 1
    assert us(row) > 1_000_000
    assert {int(again["state"]) for _, again in told.of("retransmit")} == {STATES["SYN_SENT"]}


def test_tcp_resets_are_told_at_both_ends_with_who(start):
    told = start.told("""
    listener = listen()
    ready()
    for _ in range(13):
        client, server = pair(listener)
        abort(client)
        try: server.recv(1)
        except ConnectionResetError: server.close()
    """)
    assert told.counts() == {"connect": 13, "accept": 13, "close": 26, "reset": 26}
    resets = [(int(r["connection"]["role"]), int(r["is_sent"])) for _, r in told.of("reset")]
    assert sorted(resets) == [(CLIENT, 1)] * 13 + [(SERVER, 0)] * 13
    assert {(int(c["ended_by"]), int(c["error"])) for _, c in told.of("close", SERVER)} == {(PEER, 104)}
    assert {int(c["ended_by"]) for _, c in told.of("close", CLIENT)} == {US}
    assert told.total("resets_sent") == told.total("resets_received") == 13


def test_tcp_connection_that_ended_while_it_waited_is_told_at_accept(start):
    told = start.told("""
    listener = listen()
    ready()
    client = socket.create_connection(listener.getsockname()); client.send(b"x" * 1009); abort(client)
    server = listener.accept()[0]
    idle = socket.create_connection(listener.getsockname())
    listener.close()
    """)
    [(_, close)] = told.of("close", SERVER)
    assert (int(close["traffic"]["received_bytes"]), int(close["ended_by"])) == (1009, PEER)
    assert len(told.of("accept")) == 1
    assert told.producer.blind_spots()["never_accepted"] == 1


def test_tcp_retransmits_agree_with_the_socket(start):
    child = start.child("""
    listener = listen()
    ready()
    client, server = pair(listener)
    deaf(server)
    for _ in range(3): client.send(bytes(1009))
    while retransmits(client) < 2: time.sleep(0.01)
    deaf(server, False)
    receive(server, 3 * 1009)
    print(retransmits(client))
    finish(client, server)
    """)
    producer = start.producer(f"pid:{child.pid}")
    [by_socket] = map(int, child.go())
    told = Told(producer)
    [(_, close)] = told.of("close", CLIENT)
    again = told.of("retransmit")
    assert int(close["traffic"]["retransmits"]) == by_socket
    assert int(close["traffic"]["sent_bytes"]) == int(close["traffic"]["acked_bytes"]) == 3 * 1009
    assert int(close["traffic"]["retransmitted_bytes"]) == sum(int(each["bytes"]) for _, each in again) > 0
    assert told.total("retransmits") == len(again)
    assert {int(each["connection"]["generation"]) for _, each in again} == {int(close["connection"]["generation"])}
    [(_, server)] = told.of("close", SERVER)
    assert int(server["traffic"]["received_bytes"]) == 3 * 1009


def test_tcp_answer_to_syn_that_is_sent_again_is_the_listeners(start):
    child = start.child("""
    ready()
    listener = listen()
    client = socket.socket(); client.setblocking(False)
    deaf(client)
    client.connect_ex(listener.getsockname())
    ready(listener.getsockname()[1])
    """)
    producer = start.producer(f"pid:{child.pid}")
    [port] = map(int, child.step())
    deadline_s = time.monotonic() + 20
    while producer.held() < 2 and time.monotonic() < deadline_s:  # SYN and its answer, after a second
        producer.drain()
        time.sleep(0.05)
    [(row, again), *_] = [each for each in Told(producer).of("retransmit") if int(each[1]["is_synack"])]
    assert (int(row["pid"]), int(again["connection"]["local_port"])) == (child.pid, port)
    assert int(again["connection"]["generation"]) == 0


def test_tcp_process_that_ends_with_open_sockets_is_still_told(start):
    told = start.told("""
    listener = listen()
    ready()
    for i in range(7):
        pid = os.fork()
        if not pid:
            client = socket.create_connection(listener.getsockname()); client.sendall(bytes(101))
            if i % 2: os.kill(os.getpid(), signal.SIGKILL)
            os._exit(0)
        server = listener.accept()[0]; receive(server, 101); assert not server.recv(1); server.close()
        os.waitpid(pid, 0)
    """)
    closes = told.of("close", CLIENT)
    assert len(closes) == 7
    assert len({int(row["pid"]) for row, _ in closes}) == 7
    assert {int(close["traffic"]["sent_bytes"]) for _, close in closes} == {101}
    assert {row["comm"] for row, _ in closes} == {b"python"}
