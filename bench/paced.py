"""A client with a fixed rate: `python -m bench.paced PORT RATE SECONDS [CONNECTIONS]`; begins with a line on
its standard input.

Open loop on an absolute schedule: every tick each connection sends one request, then all answers are read. Prints how
many were answered and the 50th and 99th percentile of a tick in ms as JSON. One thread, blocking sockets: what it costs
is mostly system calls, as with any client.
"""

from __future__ import annotations

import json
import socket
import sys
import time

REQUEST = b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def main(port: int, rate: float, seconds: float, connections: int = 16) -> None:
    sys.stdin.readline()
    ends = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    for end in ends:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ticks = int(rate * seconds / connections)
    interval = connections / rate
    start = time.monotonic()
    took = []
    for tick in range(ticks):
        due = start + tick * interval
        delay = due - time.monotonic()
        if delay > 0:
            time.sleep(delay)
        for end in ends:
            end.send(REQUEST)
        for end in ends:
            end.recv(4096)
        took.append(time.monotonic() - max(due, time.monotonic() - 1))
    elapsed = time.monotonic() - start
    took.sort()
    print(
        json.dumps(
            {
                "requests": ticks * connections,
                "rate": ticks * connections / elapsed,
                "p50_ms": took[len(took) // 2] * 1000,
                "p99_ms": took[len(took) * 99 // 100] * 1000,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), *map(int, sys.argv[4:5]))
