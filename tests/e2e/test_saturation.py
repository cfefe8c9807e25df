"""At full speed every request is a span or a loss that the pipeline itself tells, to the unit."""

from __future__ import annotations

import re
import signal
import subprocess
import time

import pytest
from e2e.client import Client, Request

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

AGENT = "User-Agent: something/1.0 (rather long, as they are)"


def wrk(port: int, seconds: float, path: str = "/") -> subprocess.Popen[str]:
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", f"http://127.0.0.1:{port}{path}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def rate(load: subprocess.Popen[str]) -> float:
    """Requests per second as wrk has it, when it has ended."""
    output, _ = load.communicate(timeout=60)
    return float(re.search(r"Requests/sec:\s+([0-9.]+)", output)[1])


def account(totals: dict[str, dict[str, int]], logged: int) -> dict[str, int]:
    """What became of the requests, and what is missing."""
    requests = totals["requests"]
    losses = {name: requests.get(name, 0) for name in ("exchanges", "incomplete", "lost_exchanges")}
    return {"logged": logged, **losses, "missing": logged - sum(losses.values())}


def assert_all_accounted(pipeline, server, measured, requests_per_s: float) -> dict[str, int]:
    totals = pipeline.wait_settled(120)
    found = account(totals, len(server.lines()))
    measured(account=found, requests_per_s=requests_per_s, ledger=totals)
    assert found["missing"] == 0
    assert totals["sink.traces"]["exported"] == found["exchanges"] + found["incomplete"]
    return found


def test_full_speed_for_ten_seconds_loses_nothing_without_a_word(pipeline, nginx, measured):
    server = nginx()
    pipeline.start()
    pipeline.producer(f"pid:{server.pid}")
    requests_per_s = rate(wrk(server.port, 10))
    found = assert_all_accounted(pipeline, server, measured, requests_per_s)
    assert found["exchanges"] > 10_000


@pytest.mark.parametrize("path", ["/", "/page.html"])
def test_ring_much_too_small_loses_much_and_tells_all_of_it(pipeline, nginx, measured, path):
    server = nginx()
    pipeline.start()
    pipeline.producer(f"pid:{server.pid}", capture__ring_bytes=65536)
    requests_per_s = rate(wrk(server.port, 3, path))
    found = assert_all_accounted(pipeline, server, measured, requests_per_s)
    assert found["lost_exchanges"] > 100


def test_stopped_producer_tells_what_it_missed(pipeline, nginx, measured):
    server = nginx()
    pipeline.start()
    producer = pipeline.producer(f"pid:{server.pid}", capture__ring_bytes=1 << 20)
    load = wrk(server.port, 4)
    time.sleep(1)  # of load
    producer.process.send_signal(signal.SIGSTOP)
    time.sleep(1)
    producer.process.send_signal(signal.SIGCONT)
    found = assert_all_accounted(pipeline, server, measured, rate(load))
    assert found["lost_exchanges"] > 100


def test_producer_stopped_at_full_speed_leaves_balanced_books(pipeline, nginx, measured):
    server = nginx()
    pipeline.start()
    producer = pipeline.producer(f"pid:{server.pid}")
    load = wrk(server.port, 3)
    time.sleep(1)  # of load
    began_s = time.monotonic()
    assert producer.end() == 0
    stop_s = time.monotonic() - began_s
    rate(load)
    totals = pipeline.wait_settled()
    measured(stop_s=stop_s, ledger=totals)
    assert totals["producer.sockets"]["dropped"] == 0
    assert totals["requests"]["exchanges"] > 1000
    assert stop_s < 5


def test_pipelined_requests_beyond_the_capture_limit_are_told(pipeline, nginx, measured):
    """Twenty in one read of 2 kB, of which 1 kB is kept: the rest is counted by its size."""
    server = nginx(more="client_header_buffer_size 16k;")
    pipeline.start()
    pipeline.producer(f"pid:{server.pid}")
    with Client(server.port) as client:
        for _ in range(25):
            client.exchange([Request("GET", f"/items/{number}", headers=(AGENT,)) for number in range(20)])
    found = assert_all_accounted(pipeline, server, measured, 0)
    assert found["exchanges"] < found["logged"] == 500
