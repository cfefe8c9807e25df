"""Tiers, and the real services that tests of the upper tiers talk to.

A test without a marker needs neither root nor a broker. The others say what they need; what this machine lacks is told
in one line at the end, and with CI=true it is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from ebbflow.broker import LIBS, LocalKafka, free_port

CHECKOUT = Path(__file__).parents[1]
TOOLS = CHECKOUT / ".cache/tools/bin"
COLLECTOR_START_S = 20.0


def lacks_bpf() -> str:
    if os.geteuid() != 0:
        return "root"
    if find_spec("bcc") is None:
        return "python3-bpfcc"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "a kernel with BTF"
    return "" if Path("/sys/kernel/tracing/events").exists() else "tracefs at /sys/kernel/tracing"


def lacks_kafka() -> str:
    if shutil.which("java") is None:
        return "Java"
    return "" if any(LIBS.glob("kafka_*.jar")) else "Kafka's jars (make setup)"


def lacks_tools() -> str:
    missing = [name for name in ("otelcol", "telemetrygen") if not (TOOLS / name).exists()]
    return f"{' and '.join(missing)} (make tools)" if missing else ""


def lacks_e2e() -> str:
    return lacks_bpf() or lacks_kafka() or next((name for name in ("nginx", "wrk") if shutil.which(name) is None), "")


def lacks_docker() -> str:
    return "" if shutil.which("docker") else "docker"


def lacks_vm() -> str:
    if shutil.which("qemu-system-x86_64") is None:
        return "qemu-system-x86_64"
    return "" if any((CHECKOUT / ".cache/vm").glob("*/vmlinuz")) else "a kernel to boot (scripts/setup vm)"


TIERS: dict[str, Callable[[], str]] = {
    "bpf": lacks_bpf,
    "kafka": lacks_kafka,
    "tools": lacks_tools,
    "e2e": lacks_e2e,
    "docker": lacks_docker,
    "vm": lacks_vm,
}
_missing = pytest.StashKey[dict[str, str]]()


@pytest.hookimpl(trylast=True)  # after -m and -k
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tiers that cannot run here; in CI leave them in, to fail."""
    used = {mark.name for item in items for mark in item.iter_markers()}
    missing = {tier: what for tier, lacks in TIERS.items() if tier in used and (what := lacks())}
    config.stash[_missing] = missing
    if missing and os.environ.get("CI") != "true":
        left_out = [item for item in items if missing.keys() & {mark.name for mark in item.iter_markers()}]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for tier, what in item.config.stash.get(_missing, {}).items():
        if item.get_closest_marker(tier):
            pytest.fail(f"the tier {tier} cannot run: this machine lacks {what}", pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for tier, what in config.stash.get(_missing, {}).items():
        terminalreporter.write_line(f"tier {tier} did not run: this machine lacks {what}")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real, empty Apache Kafka; one for the whole session, so name topics and groups of your own."""
    broker = LocalKafka(tmp_path_factory.mktemp("kafka"), free_port(), free_port())
    try:
        broker.start()
        broker.wait_ready()
        yield broker.bootstrap
    finally:
        broker.stop()


@dataclass(frozen=True)
class Collector:
    """A running OpenTelemetry Collector."""

    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    def stop(self) -> None:
        """SIGTERM flushes its exporters."""
        self.process.terminate()
        self.process.wait(15)

    def wait_healthy(self, port: int) -> None:
        deadline = time.monotonic() + COLLECTOR_START_S
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/", timeout=1).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        pytest.fail(f"the Collector did not start:\n{self.log[-2000:]}", pytrace=False)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Callable[..., Collector]]:
    """Start Collectors: `collector(yaml, "--feature-gates=...")` returns a healthy one, stopped after the test.

    The configuration needs receivers, exporters and service.pipelines; the health check is added to it, and its own
    metrics are off, so that several run side by side.
    """
    started: list[Collector] = []

    def start(config: str, *arguments: str) -> Collector:
        port, number = free_port(), len(started)
        config_file, log_file = tmp_path / f"otelcol-{number}.yaml", tmp_path / f"otelcol-{number}.log"
        config_file.write_text(config, "utf-8")
        overlay = (
            f"yaml:{{extensions: {{health_check: {{endpoint: '127.0.0.1:{port}'}}}},"
            " service: {extensions: [health_check], telemetry: {metrics: {level: none}}}}"
        )
        command = [TOOLS / "otelcol", f"--config={config_file}", f"--config={overlay}", *arguments]
        with log_file.open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        running = Collector(process, log_file)
        started.append(running)
        running.wait_healthy(port)
        return running

    yield start
    for running in started:
        running.stop()


@pytest.fixture(scope="session")
def telemetrygen() -> Path:
    """The OpenTelemetry project's own load generator."""
    return TOOLS / "telemetrygen"
