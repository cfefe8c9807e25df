"""A Kafka of one's own: one KRaft node from Maven's jars, for `ebbflow run`, `ebbflow kafka` and the tests.

    DIRECTORY/
     ├─ server.properties   compose/kafka/server.properties with ports and paths filled in
     ├─ data/               topics and metadata, formatted at the first start; kept between starts
     ├─ tmp/                native libraries that the broker unpacks, emptied at every start
     └─ kafka.log           of this start; kafka.log.1 is the one before

The broker ends with the thread that started it (a parent-death signal), so nothing is left behind after a kill -9 of
ebbflow; start it from a thread that stays.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from contextlib import suppress
from pathlib import Path
from string import Template

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from ebbflow.errors import ConfigError, DependencyError, PermissionDenied

_CHECKOUT = Path(__file__).parents[1]
LIBS = _CHECKOUT / ".cache/kafka/libs"
TEMPLATE = _CHECKOUT / "compose/kafka/server.properties"
SETUP_HINT = "run `make setup`, which fetches Java and Kafka"
HOST = "127.0.0.1"
# Below this a broker may start, and dies when it writes its first segments.
MIN_FREE_BYTES = 128 << 20
_FULL_BYTES = 1 << 20
# A small broker starts quickly without the optimising compiler and is not CPU-bound in a pipeline of large records.
_JVM_FLAGS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
_LOG_FLAGS = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",  # every setting, at every start
)


class LocalKafka:
    """One broker process in one directory. May be started again after it was stopped, killed or died."""

    def __init__(
        self,
        directory: Path,
        port: int,
        controller_port: int,
        heap: str = "512m",
        libs: Path = LIBS,
        java: str = "java",
    ) -> None:
        self.directory = directory.absolute()
        self.port = port
        self.controller_port = controller_port
        self._heap = heap
        self._libs = libs
        self._java = java
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def log_file(self) -> Path:
        return self.directory / "kafka.log"

    @property
    def pid(self) -> int:
        """Process id of the broker.

        Raises:
            DependencyError: it was never started.
        """
        if self._process is None:
            raise DependencyError("Kafka was not started", hint="call start() first")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Prepare the directory and start the broker; `wait_ready` says when it answers.

        Raises:
            DependencyError: no Java, no jars, no room on the disk, or storage that cannot be formatted.
            ConfigError: a port is taken.
            PermissionDenied: the directory cannot be written.
        """
        _require_program(self._java)
        _require_jars(self._libs)
        for port in (self.port, self.controller_port):
            require_free_port(port)
        self._prepare()
        if not (self.directory / "data/meta.properties").exists():
            self._format()
        self._process = self._spawn("kafka.Kafka", self._heap, str(self.directory / "server.properties"))

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return when the broker answers a metadata request and is in its own metadata.

        Raises:
            DependencyError: it ended, or does not answer in `timeout_s`; the message has its log's last words.
        """
        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200})
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.check_alive()
            if _answers(client):
                return
        raise DependencyError(
            f"Kafka at {self.bootstrap} does not answer after {timeout_s:g} s", hint=f"see {self.log_file}"
        )

    def check_alive(self) -> None:
        """Do nothing while the broker runs and has room to write.

        Raises:
            DependencyError: it ended, and the message says why, as far as its log does; or its disk is full, with which
                it may stay for a while and take nothing.
        """
        if not self.running:
            raise self._death(self._process)
        if _is_full(self.directory):
            raise _no_space(self.directory)

    def stop(self, timeout_s: float = 15.0) -> None:
        """Ask the broker to stop, and end it when it has not after `timeout_s`; one that does not run is left alone."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the broker by SIGKILL, and wait until the process is gone."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()

    def _prepare(self) -> None:
        try:
            for name in ("data", "tmp"):
                (self.directory / name).mkdir(parents=True, exist_ok=True)
            _require_space(self.directory)
            for leftover in (self.directory / "tmp").iterdir():
                leftover.unlink()
            if self.log_file.exists():
                self.log_file.replace(self.log_file.with_suffix(".log.1"))
            (self.directory / "server.properties").write_text(self._properties(), "utf-8")
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise _no_space(self.directory) from None
            raise PermissionDenied(
                f"Kafka's directory {self.directory}: {error.strerror}", hint="give a directory that can be written"
            ) from None

    def _properties(self) -> str:
        template = Template(TEMPLATE.read_text("utf-8"))
        return template.substitute(
            port=self.port, controller_port=self.controller_port, data_directory=self.directory / "data"
        )

    def _format(self) -> None:
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
        config = str(self.directory / "server.properties")
        tool = self._spawn("kafka.tools.StorageTool", "64m", "format", "-t", cluster_id, "-c", config, "-g")
        if tool.wait() != 0:
            raise self._death(tool)

    def _spawn(self, main_class: str, heap: str, *arguments: str) -> subprocess.Popen[bytes]:
        jvm = (f"-Xmx{heap}", *_JVM_FLAGS, *_LOG_FLAGS, f"-Djava.io.tmpdir={self.directory / 'tmp'}")
        command = [self._java, *jvm, "-cp", f"{self._libs}/*", main_class, *arguments]
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
            )  # fmt: skip

    def _death(self, process: subprocess.Popen[bytes] | None) -> DependencyError:
        text = self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""
        if "No space left on device" in text or _is_full(self.directory):
            return _no_space(self.directory)
        status = process.returncode if process is not None else 0
        how = f" by {signal.Signals(-status).name}" if status < 0 else ""
        words = last_words(text)
        return DependencyError(f"Kafka ended{how}{': ' if words else ''}{words}", hint=f"its log is {self.log_file}")


def free_port() -> int:
    """A port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def require_free_port(port: int) -> None:
    """Nothing, where one could listen on that port of loopback.

    Raises:
        ConfigError: somebody does already.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigError(
                f"Kafka cannot listen on {HOST}:{port}: {os.strerror(error.errno or 0).lower()}",
                hint=f"see who does with `ss -ltnp 'sport = :{port}'`, or set another port in kafka.bootstrap",
            ) from None


def last_words(log: str, limit: int = 3) -> str:
    """What a broker's log says about its end: the last different lines of errors, without stack frames."""
    lines = [_strip(line) for line in log.splitlines() if _TELLING.search(line) and not line.startswith(("\t", " "))]
    return " | ".join(list(dict.fromkeys(lines))[-limit:])


_TELLING = re.compile(r"\b(ERROR|FATAL)\b|Exception\b|Error\b|^Error: |^OpenJDK .*(fail|error)", re.IGNORECASE)


def _strip(line: str) -> str:
    """A log line without date, thread, level and logger, at most 200 characters."""
    return re.sub(r"^\S* ?\[[^\]]*\] [A-Z]+ \S+ - (\[[^\]]*\] )?", "", line).strip()[:200]


def _answers(client: AdminClient) -> bool:
    try:
        return bool(client.list_topics(timeout=0.5).brokers)
    except KafkaException:
        return False


def _require_program(name: str) -> None:
    if shutil.which(name) is None:
        raise DependencyError(f"Kafka needs Java, and there is no {name}", hint=SETUP_HINT)


def _require_jars(libs: Path) -> None:
    if not any(libs.glob("kafka_*.jar")):
        raise DependencyError(f"Kafka's jars are not in {libs}", hint=SETUP_HINT)


def _is_full(directory: Path) -> bool:
    return shutil.disk_usage(directory).free < _FULL_BYTES


def _require_space(directory: Path) -> None:
    if shutil.disk_usage(directory).free < MIN_FREE_BYTES:
        raise _no_space(directory)


def _no_space(directory: Path) -> DependencyError:
    free_mib = shutil.disk_usage(directory).free >> 20
    return DependencyError(
        f"Kafka has no room in {directory}: {free_mib} MiB free, it needs {MIN_FREE_BYTES >> 20}",
        hint=f"free some space (`df -h {directory}`), or give another directory with --data-dir",
    )
