"""The embedded store: spans/s over OTLP/HTTP, and how long its questions take on a filled file.

    python bench/store.py [ROUNDS]

The store is a process of its own, as `ebbflow store` runs it; the sender keeps two requests of 8,000 spans (14
attributes each, protobuf, gzip) under way, made beforehand. Every request has its own spans and is answered when they
are on disk. Questions are asked over HTTP on a file of `FILLED_SPANS`.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.figures import Figure
from ebbflow.broker import free_port
from ebbflow.store.samples import make_http_spans, make_request

SPANS = 8_000
REQUESTS = 10
UNDER_WAY = 2
FILLED_SPANS = 1_000_000
HEADERS = {"content-type": "application/x-protobuf", "content-encoding": "gzip"}
STEP_NS = 20_000  # between spans: 50,000 a second


@contextmanager
def running(directory: Path) -> Iterator[httpx.Client]:
    """A store process on an empty file, and a client of it."""
    port = free_port()
    options = [f"store.port={port}", f"store.path={directory / 'store.duckdb'}", "log.level=warning"]
    command = [sys.executable, "-c", "from ebbflow.cli import main; main()"]
    process = subprocess.Popen([*command, *(part for option in options for part in ("--set", option)), "store"])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            wait_ready(client)
            yield client
    finally:
        process.terminate()
        process.wait(10)


def wait_ready(client: httpx.Client) -> None:
    for _ in range(500):
        try:
            if client.get("/readyz").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.02)
    raise SystemExit("the store did not start")


def bodies(count: int, first_ns: int) -> list[bytes]:
    """Requests whose spans follow one another in time."""
    made = []
    for number in range(count):
        spans = make_http_spans(
            SPANS, seed=first_ns + number, start_ns=first_ns + number * SPANS * STEP_NS, step_ns=STEP_NS
        )
        made.append(gzip.compress(make_request(spans).SerializeToString(), 1))
    return made


def send(client: httpx.Client, requests: list[bytes]) -> float:
    """Seconds until all are answered."""

    def post(body: bytes) -> None:
        client.post("/v1/traces", content=body, headers=HEADERS).raise_for_status()

    started = time.perf_counter()
    with ThreadPoolExecutor(UNDER_WAY) as pool:
        list(pool.map(post, requests))
    return time.perf_counter() - started


def fill(client: httpx.Client) -> str:
    """Send until the file has `FILLED_SPANS`; a trace id that is in it."""
    count = FILLED_SPANS // SPANS
    start_ns = time.time_ns() - count * SPANS * STEP_NS
    for number in range(0, count, REQUESTS):
        send(client, bodies(REQUESTS, start_ns + number * SPANS * STEP_NS))
    return json.loads(client.get("/api/traces", params={"limit": 1}).text)["trace_id"]


def milliseconds(client: httpx.Client, path: str, rounds: int) -> list[float]:
    def once() -> float:
        started = time.perf_counter()
        client.get(path).raise_for_status()
        return 1000 * (time.perf_counter() - started)

    once()
    return [once() for _ in range(rounds)]


def figures(rounds: int = 5) -> list[Figure]:
    """All figures of the store, each over `rounds` rounds."""
    with tempfile.TemporaryDirectory() as directory, running(Path(directory)) as client:
        rates = []
        for number in range(rounds):
            requests = bodies(REQUESTS, (number + 1) * 10**15)
            rates.append(REQUESTS * SPANS / send(client, requests))
    with tempfile.TemporaryDirectory() as directory, running(Path(directory)) as client:
        trace_id = fill(client)
        size = Path(directory, "store.duckdb").stat().st_size
        questions = {
            "newest 100": "/api/traces",
            "slower than 19.9 ms, newest 100": "/api/traces?slower_than_ns=19900000",
            "one trace": f"/api/traces/{trace_id}",
            "top over 10 s": "/api/top?window_s=10",
        }
        asked = [Figure(f"store, {name}", milliseconds(client, path, rounds), "ms") for name, path in questions.items()]
    return [
        Figure("store, ingest over OTLP/HTTP", rates, "spans/s"),
        *asked,
        Figure("store, file", [size / FILLED_SPANS], "bytes/span"),
    ]


if __name__ == "__main__":
    for each in figures(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
        print(each.line())
