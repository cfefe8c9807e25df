"""One processor under Faust, and the only file that knows Faust.

Each processor has an app of its own, because the consumer group belongs to the processor and not to who happens to
share its process. Faust brings the group, the fetching and the commits; it is told as little as possible: raw bytes,
manual acknowledgement, one agent, no tables, no web server, no topics of its own. Its agent never raises, since Faust
acknowledges what an exception leaves behind.

The settings were measured against a real broker. `stream_wait_empty` is off because inputs that no checkpoint covers
yet are never acknowledged; `stream_buffer_maxsize` is small because a record may have a megabyte.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import faust
from aiokafka import AIOKafkaProducer
from faust.types import TP, EventT, StreamT
from faust.types.auth import CredentialsT

from ebbflow.component import Processor, Record
from ebbflow.config import Config, KafkaConfig
from ebbflow.errors import EbbflowError, InternalError
from ebbflow.kafka import aiokafka_options, make_producer
from ebbflow.stream.history import KafkaHistory
from ebbflow.stream.metrics import StreamMetrics
from ebbflow.stream.stage import Stage
from ebbflow.troubles import Troubles

# Of a clean stop; what is not written by then is done again.
_SETTLE_S = 2.3
_LEAVE_S = 1.0
_COMMIT_S = 1.0
_METADATA_AGE_MS = 5_000
_AGAIN = "start again; nothing is lost"


class Runner:
    """One processor: its stage, and the Faust app that feeds it."""

    def __init__(
        self,
        processor: type[Processor],
        config: Config,
        metrics: StreamMetrics,
        troubles: Troubles,
        on_failure: Callable[[EbbflowError], None],
    ) -> None:
        self.stage = Stage(
            processor,
            config,
            connect=partial(_connect, config.kafka),
            history=KafkaHistory(config.kafka),
            metrics=metrics,
            troubles=troubles,
            on_failure=on_failure,
            highwater=self._highwater,
        )
        self._on_failure = on_failure
        self._stopping = False
        self._leaving: asyncio.Future[None] | None = None
        self._app = _make_app(processor, config)
        self._app.agent(self._app.topic(*processor.inputs), concurrency=1, name=processor.name)(self._consume)
        self._app.on_partitions_assigned.connect(self._on_assigned, weak=False)
        self._app.on_partitions_revoked.connect(self._on_revoked, weak=False)

    async def start(self) -> None:
        """Join the consumer group and begin.

        Raises:
            InternalError: Faust cannot start.
        """
        try:
            await self._app.start()
        except Exception as error:
            raise _given_up(self.stage.name, error) from error

    @property
    def crash(self) -> EbbflowError | None:
        """Why Faust stopped by itself."""
        return _given_up(self.stage.name, self._app.crash_reason) if self._app.crashed else None

    async def stop(self) -> bool:
        """Finish what is in hand, then leave the group. Whether everything was written."""
        self._stopping = True
        clean = await self.stage.stop(_SETTLE_S)
        self._leaving = asyncio.ensure_future(self._app.stop())
        # A member whose request to join is still waiting for others cannot leave; the broker forgets it soon enough.
        await asyncio.wait([self._leaving], timeout=_LEAVE_S)
        await self.stage.close()
        return clean

    @property
    def has_left(self) -> bool:
        """Whether Faust has ended, with its thread."""
        return self._leaving is not None and self._leaving.done()

    async def _consume(self, stream: StreamT[Any]) -> None:
        """The agent. It must not end: Faust starts an ended one again, but on a stream that gives nothing more."""
        assert isinstance(stream, faust.Stream)  # noqa: S101 - agents get nothing else; the interface lacks `noack`
        try:
            # Not `noack_take`, which holds back what has come; the stage sends while it goes and settles together.
            async for event in stream.noack().events():
                record = _ours(event)
                _strip(event)
                await self.stage.consume(record, event.ack)
        finally:
            if not self._stopping:
                self._on_failure(InternalError(f"{self.stage.name}: Faust ended the stream", hint=_AGAIN))

    async def _on_assigned(self, *arguments: Any, **_: Any) -> None:
        assigned: set[TP] = arguments[1]
        self.stage.assign((tp.topic, tp.partition) for tp in assigned)

    async def _on_revoked(self, *_arguments: Any, **_: Any) -> None:
        await self.stage.revoke()
        # Only saves the next owner from reading again what the checkpoint makes it skip.
        with suppress(TimeoutError):
            async with asyncio.timeout(_COMMIT_S):
                await self._app.consumer.commit()

    def _highwater(self, topic: str, partition: int) -> int | None:
        try:
            return self._app.consumer.highwater(TP(topic, partition))
        except Exception:  # noqa: BLE001 - a gauge; not assigned, not started or not yet known
            return None


class _App(faust.App):
    """Without tables there is nothing to keep, so no folder is made for it where the process happens to run."""

    # By default this module's, whose lines are shown.
    logger = logging.getLogger("faust.app")

    def _create_directories(self) -> None: ...


def _make_app(processor: type[Processor], config: Config) -> faust.App:
    return _App(
        f"ebbflow-{processor.name}",
        broker=[f"kafka://{server.strip()}" for server in config.kafka.bootstrap.split(",")],
        broker_credentials=_credentials(config.kafka),
        value_serializer="raw",
        key_serializer="raw",
        processing_guarantee="at_least_once",
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=0,
        store="memory://",
        web_enabled=False,
        worker_redirect_stdouts=False,
        stream_wait_empty=False,
        stream_buffer_maxsize=64,
        consumer_max_fetch_size=8 << 20,
        consumer_auto_offset_reset="earliest",
        # A group leader that joins while the broker still starts sees no partitions and gives none to anybody; what
        # it learns later makes it share out again.
        consumer_metadata_max_age_ms=_METADATA_AGE_MS,
        broker_max_poll_records=200,
        broker_session_timeout=config.stream.session_timeout_s,
        broker_heartbeat_interval=1,
        broker_rebalance_timeout=1.5 * config.stream.session_timeout_s,
        broker_request_timeout=30,
        broker_max_poll_interval=300,
        broker_commit_interval=1,
        broker_commit_every=500,
    )


def _credentials(config: KafkaConfig) -> CredentialsT | None:
    options = aiokafka_options(config)
    if config.security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=config.sasl_username,
            password=config.sasl_password,
            mechanism=config.sasl_mechanism,
            ssl_context=options.get("ssl_context"),
        )
    return faust.SSLCredentials(options["ssl_context"]) if config.security_protocol == "SSL" else None


def _ours(event: EventT[bytes]) -> Record:
    message = event.message
    headers = message.headers or ()
    pairs: Iterable[tuple[str, bytes]] = headers.items() if isinstance(headers, Mapping) else headers
    return Record(
        message.topic,
        message.partition,
        message.offset,
        round(message.timestamp * 1000),
        message.key,
        message.value or b"",
        tuple(pairs),
    )


def _strip(event: EventT[bytes]) -> None:
    """What waits for its commit needs no payload."""
    event.value = None
    event.key = None
    event.message.value = None
    event.message.headers = None


async def _connect(config: KafkaConfig) -> AIOKafkaProducer:
    producer = make_producer(config, linger_ms=5, max_batch_size=512 * 1024, request_timeout_ms=30_000)
    try:
        await producer.start()
    except BaseException:
        await producer.stop()
        raise
    return producer


def _given_up(name: str, error: BaseException | None) -> InternalError:
    return InternalError(f"{name}: Faust gave up: {type(error).__name__}: {error}", hint=_AGAIN)
