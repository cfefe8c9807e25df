"""A real nginx with one worker and an access log in the order in which requests ended."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ebbflow.broker import free_port

CONFIG = """
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 512; }}
http {{
    log_format logged '$request_method $request_uri $status $connection $body_bytes_sent';
    access_log {directory}/access.log logged;
    default_type text/plain;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests {keepalive_requests};
    server {{
        listen 127.0.0.1:{port};
        root {directory}/files;
        location = / {{ return 200 "hello\\n"; }}
        location /items/ {{ return 200 "an item\\n"; }}
        location /missing/ {{ return 404 "none\\n"; }}
        location /broken/ {{ return 500 "oops\\n"; }}
        {more}
    }}
}}
"""


@dataclass(frozen=True)
class Logged:
    """One line of the access log."""

    method: str
    target: str
    status: int
    connection: int

    @property
    def exchange(self) -> tuple[str, str, int]:
        return self.method, self.target, self.status


@dataclass
class Nginx:
    process: subprocess.Popen[bytes]
    directory: Path
    port: int

    @property
    def pid(self) -> int:
        """Of the master; its worker is a child."""
        return self.process.pid

    def lines(self) -> list[Logged]:
        return [_parse(line) for line in (self.directory / "access.log").read_text("ascii").splitlines()]

    def stop(self) -> None:
        """At once, but with all lines of the access log written."""
        self.process.terminate()
        self.process.wait(10)


def _parse(line: str) -> Logged:
    method, target, status, connection, _ = line.split(" ")
    return Logged(method, target, int(status), int(connection))


@contextmanager
def nginx(directory: Path, *, keepalive_requests: int = 1000, more: str = "") -> Iterator[Nginx]:
    """Run it in a directory of its own; `more` goes into its server block."""
    (directory / "files").mkdir(parents=True)
    (directory / "files/page.html").write_text("<p>" + "x" * 600 + "</p>\n", "ascii")
    directory.chmod(0o755)
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(
        CONFIG.format(directory=directory, port=port, keepalive_requests=keepalive_requests, more=more), "utf-8"
    )
    command = [shutil.which("nginx") or "nginx", "-p", str(directory), "-c", str(config), "-e", "stderr"]
    with (directory / "stderr.log").open("wb") as log:
        server = Nginx(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log), directory, port)
    try:
        _wait_open(server)
        yield server
    finally:
        server.stop()


def _wait_open(server: Nginx) -> None:
    deadline_s = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
        except OSError:
            assert server.process.poll() is None, (server.directory / "stderr.log").read_text()
            assert time.monotonic() < deadline_s, "nginx does not listen"
            time.sleep(0.02)
        else:
            return
