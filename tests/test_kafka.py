import logging
import socket
import ssl
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import pytest

from ebbflow import kafka as our_kafka
from ebbflow.config import KafkaConfig
from ebbflow.errors import ConfigError, NetworkError
from ebbflow.topics import CATALOGUE, topic


@pytest.fixture
def nobody() -> KafkaConfig:
    """A bootstrap address where nothing listens: the port is taken, and not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield KafkaConfig(bootstrap=f"127.0.0.1:{taken.getsockname()[1]}")


def test_aiokafka_options_plain_has_only_the_address():
    assert our_kafka.aiokafka_options(KafkaConfig(bootstrap="a:1,b:2")) == {
        "bootstrap_servers": "a:1,b:2",
        "client_id": "ebbflow",
        "security_protocol": "PLAINTEXT",
    }


def test_aiokafka_options_sasl_ssl_has_credentials_and_context():
    config = KafkaConfig(
        security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="u", sasl_password="p"
    )
    options = our_kafka.aiokafka_options(config)
    assert (options["sasl_mechanism"], options["sasl_plain_username"], options["sasl_plain_password"]) == (
        "SCRAM-SHA-512",
        "u",
        "p",
    )
    assert options["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert options["ssl_context"].check_hostname


def test_aiokafka_options_missing_ca_is_a_config_error(tmp_path):
    config = KafkaConfig(security_protocol="SSL", ssl_cafile=tmp_path / "none.pem")
    with pytest.raises(ConfigError, match=r"\[kafka\] CA bundle .*none\.pem"):
        our_kafka.aiokafka_options(config)


def test_librdkafka_options_plain_has_only_the_address():
    assert our_kafka.librdkafka_options(KafkaConfig(bootstrap="a:1")) == {
        "bootstrap.servers": "a:1",
        "client.id": "ebbflow",
        "security.protocol": "PLAINTEXT",
    }


def test_librdkafka_options_sasl_ssl_names_files_and_credentials(tmp_path):
    config = KafkaConfig(
        security_protocol="SASL_SSL",
        sasl_username="u",
        sasl_password="p",
        ssl_cafile=tmp_path / "ca.pem",
        ssl_certfile=tmp_path / "c.pem",
    )
    assert our_kafka.librdkafka_options(config) == {
        "bootstrap.servers": "127.0.0.1:19092",
        "client.id": "ebbflow",
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(tmp_path / "ca.pem"),
        "ssl.certificate.location": str(tmp_path / "c.pem"),
        "sasl.mechanism": "PLAIN",
        "sasl.username": "u",
        "sasl.password": "p",
    }


async def test_check_reachable_nobody_there_raises_with_hint(nobody):
    with pytest.raises(NetworkError, match=f"no broker answers at {nobody.bootstrap}$") as caught:
        await our_kafka.check_reachable(nobody, 5)
    assert "ebbflow doctor" in caught.value.hint


async def test_check_reachable_secured_says_it_may_be_the_credentials(nobody):
    config = nobody.model_copy(update={"security_protocol": "SASL_PLAINTEXT"})
    with pytest.raises(NetworkError, match="or it refuses us"):
        await our_kafka.check_reachable(config, 5)


async def test_check_reachable_silent_peer_gives_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = KafkaConfig(bootstrap=f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(NetworkError, match=r"no answer from .* in 0\.05 s"):
            await our_kafka.check_reachable(config, 0.05)


def test_quiet_clients_restores_the_level():
    logger = logging.getLogger("aiokafka")
    before = logger.level
    with our_kafka.quiet_clients():
        assert not logger.isEnabledFor(logging.CRITICAL)
    assert logger.level == before


def test_differences_topic_as_wanted_has_none():
    entry = topic("otlp_spans")
    assert list(our_kafka._differences(entry, KafkaConfig(), 4, entry.settings())) == []


def test_differences_name_partitions_and_settings():
    entry = topic("ebbflow.dlq")
    assert list(our_kafka._differences(entry, KafkaConfig(), 4, {**entry.settings(), "retention.ms": "5"})) == [
        "partitions is 4, should be 1",
        "retention.ms is 5, should be 604800000",
    ]


class FakeAdmin:
    """A cluster with the topics in `there` (name to partitions); leaders are there at the second look."""

    there: ClassVar[dict[str, int]] = {}
    refuses: ClassVar[dict[str, tuple[int, str]]] = {}
    leaderless: ClassVar[bool] = False

    def __init__(self, **_options) -> None:
        self.looks = 0
        self.closed = 0

    async def start(self): ...

    async def close(self): ...

    async def describe_cluster(self):
        return {"brokers": [{"host": "h", "port": 1}, {"host": "i", "port": 2}]}

    async def list_topics(self):
        return list(self.there)

    async def create_topics(self, new, timeout_ms):
        del timeout_ms
        errors = [(t.name, *self._create(t)) for t in new]
        return SimpleNamespace(topic_errors=errors)

    def _create(self, new):
        if new.name in self.refuses:
            return self.refuses[new.name]
        if new.name in self.there:
            return (36, "exists")
        self.there[new.name] = new.num_partitions
        return (0, None)

    async def describe_topics(self):
        self.looks += 1
        leader = -1 if self.leaderless or self.looks == 1 else 1
        return [
            {"topic": name, "error_code": 0, "partitions": [{"leader": leader}] * count}
            for name, count in {**self.there, "foreign": 1}.items()
        ]

    async def describe_configs(self, resources):
        entries = {resource.name: topic(resource.name).settings() for resource in resources}
        return [SimpleNamespace(resources=[(0, None, 2, name, list(pairs.items()))]) for name, pairs in entries.items()]


@pytest.fixture
def fake_admin(monkeypatch):
    made = type("Admin", (FakeAdmin,), {"there": {}, "refuses": {}, "leaderless": False})
    monkeypatch.setattr(our_kafka, "AIOKafkaAdminClient", made)
    monkeypatch.setattr(our_kafka, "_LEADER_POLL_S", 0)
    return made


async def test_check_reachable_tells_brokers_and_topics(fake_admin):
    fake_admin.there = {"a": 1}
    assert await our_kafka.check_reachable(KafkaConfig()) == our_kafka.Cluster(("h:1", "i:2"), frozenset({"a"}))


async def test_create_topics_creates_what_is_missing_and_compares_the_rest(fake_admin):
    fake_admin.there = {"otlp_spans": 2}
    states = await our_kafka.create_topics(KafkaConfig())
    assert [state.name for state in states] == [entry.name for entry in CATALOGUE]
    assert {state.name: state.problems for state in states if not state.created} == {
        "otlp_spans": ("partitions is 2, should be 4",)
    }
    assert fake_admin.there["ebbflow.raw.sockets"] == 4


async def test_create_topics_all_new_asks_for_no_settings(fake_admin):
    states = await our_kafka.create_topics(KafkaConfig(), [topic("otlp_spans")])
    assert states == [our_kafka.TopicState("otlp_spans", True, 4)]


async def test_create_topics_refusal_names_topic_and_reason(fake_admin):
    fake_admin.refuses = {"otlp_spans": (38, "replication factor 3 of 1 brokers")}
    with pytest.raises(ConfigError, match=r"create topic otlp_spans: replication factor 3 of 1 brokers"):
        await our_kafka.create_topics(KafkaConfig(), [topic("otlp_spans")])


async def test_create_topics_without_leaders_gives_up_in_time(fake_admin):
    fake_admin.leaderless = True
    with pytest.raises(NetworkError, match=r"without a leader after 0\.05 s: otlp_spans"):
        await our_kafka.create_topics(KafkaConfig(), [topic("otlp_spans")], timeout_s=0.05)


async def test_make_producer_is_idempotent_and_waits_for_all_replicas():
    producer = our_kafka.make_producer(KafkaConfig(), linger_ms=5)
    assert producer._sender._acks == -1
    assert producer._txn_manager is not None
    await producer.stop()


async def test_make_consumer_commits_only_when_told():
    consumer = our_kafka.make_consumer(KafkaConfig(), group_id="g")
    assert (consumer._enable_auto_commit, consumer._auto_offset_reset) == (False, "earliest")
    await consumer.stop()


@pytest.mark.kafka
async def test_create_topics_twice_creates_once(kafka):

    config = KafkaConfig(bootstrap=kafka)
    await our_kafka.create_topics(config)
    again = await our_kafka.create_topics(config)
    assert [(state.name, state.created, state.problems) for state in again] == [
        (entry.name, False, ()) for entry in CATALOGUE
    ]
    cluster = await our_kafka.check_reachable(config)
    assert {entry.name for entry in CATALOGUE} <= cluster.topics


@pytest.mark.kafka
async def test_create_topics_other_partitions_are_reported(kafka):

    await our_kafka.create_topics(KafkaConfig(bootstrap=kafka), [topic("otlp_spans")])
    (state,) = await our_kafka.create_topics(KafkaConfig(bootstrap=kafka, partitions=7), [topic("otlp_spans")])
    assert state.problems == ("partitions is 4, should be 7",)


@pytest.mark.kafka
async def test_create_topics_refused_names_the_topic_and_the_reason(kafka):

    config = KafkaConfig(bootstrap=kafka, replication_factor=3)
    with pytest.raises(ConfigError, match=r"create topic .*refused.*: .*replication") as caught:
        await our_kafka.create_topics(config, [_renamed("refused.by.broker")])
    assert caught.value.hint


def _renamed(name: str):
    return replace(topic("otlp_spans"), name=name)
