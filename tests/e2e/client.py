"""A raw HTTP/1.1 client: what goes out in one piece, and what is read when, is up to the test."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event, Thread
from typing import Self

TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    body: bytes = b""
    headers: tuple[str, ...] = ()

    @property
    def encoded(self) -> bytes:
        fields = ["Host: e2e", *self.headers, *([f"Content-Length: {len(self.body)}"] if self.body else [])]
        head = f"{self.method} {self.target} HTTP/1.1\r\n" + "".join(f"{field}\r\n" for field in fields) + "\r\n"
        return head.encode("ascii") + self.body


class Client:
    """One connection."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.connect(socket.create_connection((host, port), TIMEOUT_S))

    @classmethod
    def unix(cls, path: str) -> Client:
        client = cls.__new__(cls)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT_S)
        connection.connect(path)
        client.connect(connection)
        return client

    def connect(self, connection: socket.socket) -> None:
        self.socket = connection
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        """Each piece in a system call and a segment of its own."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            self.socket.sendall(piece)

    def read_until(self, mark: bytes) -> bytes:
        """Everything up to and including the mark."""
        while mark not in self._read:
            self._more()
        found, _, self._read = self._read.partition(mark)
        return found + mark

    def read_exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            self._more()
        found, self._read = self._read[:size], self._read[size:]
        return found

    def read_all(self) -> bytes:
        """Up to the end of the stream."""
        while piece := self.socket.recv(65536):
            self._read += piece
        found, self._read = self._read, b""
        return found

    def _more(self) -> None:
        piece = self.socket.recv(65536)
        assert piece, f"the server closed early, after {self._read!r}"
        self._read += piece

    def response(self, method: str = "GET") -> int:
        """Read one whole response with a Content-Length; its status."""
        head = self.read_until(b"\r\n\r\n").decode("ascii")
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
        if method != "HEAD":
            self.read_exactly(int(fields.get("content-length", "0")))
        return int(head.split(" ", 2)[1])

    def exchange(self, requests: Sequence[Request]) -> list[int]:
        """Send all in one piece, then read all answers; their statuses."""
        self.socket.sendall(b"".join(request.encoded for request in requests))
        return [self.response(request.method) for request in requests]


class SteadyLoad:
    """One request after the other at a given rate, over a few kept connections, each for a path of its own.

    with SteadyLoad(port, per_s=300) as load:
        ...
    load.sent
    """

    def __init__(self, port: int, *, per_s: float, connections: int = 4) -> None:
        self.sent = 0
        self._pause_s = 1 / per_s
        self._clients = [Client(port) for _ in range(connections)]
        self._stop = Event()
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._run, name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for client in self._clients:
            client.socket.close()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            due_s = time.monotonic()
            while not self._stop.wait(max(0.0, due_s - time.monotonic())):
                due_s += self._pause_s
                client = self._clients[self.sent % len(self._clients)]
                assert client.exchange([Request("GET", f"/items/{self.sent}")]) == [200]
                self.sent += 1
        except BaseException as error:  # noqa: BLE001 - told to the test when it ends the load
            self._failure = error
