"""Real OTLP servers on loopback that answer by script: what a sink's tests send to.

    async with HttpBackend([Reply(503), Reply(200)]) as backend:
        ...                      # send to backend.url
    backend.accepted             # the requests that were answered with success

Each request takes the next reply of the script; after its end everything succeeds.
"""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from ebbflow.otlp.signals import TRACES, Signal

HOST = "127.0.0.1"
_ENDLESS_CHUNK = b"%x\r\n%b\r\n" % (65536, bytes(65536))


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer over HTTP.

    Attributes:
        way: "answer" as it should be; "reset" the connection in the middle of the body; "silent" until the client
            goes; "raw": `body` is all that is sent; "endless": a body without an end; "trickle": a byte now and then.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    way: Literal["answer", "reset", "silent", "raw", "endless", "trickle"] = "answer"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent; `body` without its content coding."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    accepted: bool


class HttpBackend:
    """An HTTP/1.1 server that understands just what an OTLP client sends."""

    def __init__(self, script: Iterable[Reply] = (), *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.port = 0
        self._script = iter(script)
        self._tls = tls
        self._server: asyncio.Server
        self._clients: set[asyncio.StreamWriter] = set()

    @property
    def accepted(self) -> list[bytes]:
        return [request.body for request in self.requests if request.accepted]

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._clients):
            writer.transport.abort()
        while self._clients:  # noqa: ASYNC110 - handlers end by themselves now
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._clients.add(writer)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client has gone
        finally:
            self._clients.discard(writer)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection can be used again."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers["content-length"]))
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        reply = next(self._script, Reply())
        accepted = reply.way == "answer" and reply.status < 300  # noqa: PLR2004 - HTTP's classes
        self.requests.append(Request(first.split(" ")[1], headers, body, accepted))
        return await _answer(reply, reader, writer)


async def _answer(reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    head = f"HTTP/1.1 {reply.status} Scripted\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
    if reply.way == "answer":
        writer.write(f"{head}content-length: {len(reply.body)}\r\n\r\n".encode() + reply.body)
        await writer.drain()
        return True
    if reply.way == "raw":
        writer.write(reply.body)
        await writer.drain()
    elif reply.way == "reset":
        writer.write(f"{head}content-length: 1000\r\n\r\nhalf".encode())
        await writer.drain()
    elif reply.way == "endless":
        writer.write(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        while True:
            writer.write(_ENDLESS_CHUNK)
            await writer.drain()
    elif reply.way == "trickle":
        writer.write(f"{head}content-length: 1000000\r\n\r\n".encode())
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)
    else:
        await reader.read()
    return False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to answer over gRPC: a response, or a status with an optional RetryInfo."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    retry_after_s: float | None = None
    response: bytes = b""
    silent: bool = False


class GrpcBackend:
    """A gRPC server for one signal's Export."""

    def __init__(
        self,
        script: Iterable[Outcome] = (),
        *,
        signal: Signal = TRACES,
        credentials: grpc.ServerCredentials | None = None,
        max_request_bytes: int = -1,
    ) -> None:
        self.requests: list[Request] = []
        self.port = 0
        self._script = iter(script)
        self._signal = signal
        self._credentials = credentials
        self._server = grpc.aio.server(options=(("grpc.max_receive_message_length", max_request_bytes),))

    @property
    def accepted(self) -> list[bytes]:
        return [request.body for request in self.requests if request.accepted]

    @property
    def url(self) -> str:
        return f"{'https' if self._credentials else 'http'}://{HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        _, service, method = self._signal.method.split("/")
        handler: Any = grpc.unary_unary_rpc_method_handler(self._export)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        if self._credentials is None:
            self.port = self._server.add_insecure_port(f"{HOST}:0")
        else:
            self.port = self._server.add_secure_port(f"{HOST}:0", self._credentials)
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    async def _export(self, body: bytes, context: Any) -> bytes:
        outcome = next(self._script, Outcome())
        metadata = dict(context.invocation_metadata())
        ok = outcome.code is grpc.StatusCode.OK
        self.requests.append(Request(self._signal.method, metadata, body, ok and not outcome.silent))
        if outcome.silent:
            await asyncio.Event().wait()
        if not ok:
            await context.abort(outcome.code, "scripted", _details(outcome))
        return outcome.response


def _details(outcome: Outcome) -> tuple[tuple[str, bytes], ...]:
    if outcome.retry_after_s is None:
        return ()
    delay = Duration()
    delay.FromNanoseconds(int(outcome.retry_after_s * 1e9))
    number, _ = outcome.code.value
    status = Status(code=number)
    status.details.add().Pack(RetryInfo(retry_delay=delay))
    return (("grpc-status-details-bin", status.SerializeToString()),)
