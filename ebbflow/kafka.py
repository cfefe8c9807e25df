"""Kafka as everything here uses it: connection options of both clients, the topics, and whether it answers.

Delivery is decided here once: producers are idempotent and wait for all replicas. aiokafka compresses on the event
loop and at the codecs' slowest levels, so values are compressed by whoever makes them, or not at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from ebbflow.config import KafkaConfig
from ebbflow.errors import NetworkError
from ebbflow.kafka_errors import for_code, translated
from ebbflow.tls import client_context
from ebbflow.topics import CATALOGUE, Topic

CLIENT_ID = "ebbflow"
TOPIC_ALREADY_EXISTS = 36
_LEADER_POLL_S = 0.05
# Room for the record's own framing above the largest value of any topic.
_MAX_REQUEST_BYTES = max(topic.max_message_bytes for topic in CATALOGUE) + 65536


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it stands after `create_topics`; `problems` says where it is not what the catalogue wants."""

    name: str
    created: bool
    partitions: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a cluster answered: its brokers as host:port, and its topics."""

    brokers: tuple[str, ...]
    topics: frozenset[str]


def aiokafka_options(config: KafkaConfig) -> dict[str, Any]:
    """Connection options that aiokafka's consumer, producer and admin client share.

    Raises:
        ConfigError: a TLS file cannot be used.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": config.bootstrap,
        "client_id": CLIENT_ID,
        "security_protocol": config.security_protocol,
    }
    if config.security_protocol.endswith("SSL"):
        files = (config.ssl_cafile, config.ssl_certfile, config.ssl_keyfile)
        options["ssl_context"] = client_context("kafka", *files)
    if config.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = config.sasl_mechanism
        options["sasl_plain_username"] = config.sasl_username
        options["sasl_plain_password"] = config.sasl_password
    return options


def librdkafka_options(config: KafkaConfig) -> dict[str, str | int]:
    """The same for confluent-kafka, which names everything differently."""
    options: dict[str, str | int] = {
        "bootstrap.servers": config.bootstrap,
        "client.id": CLIENT_ID,
        "security.protocol": config.security_protocol,
    }
    if config.security_protocol.endswith("SSL"):
        files = {
            "ssl.ca.location": config.ssl_cafile,
            "ssl.certificate.location": config.ssl_certfile,
            "ssl.key.location": config.ssl_keyfile,
        }
        options |= {name: str(path) for name, path in files.items() if path is not None}
    if config.security_protocol.startswith("SASL"):
        options["sasl.mechanism"] = config.sasl_mechanism
        options["sasl.username"] = config.sasl_username
        options["sasl.password"] = config.sasl_password
    return options


def make_producer(config: KafkaConfig, **options: Any) -> AIOKafkaProducer:
    """An idempotent producer, not started; `options` add to aiokafka's or replace ours."""
    ours = {"acks": "all", "enable_idempotence": True, "max_request_size": _MAX_REQUEST_BYTES}
    return AIOKafkaProducer(**(aiokafka_options(config) | ours | options))


def make_consumer(config: KafkaConfig, **options: Any) -> AIOKafkaConsumer:
    """A consumer that reads from the beginning and commits only when told, not started."""
    # A group leader that joins while a broker still starts knows no partitions and gives none to anybody, until it
    # asks again: not after aiokafka's five minutes.
    ours = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "metadata_max_age_ms": 5_000}
    return AIOKafkaConsumer(**(aiokafka_options(config) | ours | options))


@asynccontextmanager
async def admin(config: KafkaConfig, timeout_s: float = 30.0) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected admin client; closed in the end, also where it never connected."""
    client = AIOKafkaAdminClient(**aiokafka_options(config), request_timeout_ms=int(timeout_s * 1000))
    try:
        await _connect(client, config)
        yield client
    finally:
        await client.close()


async def _connect(client: AIOKafkaAdminClient, config: KafkaConfig) -> None:
    try:
        with translated(f"connect to {config.bootstrap}"), quiet_clients():
            await client.start()
    except NetworkError as error:
        # aiokafka tells only its log why a broker was no use: refused, no TLS, wrong password.
        secured = "" if config.security_protocol == "PLAINTEXT" else f", or it refuses us ({config.security_protocol})"
        raise NetworkError(f"Kafka: no broker answers at {config.bootstrap}{secured}", hint=error.hint) from None


@contextmanager
def quiet_clients() -> Iterator[None]:
    """Keep aiokafka's own log out of the way where its failure is raised and told by us."""
    logger = logging.getLogger("aiokafka")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


async def check_reachable(config: KafkaConfig, timeout_s: float = 5.0) -> Cluster:
    """Ask the cluster who is there.

    Raises:
        NetworkError: nobody answers at `kafka.bootstrap` within `timeout_s`.
    """
    try:
        async with asyncio.timeout(timeout_s), admin(config, timeout_s) as client:
            with translated(f"ask {config.bootstrap} for its metadata"):
                metadata = await client.describe_cluster()
                topics = await client.list_topics()
    except TimeoutError:
        raise NetworkError(
            f"Kafka: no answer from {config.bootstrap} in {timeout_s:g} s",
            hint="check kafka.bootstrap and kafka.security_protocol, then run `ebbflow doctor`",
        ) from None
    brokers = tuple(f"{broker['host']}:{broker['port']}" for broker in metadata["brokers"])
    return Cluster(brokers, frozenset(topics))


async def create_topics(
    config: KafkaConfig, topics: Iterable[Topic] = CATALOGUE, *, timeout_s: float = 30.0
) -> list[TopicState]:
    """Create what is missing, wait until each has its leaders, and compare what was there with the catalogue.

    Nothing that exists is changed: a topic with other partitions or settings is reported in its `problems`.

    Raises:
        NetworkError: Kafka cannot be reached, or gives a topic no leader within `timeout_s`.
        EbbflowError: the broker refuses a topic; the message has its name and the broker's reason.
    """
    wanted = {topic.name: topic for topic in topics}
    async with admin(config, timeout_s) as client:
        with translated("create topics"):
            created = await _create(client, config, wanted.values(), timeout_s)
            partitions = await _wait_for_leaders(client, set(wanted), timeout_s)
            settings = await _read_settings(client, set(wanted) - created)
    return [
        TopicState(
            name,
            name in created,
            partitions[name],
            () if name in created else tuple(_differences(topic, config, partitions[name], settings[name])),
        )
        for name, topic in wanted.items()
    ]


async def _create(
    client: AIOKafkaAdminClient, config: KafkaConfig, topics: Iterable[Topic], timeout_s: float
) -> set[str]:
    """Names of the topics that were not there before."""
    new = [
        NewTopic(topic.name, topic.partitions or config.partitions, config.replication_factor, None, topic.settings())
        for topic in topics
    ]
    response = await client.create_topics(new, timeout_ms=int(timeout_s * 1000))
    created = set()
    for name, code, *reason in response.topic_errors:
        if code not in {0, TOPIC_ALREADY_EXISTS}:
            raise for_code(code, f"Kafka: create topic {name}: {' '.join(filter(None, reason)) or f'error {code}'}")
        if code == 0:
            created.add(name)
    return created


async def _wait_for_leaders(client: AIOKafkaAdminClient, names: set[str], timeout_s: float) -> dict[str, int]:
    """Partitions by topic, once every partition has a leader."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                found = {entry["topic"]: entry for entry in await client.describe_topics() if entry["topic"] in names}
                if len(found) == len(names) and all(_is_led(entry) for entry in found.values()):
                    return {name: len(entry["partitions"]) for name, entry in found.items()}
                await asyncio.sleep(_LEADER_POLL_S)
    except TimeoutError:
        raise NetworkError(
            f"Kafka: topics without a leader after {timeout_s:g} s: {', '.join(sorted(names))}",
            hint="see the broker's log; a full disk looks like this too",
        ) from None


def _is_led(entry: dict[str, Any]) -> bool:
    return entry["error_code"] == 0 and all(part["leader"] >= 0 for part in entry["partitions"])


async def _read_settings(client: AIOKafkaAdminClient, names: set[str]) -> dict[str, dict[str, str]]:
    """Settings by topic, as the broker names them."""
    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(names)]
    answers = await client.describe_configs(resources)
    return {
        name: {entry[0]: entry[1] for entry in entries}
        for answer in answers
        for _code, _reason, _kind, name, entries in answer.resources
    }


def _differences(topic: Topic, config: KafkaConfig, partitions: int, settings: dict[str, str]) -> Iterator[str]:
    wanted = topic.partitions or config.partitions
    if partitions != wanted:
        yield f"partitions is {partitions}, should be {wanted}"
    for key, value in topic.settings().items():
        if settings.get(key) != value:
            yield f"{key} is {settings.get(key)}, should be {value}"
