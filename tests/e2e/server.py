"""A small HTTP/1.1 server that does on purpose what servers seldom do; the path says what. Run as a script.

python server.py UNIX_PATH      prints its two ports, IPv4 and IPv6, then serves until it is killed

/…/plain        Content-Length           /…/chunked     three chunks
/…/head         1000 bytes of body       /…/close       HTTP/1.0, ends with the connection
/…/early        ends in the body         /…/nothing     ends without an answer
/…/upgrade      101, then echoes         /…/sendfile    body by sendfile
/…/sendmsg      head and body, one call  /…/204, /…/500 that status
/…/split/N      cut after N bytes        /…/large       300 kB
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from tempfile import TemporaryFile
from threading import Thread

PAUSE_S = 0.004
BODY = b"0123456789"


class Connection:
    """One client, one thread."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._read = b""

    def serve(self) -> None:
        with suppress(OSError, EOFError), self.socket:
            if self.socket.family != socket.AF_UNIX:
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while self._answer_one():
                pass

    def _answer_one(self) -> bool:
        """Whether the connection stays."""
        head = self._until(b"\r\n\r\n").decode("latin-1")
        start, *lines = head[:-4].split("\r\n")
        method, target, _ = start.split(" ")
        fields = dict(line.lower().split(": ", 1) for line in lines)
        if "expect" in fields:
            self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._body(fields)
        name, _, argument = target.split("?")[0].removeprefix("/").partition("/")[2].partition("/")
        answer: Callable[..., bool | None] = getattr(self, f"_{name}", self._plain)
        return answer(method, argument or name) is None

    def _body(self, fields: dict[str, str]) -> None:
        if fields.get("transfer-encoding") == "chunked":
            while size := int(self._until(b"\r\n"), 16):
                self._exactly(size + 2)
            self._until(b"\r\n")
        else:
            self._exactly(int(fields.get("content-length", "0")))

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._read:
            self._more()
        found, _, self._read = self._read.partition(mark)
        return found + mark

    def _exactly(self, size: int) -> None:
        while len(self._read) < size:
            self._more()
        self._read = self._read[size:]

    def _more(self) -> None:
        piece = self.socket.recv(65536)
        if not piece:
            raise EOFError
        self._read += piece

    # The answers. True: the connection ends.

    def _plain(self, method: str, _: str) -> None:
        self.socket.sendall(_response(200, b"" if method == "HEAD" else BODY))

    def _large(self, *_: str) -> None:
        self.socket.sendall(_response(200, b"x" * 300_000))

    def _head(self, *_: str) -> None:
        self.socket.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")

    def _204(self, *_: str) -> None:
        self.socket.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def _500(self, *_: str) -> None:
        self.socket.sendall(_response(500, BODY))

    def _split(self, _: str, after: str) -> None:
        answer = _response(200, BODY)
        self.socket.sendall(answer[: int(after)])
        time.sleep(PAUSE_S)
        self.socket.sendall(answer[int(after) :])

    def _chunked(self, *_: str) -> None:
        self.socket.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        time.sleep(PAUSE_S)
        self.socket.sendall(b"8;name=value\r\n, wor")
        time.sleep(PAUSE_S)
        self.socket.sendall(b"ld!\r\n0\r\nX-Trailer: 1\r\n\r\n")

    def _sendmsg(self, *_: str) -> None:
        self.socket.sendmsg([b"HTTP/1.1 200 OK\r\n", b"Content-Length: 10\r\n", b"\r\n", BODY])

    def _sendfile(self, *_: str) -> None:
        self.socket.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        with TemporaryFile() as file:
            file.write(BODY)
            file.flush()
            os.sendfile(self.socket.fileno(), file.fileno(), 0, len(BODY))

    def _close(self, *_: str) -> bool:
        self.socket.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil")
        time.sleep(PAUSE_S)
        self.socket.sendall(b" the end")
        return True

    def _early(self, *_: str) -> bool:
        self.socket.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
        return True

    def _nothing(self, *_: str) -> bool:
        return True

    def _upgrade(self, *_: str) -> bool:
        self.socket.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
        while piece := self._read or self.socket.recv(65536):
            self._read = b""
            self.socket.sendall(piece)
        return True


def _response(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d Told\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


def _accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        Thread(target=Connection(connection).serve, daemon=True).start()


def main(unix_path: str) -> None:
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(unix_path)
    unix.listen()
    listeners = [socket.create_server(("127.0.0.1", 0)), socket.create_server(("::1", 0), family=socket.AF_INET6), unix]
    threads = [Thread(target=_accept, args=(listener,)) for listener in listeners]
    for thread in threads:
        thread.start()
    sys.stdout.write(f"{listeners[0].getsockname()[1]} {listeners[1].getsockname()[1]}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
