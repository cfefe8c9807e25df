"""The catalogue of Kafka topics: who writes what, for whom, for how long, and how sensitive it is.

`ebbflow topics` creates and prints it; docs/topics.md is generated from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ebbflow.errors import ConfigError

HOUR_MS = 3_600_000
# A record is a batch; brokers refuse larger ones by default, and so does the Collector's Kafka receiver.
MAX_RECORD_BYTES = 1_000_000

RAW_SOCKETS = "ebbflow.raw.sockets"
OTLP_METRICS = "otlp_metrics"
OTLP_SPANS = "otlp_spans"
LEDGER = "ebbflow.ledger"
DEAD_LETTERS = "ebbflow.dlq"
CHECKPOINTS = "ebbflow.checkpoints"


@dataclass(frozen=True, slots=True)
class Topic:
    """`partitions` 0 takes the configured number."""

    name: str
    key: str
    value: str
    writer: str
    readers: str
    sensitivity: str
    retention_ms: int
    partitions: int = 0
    cleanup: str = "delete"
    max_message_bytes: int = MAX_RECORD_BYTES

    def settings(self) -> dict[str, str]:
        """Topic configuration as Kafka names it."""
        settings = {"cleanup.policy": self.cleanup, "max.message.bytes": str(self.max_message_bytes)}
        if self.cleanup == "compact":
            # Only closed segments are compacted, and readers read everything that is left: keep them small.
            return settings | {
                "segment.ms": str(HOUR_MS),
                "segment.bytes": str(32 << 20),
                "min.cleanable.dirty.ratio": "0.1",
            }
        return {**settings, "retention.ms": str(self.retention_ms)}


def raw_topic(feature: str) -> str:
    """Where a producer's batches go."""
    return f"ebbflow.raw.{feature}"


def _raw(feature: str, readers: str, sensitivity: str) -> Topic:
    return Topic(
        raw_topic(feature),
        key="host id and process bucket",
        value="RawBatch (protobuf)",
        writer=f"producers/{feature}",
        readers=readers,
        sensitivity=sensitivity,
        retention_ms=6 * HOUR_MS,
    )


CATALOGUE: tuple[Topic, ...] = (
    _raw("sockets", "processors/requests", "high: redacted payload, addresses, command lines"),
    _raw("tcp", "consumers of your own", "medium: addresses, command lines"),
    _raw("process", "consumers of your own", "high: masked arguments of every command"),
    _raw("syscalls", "consumers of your own", "medium: arguments of slow and watched calls"),
    _raw("cpu", "consumers of your own", "low: function names"),
    _raw("memory", "consumers of your own", "low: function names"),
    _raw("disk", "consumers of your own", "low: device names, command lines"),
    Topic(
        OTLP_SPANS,
        key="host id and process bucket (of the batch the spans came from)",
        value="otlp_proto (TracesData)",
        writer="processors/requests",
        readers="sinks/traces, any Collector's kafka receiver",
        sensitivity="medium: paths, masked query strings, addresses",
        retention_ms=24 * HOUR_MS,
    ),
    Topic(
        OTLP_METRICS,
        key="host id",
        value="otlp_proto (MetricsData)",
        writer="producers, of themselves",
        readers="any Collector's kafka receiver",
        sensitivity="low: counts",
        retention_ms=24 * HOUR_MS,
    ),
    Topic(
        LEDGER,
        key="stage and source record",
        value="JSON (ledger entry)",
        writer="every stage",
        readers="ebbflow ledger",
        sensitivity="low: counts",
        retention_ms=24 * HOUR_MS,
        partitions=1,
    ),
    Topic(
        DEAD_LETTERS,
        key="source topic",
        value="the original bytes; provenance in headers",
        writer="any stage",
        readers="ebbflow dlq",
        sensitivity="high: as its source",
        retention_ms=7 * 24 * HOUR_MS,
        partitions=1,
        # Whatever arrived must fit, with its headers.
        max_message_bytes=8 << 20,
    ),
    Topic(
        CHECKPOINTS,
        key="processor, topic, partition",
        value="next offset and processor state (zstd)",
        writer="ebbflow/stream",
        readers="ebbflow/stream",
        sensitivity="high: pieces of payload held for reassembly",
        retention_ms=0,
        partitions=1,
        cleanup="compact",
        max_message_bytes=8 << 20,
    ),
)


def topic(name: str) -> Topic:
    """The catalogue's entry of that name.

    Raises:
        ConfigError: there is none.
    """
    for entry in CATALOGUE:
        if entry.name == name:
            return entry
    raise ConfigError(f"there is no topic {name}", hint="`ebbflow topics` prints them all")
