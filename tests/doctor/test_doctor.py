import pytest

from ebbflow import doctor
from ebbflow.config import Config, HealthConfig, KafkaConfig, OtlpConfig, StoreConfig
from ebbflow.doctor import Check, Status
from ebbflow.doctor.check import note, ok
from ebbflow.kernel.check import MECHANISMS, Attempt


@pytest.fixture
def services(monkeypatch):
    """No foreign service, and none of this machine's state but what is free to read."""
    monkeypatch.setattr(doctor.services, "kafka", lambda config: note("kafka", "away", reachable=False))
    monkeypatch.setattr(doctor.services, "otlp", lambda config, store: note("otlp", "away"))
    monkeypatch.setattr(doctor.machine, "java", lambda needed: ok("java", "17", needed=needed))
    monkeypatch.setattr(doctor.machine, "port", lambda name, host, number, setting: ok(f"port.{name}", str(number)))


def programs():
    return [Attempt(name, ok=True, detail="50 hits") for name in MECHANISMS]


def test_examine_names_are_stable_and_ordered(services, tmp_path):
    names = [check.name for check in doctor.examine(Config(), root=tmp_path, programs=programs)]
    assert names == [
        "kernel", "architecture", "btf", "tracefs", "lockdown", "capabilities", "perf_event_paranoid",
        "unprivileged_bpf_disabled", "headers", *(f"program.{name}" for name in MECHANISMS),
        "clock", "memory", "disk", "java", "kafka.jars", "kafka",
        "port.kafka", "port.kafka_controller", "port.store", "otlp",
    ]  # fmt: skip


def test_examine_every_failure_has_a_hint(services, tmp_path):
    def none():
        return [Attempt(name, ok=False, detail="Operation not permitted") for name in MECHANISMS]

    failures = [check for check in doctor.examine(Config(), root=tmp_path, programs=none) if check.status == "fail"]
    assert {"btf", "tracefs", "capabilities", "headers", "program.raw_tracepoint"} <= {check.name for check in failures}
    assert all(check.hint for check in failures)


def find(checks, name):
    return next((check for check in checks if check.name == name), None)


def test_examine_kafka_elsewhere_needs_no_java_and_no_ports(services, tmp_path):
    config = Config(kafka=KafkaConfig(bootstrap="kafka.example:9092"))
    checks = doctor.examine(config, root=tmp_path, programs=programs)
    assert not find(checks, "java").needed
    assert not find(checks, "kafka.jars").needed
    assert find(checks, "port.kafka") is None


def test_examine_ports_follow_the_settings(services, tmp_path):
    config = Config(
        otlp=OtlpConfig(endpoint="http://backend:4318"),
        store=StoreConfig(port=5),
        health=HealthConfig(producer_port=9101),
    )
    checks = doctor.examine(config, root=tmp_path, programs=programs)
    ports = {check.name: check.value for check in checks if check.name.startswith("port.")}
    assert ports == {"port.producer": "9101", "port.kafka": "19092", "port.kafka_controller": "19093"}


def test_main_job_problems_are_needed_failures_only(monkeypatch):
    checks = [
        Check(name="a", status=Status.FAIL, value="", needed=True, hint="mend it"),
        Check(name="b", status=Status.FAIL, value="", hint="mend it"),
        Check(name="c", status=Status.NOTE, value="", needed=True),
    ]
    monkeypatch.setattr(doctor, "examine", lambda config: checks)
    assert [check.name for check in doctor.main_job_problems(Config())] == ["a"]
