"""The service behind the demo's nginx: a shop with a few routes, nothing but the standard library.

Usage: shop.py PORT PID_FILE
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Answer = tuple[HTTPStatus, Any]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "shop"
    # Headers and body leave in two writes; without this the second waits 40 ms for an acknowledgement.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/export":
            self._send_chunks()
        else:
            self._send(*answer(path))

    def do_POST(self) -> None:
        """Both take a JSON object; `/login` gives a token, as real ones do."""
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/login":
            self._send(HTTPStatus.OK, {"user": order["user"], "token": "demo-issued-token"}, cookie=True)
        else:
            take(0.005, 0.03)
            self._send(HTTPStatus.CREATED, {"order": order})

    def _send(self, status: HTTPStatus, body: Any, *, cookie: bool = False) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if cookie:
            self.send_header("Set-Cookie", "session=demo-session-cookie")
        self.end_headers()
        self.wfile.write(content)

    def _send_chunks(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(5):
            line = f"row {number}\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            time.sleep(0.005)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: Any) -> None:
        """Every request is not an event."""


def answer(path: str) -> Answer:
    """What a GET gives; some routes take their time."""
    if path.startswith("/items/"):
        return HTTPStatus.OK, {"id": path.rpartition("/")[2], "price": 9.5}
    if path == "/report":
        take(0.15, 0.4)
        return HTTPStatus.OK, {"rows": 1200}
    if path == "/checkout":
        return HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "payment provider is away"}
    return HTTPStatus.NOT_FOUND, {"error": "no such page"}


def take(least_s: float, most_s: float) -> None:
    time.sleep(random.uniform(least_s, most_s))  # noqa: S311 - no secret depends on it


def main() -> None:
    port, pid_file = int(sys.argv[1]), Path(sys.argv[2])
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    pid_file.write_text(f"{os.getpid()}\n", "ascii")
    server.serve_forever()


if __name__ == "__main__":
    main()
