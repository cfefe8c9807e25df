from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from ebbflow import broker as module
from ebbflow.broker import LocalKafka, free_port, last_words, require_free_port
from ebbflow.errors import ConfigError, DependencyError, PermissionDenied

CHECKOUT = Path(__file__).parents[1]
# Stands in for java: what it does is decided by the script's text.
FAKE_JAVA = '#!/bin/sh\ncase "$*" in *StorageTool*) touch data/meta.properties; exit 0;; esac\n{body}\n'


@pytest.fixture
def fake(tmp_path):
    """A broker whose Java is a shell script."""
    libs, java = tmp_path / "libs", tmp_path / "java"
    libs.mkdir()
    (libs / "kafka_2.13.jar").touch()

    def make(body: str, text: str = FAKE_JAVA) -> LocalKafka:
        java.write_text(text.replace("{body}", body))
        java.chmod(0o755)
        return LocalKafka(tmp_path / "data", free_port(), free_port(), libs=libs, java=str(java))

    return make


@contextmanager
def listener():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def wait_for_exit(broker: LocalKafka) -> None:
    broker._process.wait(10)


def test_require_free_port_taken_port_is_named():
    with listener() as port, pytest.raises(ConfigError, match=f"127.0.0.1:{port}: address already in use") as caught:
        require_free_port(port)
    assert f"sport = :{port}" in caught.value.hint


def test_require_free_port_free_port_is_left_free():
    port = free_port()
    require_free_port(port)
    require_free_port(port)
    assert port > 1023


@pytest.mark.parametrize("which", ["port", "controller_port"])
def test_start_port_taken_is_an_error_before_anything_is_written(tmp_path, fake, which):
    with listener() as port:
        broker = fake("exec sleep 60")
        setattr(broker, which, port)
        with pytest.raises(ConfigError, match=str(port)):
            broker.start()
    assert not (tmp_path / "data").exists()


def test_start_without_java_says_what_to_do(tmp_path):
    with pytest.raises(DependencyError, match="needs Java, and there is no no-such-java") as caught:
        LocalKafka(tmp_path, 1, 2, java="no-such-java").start()
    assert "make setup" in caught.value.hint


def test_start_without_jars_says_what_to_do(tmp_path):
    with pytest.raises(DependencyError, match="Kafka's jars are not in") as caught:
        LocalKafka(tmp_path, 1, 2, libs=tmp_path, java="sh").start()
    assert "make setup" in caught.value.hint


def test_start_directory_that_cannot_be_made_is_named(fake, tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(PermissionDenied, match=r"data: (File exists|Not a directory)"):
        fake("").start()


def test_start_disk_almost_full_is_an_error(fake, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=5 << 20)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(DependencyError, match=r"has no room in .*: 5 MiB free") as caught:
        fake("").start()
    assert "--data-dir" in caught.value.hint


def test_start_writes_configuration_and_formats_once(fake, tmp_path):
    broker = fake("exec sleep 60")
    broker.start()
    try:
        properties = (tmp_path / "data/server.properties").read_text()
        assert f"listeners=PLAINTEXT://127.0.0.1:{broker.port}," in properties
        assert f"log.dirs={tmp_path}/data/data\n" in properties
        assert "$" not in properties
        assert broker.running
        broker.check_alive()
    finally:
        broker.stop()
    assert not broker.running


def test_start_again_keeps_the_log_of_the_time_before(fake, tmp_path):
    broker = fake("echo one run; exec sleep 60")
    for _ in range(2):
        broker.start()
        broker.kill()
    assert (tmp_path / "data/kafka.log.1").exists()
    assert broker.bootstrap == f"127.0.0.1:{broker.port}"


def test_start_format_fails_tells_the_log(fake):
    broker = fake("", text="#!/bin/sh\necho 'Exception in thread: bad cluster id' >&2\nexit 1\n")
    with pytest.raises(DependencyError, match="Kafka ended: Exception in thread: bad cluster id"):
        broker.start()


def test_check_alive_broker_that_ended_tells_its_last_words(fake):
    broker = fake("echo '2026-01-01T00:00:00.000 [main] ERROR kafka.Kafka$ - Exiting due to fatal exception'; exit 1")
    broker.start()
    wait_for_exit(broker)
    with pytest.raises(DependencyError) as caught:
        broker.check_alive()
    assert str(caught.value) == "Kafka ended: Exiting due to fatal exception"
    assert str(broker.log_file) in caught.value.hint


def test_check_alive_broker_that_was_killed_names_the_signal(fake):
    broker = fake("exec sleep 60")
    broker.start()
    os.kill(broker.pid, signal.SIGKILL)
    wait_for_exit(broker)
    with pytest.raises(DependencyError, match=r"^Kafka ended by SIGKILL$"):
        broker.check_alive()


def test_check_alive_disk_full_in_the_log_is_told_as_such(fake):
    broker = fake("echo 'java.io.IOException: No space left on device'; exit 1")
    broker.start()
    wait_for_exit(broker)
    with pytest.raises(DependencyError, match="Kafka has no room in"):
        broker.check_alive()


def test_wait_ready_broker_that_ends_is_not_waited_for(fake):
    broker = fake("exit 1")
    broker.start()
    wait_for_exit(broker)
    started = time.monotonic()
    with pytest.raises(DependencyError, match="Kafka ended"):
        broker.wait_ready(timeout_s=60)
    assert time.monotonic() - started < 30


@pytest.mark.slow
def test_wait_ready_broker_that_never_answers_is_given_up(fake):
    broker = fake("exec sleep 60")
    broker.start()
    try:
        with pytest.raises(DependencyError, match=r"does not answer after 0\.1 s"):
            broker.wait_ready(timeout_s=0.1)
    finally:
        broker.stop()


def test_wait_ready_broker_of_one_s_own_is_ready_when_it_lists_itself(fake, monkeypatch):
    answers = iter([{}, {1: "broker"}])

    def list_topics(_client, timeout):
        assert timeout < 1
        return SimpleNamespace(brokers=next(answers))

    monkeypatch.setattr(
        module, "AdminClient", type("Client", (), {"__init__": lambda *_: None, "list_topics": list_topics})
    )
    broker = fake("exec sleep 60")
    broker.start()
    try:
        broker.wait_ready()
    finally:
        broker.kill()
    assert next(answers, "asked until it was there") == "asked until it was there"


def test_start_storage_without_room_is_told_as_such(fake, monkeypatch):
    def mkdir(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.Path, "mkdir", mkdir)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: SimpleNamespace(free=0))
    with pytest.raises(DependencyError, match=r"has no room in .*: 0 MiB free"):
        fake("").start()


def test_stop_broker_that_ignores_sigterm_is_killed(fake):
    broker = fake("trap '' TERM; echo ready; while :; do sleep 0.02; done")
    broker.start()
    while "ready" not in broker.log_file.read_text():
        time.sleep(0.005)
    broker.stop(timeout_s=0.05)
    assert broker._process.returncode == -signal.SIGKILL


def test_stop_and_kill_without_start_do_nothing(fake):
    broker = fake("")
    broker.stop()
    broker.kill()
    assert not broker.running
    with pytest.raises(DependencyError, match="was not started"):
        _ = broker.pid


def test_last_words_are_the_last_different_errors_without_frames():
    log = """\
2026-01-01T00:00:00.000 [main] INFO kafka.server.KafkaConfig - nothing to see
2026-01-01T00:00:00.001 [main] ERROR kafka.A - [KafkaServer id=1] first
2026-01-01T00:00:00.002 [main] ERROR kafka.A - [KafkaServer id=1] second
java.lang.RuntimeException: why
\tat java.lang.Error.frame(Error.java:1)
2026-01-01T00:00:00.003 [main] ERROR kafka.B - second
2026-01-01T00:00:00.004 [x] ERROR kafka.B - third
"""
    assert last_words(log) == "second | java.lang.RuntimeException: why | third"


def test_last_words_of_a_quiet_log_are_none():
    assert last_words("[main] INFO all is well\n") == ""


@pytest.fixture
def real(tmp_path):
    broker = LocalKafka(tmp_path / "kafka", free_port(), free_port())
    yield broker
    broker.stop()


@pytest.mark.kafka
def test_broker_killed_and_started_again_keeps_its_topics(real, tmp_path):
    real.start()
    real.wait_ready()
    admin = AdminClient({"bootstrap.servers": real.bootstrap})
    admin.create_topics([NewTopic("kept", 2)])["kept"].result(20)
    real.kill()
    assert not real.running
    real.start()
    real.wait_ready()
    topics = AdminClient({"bootstrap.servers": real.bootstrap}).list_topics(timeout=10).topics
    assert len(topics["kept"].partitions) == 2
    real.stop()
    assert list((tmp_path / "kafka/tmp").iterdir()) == []


@pytest.mark.kafka
def test_broker_with_damaged_storage_tells_why_in_one_line(real, tmp_path):
    (tmp_path / "kafka/data").mkdir(parents=True)
    (tmp_path / "kafka/data/meta.properties").write_text("version=1\ncluster.id=x\nnode.id=99\n")
    real.start()
    with pytest.raises(DependencyError, match="node") as caught:
        real.wait_ready()
    assert "\n" not in str(caught.value)
    assert "\tat " not in str(caught.value)


@pytest.mark.kafka
@pytest.mark.bpf
def test_broker_disk_fills_up_is_told_as_such(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192m", "tmpfs", disk], check=True)
    broker = LocalKafka(disk, free_port(), free_port())
    try:
        broker.start()
        broker.wait_ready()
        broker.check_alive()
        with pytest.raises(OSError, match="No space left"):
            (disk / "filler").write_bytes(bytes(192 << 20))
        with pytest.raises(DependencyError, match=r"Kafka has no room in .*: 0 MiB free"):
            broker.check_alive()
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_topics([NewTopic("t", 20)])
        admin.poll(1)
        wait_for_exit(broker)
        with pytest.raises(DependencyError, match="Kafka has no room in"):
            broker.check_alive()
    finally:
        broker.kill()
        subprocess.run(["umount", disk], check=True)


@pytest.mark.kafka
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_kafka_command_leaves_no_broker_behind(tmp_path, ending):
    port, controller_port = free_port(), free_port()
    command = [sys.executable, "-m", "ebbflow.cli", "kafka", f"--data-dir={tmp_path}", f"--port={port}"]
    with subprocess.Popen(
        [*command, f"--controller-port={controller_port}"], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
    ) as process:
        assert f"Kafka is ready at 127.0.0.1:{port} (pid " in process.stdout.readline()
        process.send_signal(ending)
        assert process.wait(10) == (-9 if ending == signal.SIGKILL else 0)
        assert process.stdout.read() == ""  # its end: the broker, which shares it not, is asked for below
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            require_free_port(port)
        except ConfigError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the broker is still there")
