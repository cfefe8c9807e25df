"""The process around the stages: signals, health, waiting for Kafka, a stop that cannot hang."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import CollectorRegistry

from ebbflow.component import Processor
from ebbflow.config import Config, KafkaConfig
from ebbflow.errors import EbbflowError, NetworkError
from ebbflow.kafka import check_reachable, create_topics
from ebbflow.stream.metrics import StreamMetrics
from ebbflow.stream.runner import Runner
from ebbflow.telemetry import Health, logger
from ebbflow.topics import CATALOGUE, HOUR_MS, Topic
from ebbflow.troubles import Troubles

log = logger(__name__)

_BEAT_S = 0.1
_KNOCK_S = 2.0
# A clean stop takes this long at most; then the process ends as if killed, which loses nothing.
_STOP_S = 4.0
_KILL_S = 4.8


def run_processors(
    processors: Sequence[type[Processor]], config: Config, *, registry: CollectorRegistry | None = None
) -> int:
    """Run processors in this process, in the foreground, until SIGTERM or SIGINT; needs the main thread.

    Kafka may be away, at first or later: that is told once, and waited for.

    Returns:
        0 after a clean stop, 1 when the stop took too long; nothing is lost then, but some work is repeated.

    Raises:
        EbbflowError: a processor cannot go on: wrong settings, missing rights, or most of its input is bad.
    """
    return asyncio.run(_Worker(processors, config, registry or CollectorRegistry()).run())


class _Worker:
    def __init__(self, processors: Sequence[type[Processor]], config: Config, registry: CollectorRegistry) -> None:
        self._processors = processors
        self._config = config
        self._troubles = Troubles(warn=log.warning, inform=log.info)
        self._metrics = StreamMetrics(registry)
        self._health = Health(registry, [self._troubles.problems])
        self._stopping = asyncio.Event()
        self._failure: EbbflowError | None = None
        self._runners: list[Runner] = []

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        if self._config.health.processor_port:
            self._health.serve(self._config.health.host, self._config.health.processor_port)
        try:
            return await self._run()
        finally:
            self._health.close()

    async def _run(self) -> int:
        with TemporaryDirectory(prefix="ebbflow-") as directory:
            if not await self._wait_for_kafka():
                return 0
            self._runners = [self._make(processor, Path(directory)) for processor in self._processors]
            tasks = [
                asyncio.ensure_future(task) for task in (self._beat(), self._knock(), *map(self._start, self._runners))
            ]
            await self._stopping.wait()
            clean = await self._stop()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_STOP_S)
        if self._failure is not None:
            raise self._failure
        return 0 if clean else 1

    def _make(self, processor: type[Processor], directory: Path) -> Runner:
        runner = Runner(processor, self._config, directory, self._metrics, self._troubles, self._fail)
        self._health.add(runner.stage.problems)
        return runner

    async def _start(self, runner: Runner) -> None:
        try:
            await runner.start()
        except EbbflowError as error:
            self._fail(error)
        else:
            log.info("processing", processor=runner.stage.name)

    async def _stop(self) -> bool:
        try:
            async with asyncio.timeout(_STOP_S):
                return all(await asyncio.gather(*(runner.stop() for runner in self._runners)))
        except TimeoutError:
            log.warning("did not stop in time")
            return False

    async def _wait_for_kafka(self) -> bool:
        """Whether Kafka is there, with all topics; False when we are to stop before."""
        topics = [*CATALOGUE, *_unlisted(self._processors)]
        while not self._stopping.is_set():
            try:
                await check_reachable(self._config.kafka)
                await create_topics(self._config.kafka, topics)
            except EbbflowError as error:
                if not error.retriable:
                    raise
                self._troubles.report("kafka", "start", error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _KNOCK_S)
            else:
                self._troubles.report("kafka", "start", None)
                return True
        return False

    async def _beat(self) -> None:
        while True:
            for runner in self._runners:
                await runner.stage.beat()
                runner.stage.measure()
                if runner.crash is not None and not self._stopping.is_set():
                    self._fail(runner.crash)
            await asyncio.sleep(_BEAT_S)

    async def _knock(self) -> None:
        """Faust only logs that Kafka is away, over and over; find out and say it once."""
        while True:
            error = await _unreachable(self._config.kafka)
            self._troubles.report("kafka", "connection", error)
            await asyncio.sleep(_KNOCK_S)

    def _fail(self, error: EbbflowError) -> None:
        self._failure = self._failure or error
        self._stopping.set()

    def _on_signal(self) -> None:
        log.info("stopping")
        self._stopping.set()
        deadline = threading.Timer(_KILL_S, partial(os._exit, 1))
        deadline.daemon = True
        deadline.start()


def _unlisted(processors: Sequence[type[Processor]]) -> list[Topic]:
    """Inputs of processors from elsewhere, which the catalogue does not know."""
    known = {topic.name for topic in CATALOGUE}
    names = {name for processor in processors for name in processor.inputs if name not in known}
    return [Topic(name, "", "", "", "", "", retention_ms=24 * HOUR_MS) for name in sorted(names)]


async def _unreachable(config: KafkaConfig) -> EbbflowError | None:
    """None when any broker of the list takes a connection."""
    for server in config.bootstrap.split(","):
        host, _, port = server.strip().rpartition(":")
        with suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(_KNOCK_S):
                _reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
                writer.close()
                return None
    return NetworkError(
        f"no broker takes connections at {config.bootstrap}",
        hint="check that Kafka runs at kafka.bootstrap: `ebbflow doctor`; waiting for it",
    )
