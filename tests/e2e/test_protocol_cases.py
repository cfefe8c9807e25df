"""HTTP/1 as it really comes, through the whole path: what each play of client and server gives, span by span.

All plays are played on one pipeline, one after the other; then each is looked at alone. Its paths begin with its name.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from e2e.client import Client, Request
from e2e.harness import Pipeline, exchange

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
PAUSE_S = 0.004
TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@dataclass
class Stage:
    """Where plays take place. `early` was connected, and had asked, before the producer came."""

    port: int
    port6: int
    unix_path: str
    caller: subprocess.Popen[str]
    early: Client

    def client(self) -> Client:
        return Client(self.port)


@dataclass(frozen=True)
class Play:
    """What is done, and the server spans of it: method, target, status, what is missing."""

    perform: Callable[[Stage], None]
    spans: list[tuple[str, str, int, str | None]]
    attributes: dict[str, object] = field(default_factory=dict)


def ok(target: str, method: str = "GET", status: int = 200) -> tuple[str, str, int, None]:
    return method, target, status, None


def request(target: str, method: str = "GET", *fields: str) -> bytes:
    head = [f"{method} {target} HTTP/1.1", "Host: e2e", *fields]
    return ("\r\n".join(head) + "\r\n\r\n").encode("ascii")


def in_pieces(client: Client, *pieces: bytes) -> None:
    """Each is read before the next one comes."""
    for piece in pieces:
        client.send(piece)
        time.sleep(PAUSE_S)


def split_start_line(stage: Stage) -> None:
    with stage.client() as client:
        for number in range(3):
            in_pieces(client, b"GE", b"T /split_start_line", b"/plain?%d HT" % number, b"TP/1.1\r\nHost: e2e\r\n\r\n")
            assert client.response() == 200


CUT = len(request("/split_request/00"))
CUT_RESPONSE = len(b"HTTP/1.1 200 Told\r\nContent-Length: 10\r\n\r\n0123456789")


def split_request(stage: Stage) -> None:
    with stage.client() as client:
        for cut in range(1, CUT):
            whole = request(f"/split_request/{cut:02}")
            in_pieces(client, whole[:cut], whole[cut:])
            assert client.response() == 200


def split_response(stage: Stage) -> None:
    with stage.client() as client:
        for cut in range(1, CUT_RESPONSE):
            assert client.exchange([Request("GET", f"/split_response/split/{cut}")]) == [200]


def chunked_both_ways(stage: Stage) -> None:
    with stage.client() as client:
        in_pieces(
            client,
            request("/chunked_both_ways/chunked", "POST", "Transfer-Encoding: chunked") + b"4\r\nsome\r\n8",
            b"\r\n bytes\r",
            b"\n\r\n0\r\n",
            b"\r\n",
        )
        assert client.read_until(b"X-Trailer: 1\r\n\r\n")
        assert client.exchange([Request("GET", "/chunked_both_ways/plain")]) == [200]


def continued(stage: Stage) -> None:
    with stage.client() as client:
        client.send(request("/continued/plain", "POST", "Expect: 100-continue", "Content-Length: 5"))
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.send(b"hello")
        assert client.response() == 200
        assert client.exchange([Request("GET", "/continued/plain")]) == [200]


def without_body(stage: Stage) -> None:
    with stage.client() as client:
        for target, method in (("head", "HEAD"), ("204", "GET"), ("204", "DELETE"), ("plain", "GET")):
            client.exchange([Request(method, f"/without_body/{target}")])


def upgraded(stage: Stage) -> None:
    with stage.client() as client:
        client.send(request("/upgraded/upgrade", "GET", "Connection: Upgrade", "Upgrade: echo"))
        client.read_until(b"\r\n\r\n")
        client.send(request("/upgraded/in-the-tunnel"))
        client.read_until(b"\r\n\r\n")


def closed_early(stage: Stage) -> None:
    with stage.client() as client:
        client.send(request("/closed_early/plain") + request("/closed_early/early"))
        assert client.read_all().endswith(b"only this")


def closed_without_answer(stage: Stage) -> None:
    with stage.client() as client:
        client.send(request("/closed_without_answer/nothing"))
        assert client.read_all() == b""


def closed_after_nothing(stage: Stage) -> None:
    with stage.client():
        pass


def until_the_end(stage: Stage) -> None:
    with stage.client() as client:
        client.send(request("/until_the_end/close"))
        assert client.read_all().endswith(b"until the end")


def over_unix(stage: Stage) -> None:
    with Client.unix(stage.unix_path) as client:
        assert client.exchange([Request("GET", "/over_unix/plain"), Request("POST", "/over_unix/500", b"{}")]) == [
            200,
            500,
        ]


def over_ipv6(stage: Stage) -> None:
    with Client(stage.port6, "::1") as client:
        assert client.exchange([Request("GET", "/over_ipv6/plain")]) == [200]


def opened_before(stage: Stage) -> None:
    for number in range(2):
        assert stage.early.exchange([Request("GET", f"/opened_before/plain?after={number}")]) == [200]
    stage.early.socket.close()


def body_like_a_request(stage: Stage) -> None:
    body = request("/body_like_a_request/never") + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with stage.client() as client:
        client.exchange([Request("POST", "/body_like_a_request/plain?together", body)])
        in_pieces(client, request("/body_like_a_request/plain?apart", "POST", f"Content-Length: {len(body)}"), body)
        client.response()


def pipelined(stage: Stage) -> None:
    with stage.client() as client:
        client.exchange([Request("PUT", f"/pipelined/plain?{number}", b"y" * number) for number in range(10)])


def large_bodies(stage: Stage) -> None:
    with stage.client() as client:
        client.exchange([Request("POST", "/large_bodies/large", b"x" * 200_000)])
        client.exchange([Request("GET", "/large_bodies/plain")])


def by_sendfile(stage: Stage) -> None:
    with stage.client() as client:
        client.exchange([Request("GET", "/by_sendfile/sendfile")])
        client.exchange([Request("GET", "/by_sendfile/plain")])


def by_sendmsg(stage: Stage) -> None:
    with stage.client() as client:
        client.exchange([Request("GET", "/by_sendmsg/sendmsg?1")])
        client.exchange([Request("GET", "/by_sendmsg/sendmsg?2")])


def not_http(stage: Stage) -> None:
    with stage.client() as client:
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)))
        client.socket.shutdown(1)
        client.read_all()


def traced(stage: Stage) -> None:
    with stage.client() as client:
        client.exchange([Request("GET", "/traced/plain", headers=(f"traceparent: 00-{TRACE_ID}-{PARENT_ID}-01",))])


def called(stage: Stage) -> None:
    stage.caller.stdin.write("go\n")
    stage.caller.stdin.flush()
    assert stage.caller.stdout.readline() == "done\n"


PLAYS = {
    "split_start_line": Play(split_start_line, [ok(f"/split_start_line/plain?{number}") for number in range(3)]),
    "split_request": Play(split_request, [ok(f"/split_request/{cut:02}") for cut in range(1, CUT)]),
    "split_response": Play(split_response, [ok(f"/split_response/split/{cut}") for cut in range(1, CUT_RESPONSE)]),
    "chunked_both_ways": Play(
        chunked_both_ways,
        [ok("/chunked_both_ways/chunked", "POST"), ok("/chunked_both_ways/plain")],
        {"http.request.body.size": 12, "http.response.body.size": 13},
    ),
    "continued": Play(
        continued, [ok("/continued/plain", "POST"), ok("/continued/plain")], {"http.request.body.size": 5}
    ),
    "without_body": Play(
        without_body,
        [
            ok("/without_body/head", "HEAD"),
            ok("/without_body/204", status=204),
            ok("/without_body/204", "DELETE", 204),
            ok("/without_body/plain"),
        ],
    ),
    "upgraded": Play(upgraded, [ok("/upgraded/upgrade", status=101)]),
    "closed_early": Play(
        closed_early, [ok("/closed_early/plain"), ("GET", "/closed_early/early", 200, "connection_closed")]
    ),
    "closed_without_answer": Play(
        closed_without_answer, [("GET", "/closed_without_answer/nothing", 0, "connection_closed")]
    ),
    "closed_after_nothing": Play(closed_after_nothing, []),
    "until_the_end": Play(
        until_the_end, [ok("/until_the_end/close")], {"http.response.body.size": 13, "network.protocol.version": "1.1"}
    ),
    "over_unix": Play(
        over_unix, [ok("/over_unix/plain"), ok("/over_unix/500", "POST", 500)], {"network.transport": "unix"}
    ),
    "over_ipv6": Play(over_ipv6, [ok("/over_ipv6/plain")], {"network.type": "ipv6", "client.address": "::1"}),
    "opened_before": Play(opened_before, [ok(f"/opened_before/plain?after={number}") for number in range(2)]),
    "body_like_a_request": Play(
        body_like_a_request,
        [ok("/body_like_a_request/plain?together", "POST"), ok("/body_like_a_request/plain?apart", "POST")],
    ),
    "pipelined": Play(pipelined, [ok(f"/pipelined/plain?{number}", "PUT") for number in range(10)]),
    "large_bodies": Play(
        large_bodies,
        [ok("/large_bodies/large", "POST"), ok("/large_bodies/plain")],
        {"http.request.body.size": 200_000, "http.response.body.size": 300_000},
    ),
    "by_sendfile": Play(
        by_sendfile, [ok("/by_sendfile/sendfile"), ok("/by_sendfile/plain")], {"http.response.body.size": 10}
    ),
    "by_sendmsg": Play(by_sendmsg, [ok("/by_sendmsg/sendmsg?1"), ok("/by_sendmsg/sendmsg?2")]),
    "not_http": Play(not_http, []),
    "traced": Play(traced, [ok("/traced/plain")]),
    "called": Play(
        called,
        [
            ok("/called/plain?a=1"),
            ok("/called/chunked", "POST"),
            ok("/called/head", "HEAD"),
            ok("/called/500", status=500),
        ],
    ),
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """All spans and sums, after all plays."""
    directory = tmp_path_factory.mktemp("protocol")
    unix_path = str(directory / "server.sock")
    server = _child("server.py", unix_path)
    port, port6 = map(int, server.stdout.readline().split())
    caller = _child("caller.py", str(port), "called")
    try:
        with Pipeline(directory) as pipeline, Client(port) as early:
            assert early.exchange([Request("GET", "/opened_before/plain?unseen")]) == [200]
            pipeline.start()
            pipeline.producer(f"pid:{server.pid}", f"pid:{caller.pid}")
            stage = Stage(port, port6, unix_path, caller, early)
            for play in PLAYS.values():
                play.perform(stage)
            totals = pipeline.wait_settled()
            yield {kind: pipeline.spans(kind) for kind in ("server", "client")} | {"totals": totals}
    finally:
        for child in (server, caller):
            child.kill()
            child.communicate()


def _child(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / script), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def of_play(spans: list[dict], name: str) -> list[dict]:
    found = [span for span in spans if span["attributes"].get("url.path", "").startswith(f"/{name}/")]
    return sorted(found, key=lambda span: (span["start_unix_nano"], span["end_unix_nano"]))


@pytest.mark.parametrize("name", PLAYS)
def test_play_gives_exactly_these_spans(seen, name):
    play = PLAYS[name]
    spans = of_play(seen["server"], name)
    assert [(*exchange(span), span["attributes"].get("ebbflow.incomplete")) for span in spans] == play.spans
    if play.attributes:
        found = spans[0]["attributes"]
        assert {key: found.get(key) for key in play.attributes} == play.attributes


def test_there_are_no_other_spans_and_nothing_was_lost(seen):
    totals = seen["totals"]["requests"]
    assert len(seen["server"]) == sum(len(play.spans) for play in PLAYS.values())
    assert len(seen["client"]) == len(PLAYS["called"].spans)
    counted = {name: totals[name] for name in ("incomplete", "lost_exchanges", "lost_events", "late_events", "tunnels")}
    assert counted == {"incomplete": 2, "lost_exchanges": 0, "lost_events": 0, "late_events": 0, "tunnels": 1}


def test_client_spans_say_the_same_as_the_servers(seen):
    spans = of_play(seen["client"], "called")
    assert [(*exchange(span), None) for span in spans] == PLAYS["called"].spans
    assert [span["attributes"]["url.full"].partition("/called/")[2] for span in spans] == [
        "plain?a=1", "chunked", "head", "500",
    ]  # fmt: skip
    assert [span["status"] for span in spans] == ["unset", "unset", "unset", "error"]
    servers = of_play(seen["server"], "called")
    # A server that is preempted on its way out of write(2) ends later than who read what it wrote.
    inside = [
        client["start_unix_nano"]
        <= server["start_unix_nano"]
        <= server["end_unix_nano"]
        <= client["end_unix_nano"] + 10**8
        for client, server in zip(spans, servers, strict=True)
    ]
    assert inside == [True] * 4


def test_incoming_trace_context_is_honoured(seen):
    (span,) = of_play(seen["server"], "traced")
    assert (span["trace_id"], span["parent_span_id"]) == (TRACE_ID, PARENT_ID)
