"""The store as its own process: other people's OTLP clients, kill -9, signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ebbflow.broker import free_port
from ebbflow.config import StoreConfig
from ebbflow.store.client import connect
from ebbflow.store.queries import SpanFilter
from ebbflow.store.samples import make_http_spans, make_request

MAIN = "from ebbflow.cli import main; main()"
START_S = 20.0
HEADERS = {"content-type": "application/x-protobuf"}


@dataclass
class Process:
    """A store that runs, and commands that ask it."""

    config: StoreConfig
    running: subprocess.Popen[bytes]

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.config.port}"

    def post(self, body: bytes) -> int:
        """Status of the answer; 0 when there is none."""
        url = f"http://{self.endpoint}/v1/traces"
        try:
            return httpx.post(url, content=body, headers=HEADERS, timeout=10, trust_env=False).status_code
        except httpx.TransportError:
            return 0

    def spans(self) -> list[dict]:
        with connect(self.config) as reader:
            return [json.loads(line) for line in reader.spans(SpanFilter(limit=0))]


def wait_ready(process: Process) -> None:
    deadline = time.monotonic() + START_S
    while process.running.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"http://{process.endpoint}/readyz", trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.02)
    pytest.fail(f"the store did not start, status {process.running.poll()}", pytrace=False)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Starts stores, each on the same file and port as the one before."""
    config = StoreConfig(port=free_port(), path=tmp_path / "store.duckdb")
    options = ["--set", f"store.port={config.port}", "--set", f"store.path={config.path}"]
    started: list[Process] = []

    def run() -> Process:
        running = subprocess.Popen([sys.executable, "-c", MAIN, *options, "store"])
        started.append(Process(config, running))
        wait_ready(started[-1])
        return started[-1]

    yield run
    for process in started:
        process.running.kill()
        process.running.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_store_signal_ends_it_within_its_time(start, number):
    process = start()
    assert process.post(make_request(make_http_spans(10, seed=1)).SerializeToString()) == 200
    process.running.send_signal(number)
    process.running.wait(5)
    assert not process.config.path.with_name("store.duckdb.wal").exists()
    assert len(process.spans()) == 10


@pytest.mark.slow
def test_store_killed_in_mid_load_keeps_what_it_answered_for_and_shows_repeats_once(start):
    bodies = [make_request(make_http_spans(200, seed=n)).SerializeToString() for n in range(40)]
    answered = 0
    for round_number in range(4):
        process = start()
        for body in bodies[round_number * 10 :]:
            if answered >= (round_number + 1) * 10:
                os.kill(process.running.pid, signal.SIGKILL)
            answered += process.post(body) == 200
            if process.running.poll() is not None:
                break
        process.running.kill()
        process.running.wait()
        assert len(process.spans()) >= 200 * min(answered, 10 * (round_number + 1))
    process = start()
    assert [process.post(body) for body in bodies] == [200] * 40
    spans = process.spans()
    assert len(spans) == len({(span["trace_id"], span["span_id"]) for span in spans}) == 40 * 200


@pytest.mark.slow
def test_store_second_one_on_the_same_port_says_so_in_one_line(start):
    process = start()
    options = ["--set", f"store.port={process.config.port}", "--set", f"store.path={process.config.path}"]
    second = subprocess.run(
        [sys.executable, "-c", MAIN, *options, "store"], capture_output=True, text=True, check=False
    )
    assert second.returncode == 2
    lines = second.stderr.splitlines()
    assert lines[0].startswith(f"error: cannot listen on {process.endpoint}")
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2


@pytest.mark.tools
def test_store_takes_telemetrygen(start, telemetrygen):
    process = start()
    subprocess.run(
        [
            telemetrygen, "traces", "--otlp-http", "--otlp-insecure", "--otlp-endpoint", process.endpoint,
            "--traces", "50", "--child-spans", "2", "--rate", "0", "--service", "generated", "--status-code", "Error",
            "--telemetry-attributes", 'k="v"',
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    spans = process.spans()
    assert len(spans) == 150
    assert {span["resource"]["service.name"] for span in spans} == {"generated"}
    assert {span["kind"] for span in spans} == {"client", "server"}
    assert {span["attributes"]["k"] for span in spans} == {"v"}
    known = {span["span_id"] for span in spans} | {""}
    assert all(span["parent_span_id"] in known for span in spans)


COLLECTOR = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{receiver}"}}}}}}}}
exporters:
  otlp_http:
    endpoint: http://{endpoint}
    encoding: {encoding}
    compression: {compression}
    sending_queue: {{enabled: false}}
    retry_on_failure: {{enabled: false}}
service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}}}
"""


@pytest.mark.tools
@pytest.mark.parametrize(("encoding", "compression"), [("proto", "gzip"), ("json", "gzip"), ("json", "none")])
def test_store_takes_what_a_collector_sends(start, collector, encoding, compression):
    process, receiver = start(), free_port()
    running = collector(
        COLLECTOR.format(receiver=receiver, endpoint=process.endpoint, encoding=encoding, compression=compression)
    )
    request = make_request(make_http_spans(100, seed=5))
    url = f"http://127.0.0.1:{receiver}/v1/traces"
    answer = httpx.post(url, content=request.SerializeToString(), headers=HEADERS, trust_env=False)
    assert answer.status_code == 200, running.log
    sent = request.resource_spans[0].scope_spans[0].spans
    found = {span["span_id"]: span for span in process.spans()}
    assert found.keys() == {span.span_id.hex() for span in sent}
    for span in sent:
        stored = found[span.span_id.hex()]
        assert stored["trace_id"] == span.trace_id.hex()
        assert stored["start_unix_nano"] == span.start_time_unix_nano
        assert stored["attributes"] == {a.key: a.value.string_value or a.value.int_value for a in span.attributes}
