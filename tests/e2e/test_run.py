"""`ebbflow run`: two commands from nothing to spans, and nothing left in the end."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import pytest
from e2e.harness import CHECKOUT, wait_until
from e2e.running import STOP_S, Run, bpf_ids, bpf_ids_left, is_alive

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SENT = (b"demo-password", b"demo-bearer-token", b"demo-api-key", b"demo-query-token")
SECRETS = (*SENT, b"demo-session-cookie", b"demo-issued-token")
ROUTES = ("/items/{id}", "/orders", "/login", "/report", "/export", "/checkout", "/nowhere")
FIRST_SPAN = "the first is stored"


@pytest.fixture
def run(tmp_path):
    run = Run.make(tmp_path)
    yield run
    run.clean_up()


def assert_nothing_left(run, ids):
    wait_until(lambda: not any(map(is_alive, run.seen)), 1.0, "the end of all processes")
    assert bpf_ids_left(ids) == {"prog": set(), "link": set()}


def test_run_demo_shows_both_services_hides_secrets_and_leaves_nothing(run):
    run.start()
    run.wait_for(FIRST_SPAN)
    run.wait_for("/s  lost: nothing")
    wait_until(lambda: len(names(run, "shop")) == len(ROUTES), 30.0, "all routes")
    spans = run.spans()
    seen = Counter((span["resource"]["service.name"], span["kind"]) for span in spans)
    assert set(seen) == {("nginx", "server"), ("nginx", "client"), ("shop", "server")}
    statuses = {span["attributes"]["http.response.status_code"] for span in spans}
    assert statuses == {200, 201, 404, 500}

    stored = run.kafka_bytes()
    assert b"Authorization: " in stored["ebbflow.raw.sockets"]
    assert b"/items/" in stored["otlp_spans"]
    leaks = {(topic, secret) for topic, found in stored.items() for secret in SECRETS if secret in found}
    assert leaks == set()
    assert not any(secret.decode() in str(spans) for secret in SECRETS)

    producer = run.pid_of("producer")
    ids = bpf_ids(producer)
    assert ids["prog"]
    assert len(run.remember()) >= 12
    took_s = run.end(signal.SIGINT)
    assert run.process.returncode == 0, run.output
    assert took_s < STOP_S
    assert_nothing_left(run, ids)
    assert "Traceback" not in run.output


def test_run_targets_port_watches_it_and_needs_no_terminal(run, tmp_path):
    port = serve(tmp_path)
    run.start("--targets", f"port:{port.number}")
    with port:
        run.wait_for(f"watches port:{port.number}")
        for number in range(7):
            get(port.number, f"/file-{number}")
        wait_until(lambda: run.stored() >= 7, 30.0, "seven spans")
        spans = run.spans("--service", port.service)
        assert sorted(span["attributes"]["url.path"] for span in spans if span["kind"] == "server") == [
            f"/file-{number}" for number in range(7)
        ]
        assert not {"nginx", "shop"} & {span["resource"]["service.name"] for span in run.spans()}
        ids = bpf_ids(run.pid_of("producer"))
        run.remember()
        assert run.end(signal.SIGTERM) < STOP_S
    assert run.process.returncode == 0
    assert_nothing_left(run, ids)


def test_run_every_part_killed_recovers(run):
    run.start()
    run.wait_for(FIRST_SPAN)
    for name in ("processor", "sink", "producer", "store", "kafka"):
        first = run.pid_of(name)
        run.remember()
        since = time.time_ns()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda name=name, first=first: run.pid_of(name) not in {0, first}, 30.0, f"{name} started again")
        wait_until(lambda name=name: f"{name} ended" in run.output or f"{name} was killed" in run.output)
        wait_until(lambda since=since: newest(run) > since, 60.0, f"spans after {name} was killed")
    run.remember()
    ids = bpf_ids(run.pid_of("producer"))
    assert run.end() < STOP_S
    assert run.process.returncode == 0, run.output
    assert_nothing_left(run, ids)


def test_run_killed_takes_everything_along(run):
    run.start()
    run.wait_for(FIRST_SPAN)
    run.remember()
    ids = bpf_ids(run.pid_of("producer"))
    run.end(signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, run.seen)), 15.0, "the end of all processes")
    assert_nothing_left(run, ids)


def test_run_detached_is_seen_refuses_another_and_goes_down(run):
    run.start("--detach")
    assert run.process.wait(90) == 0, run.output
    directory = str(run.directory / "data")
    pids = [state.pid for state in run.supervisor.states().values()] + [run.supervisor.pid]
    run.seen |= set(pids)
    assert run.call("run", "--status", "--data-dir", directory).returncode == 0
    second = run.call("run", "--data-dir", directory)
    assert second.returncode == 2
    assert f"already (pid {run.supervisor.pid})" in second.stderr
    ids = bpf_ids(run.pid_of("producer"))
    begun_s = time.monotonic()
    assert run.call("down", "--data-dir", directory).stdout == "stopped\n"
    assert time.monotonic() - begun_s < STOP_S + 1  # the command's own start
    assert_nothing_left(run, ids)


@pytest.mark.parametrize("setting", ["kafka.bootstrap", "store.port"])
def test_run_port_taken_is_one_error_and_nothing_stays(run, setting):
    port = int(str(run.settings[setting]).rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        ended = run.call("run", "--data-dir", str(run.directory / "data"))
    assert ended.returncode == 1
    first, second = ended.stderr.splitlines()
    assert f"port {port} is taken by" in first
    assert second.startswith("hint: ")
    assert not run.supervisor.answers


def test_run_part_that_cannot_start_stops_the_rest_with_its_words(run):
    run.settings["store.path"] = "/proc/store.duckdb"
    ended = run.call("run", "--data-dir", str(run.directory / "data"))
    assert ended.returncode == 1
    assert "error: store cannot start: it ended: " in ended.stderr
    assert "hint: " in ended.stderr
    assert "stopped everything" in ended.stdout
    assert not run.supervisor.answers


def names(run, service):
    return {span["name"] for span in run.spans("--service", service)}


def newest(run) -> int:
    return max((span["end_unix_nano"] for span in run.spans("--since", "10s")), default=0)


def get(port: int, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    connection.getresponse().read()
    connection.close()


class serve:  # noqa: N801 - used as a function
    """A server of the test's own."""

    service = "my-files"

    def __init__(self, directory) -> None:
        command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", str(directory)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=CHECKOUT,
            env=os.environ | {"OTEL_SERVICE_NAME": self.service},
        )  # fmt: skip
        self.number = int(self.process.stdout.readline().split()[5])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.stdout.close()
        self.process.wait()
