"""The process around the stages: signals, health, waiting for Kafka, a stop that cannot hang."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry

from ebbflow.component import Processor
from ebbflow.config import Config, KafkaConfig
from ebbflow.errors import EbbflowError, InternalError, NetworkError
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
# As `ebbflow` ends after an error.
_FAILED = 2


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
    before, threading.excepthook = threading.excepthook, _thread_ended
    try:
        return asyncio.run(_Worker(processors, config, registry or CollectorRegistry()).run())
    finally:
        threading.excepthook = before


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    """Tell of a thread that ended with an exception, in one line.

    aiokafka's fetcher may let its cancellation out when it is stopped while Kafka is away, and ends Faust's consumer
    thread with it: that is the stop that was asked for.
    """
    if issubclass(ended.exc_type, asyncio.CancelledError):
        log.debug("a thread was stopped in mid-wait", thread=ended.thread.name if ended.thread else "")
    else:
        log.error("a thread ended", thread=ended.thread.name if ended.thread else "", error=repr(ended.exc_value))


class _Worker:
    def __init__(self, processors: Sequence[type[Processor]], config: Config, registry: CollectorRegistry) -> None:
        self._processors = processors
        self._config = config
        self._troubles = Troubles(warn=log.warning, inform=log.info)
        self._metrics = StreamMetrics(registry)
        self._health = Health(registry, [self._troubles.problems])
        self._stopping = asyncio.Event()
        self._failure: EbbflowError | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_soon)
        if self._config.health.processor_port:
            self._health.serve(self._config.health.host, self._config.health.processor_port)
        try:
            return await self._run() if await self._wait_for_kafka() else 0
        finally:
            self._health.close()

    async def _run(self) -> int:
        runners = [Runner(part, self._config, self._metrics, self._troubles, self._fail) for part in self._processors]
        for runner in runners:
            self._health.add(runner.stage.problems)
        duties = [self._knock(), *map(self._start, runners), *map(self._beat, runners)]
        tasks = [asyncio.ensure_future(self._watched(duty)) for duty in duties]
        await self._stopping.wait()
        clean = await self._stop(runners)
        if not all(runner.has_left for runner in runners):
            self._leave(0 if clean else 1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_STOP_S)
        if self._failure is not None:
            raise self._failure
        return 0 if clean else 1

    async def _watched(self, duty: Coroutine[Any, Any, None]) -> None:
        """A duty that ends by an error ends the process: half a worker would stall without a word."""
        try:
            await duty
        except EbbflowError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - whatever it is
            self._fail(InternalError(f"{type(error).__name__}: {error}", hint="run with --set log.level=debug"))

    async def _start(self, runner: Runner) -> None:
        await runner.start()
        log.info("processing", processor=runner.stage.name)

    async def _stop(self, runners: Sequence[Runner]) -> bool:
        try:
            async with asyncio.timeout(_STOP_S):
                return all(await asyncio.gather(*(runner.stop() for runner in runners)))
        except TimeoutError:
            log.warning("did not stop in time")
            return False

    async def _wait_for_kafka(self) -> bool:
        """Whether Kafka is there, with all topics; False when we are to stop before."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        while not stopping.done():
            attempt = asyncio.ensure_future(self._prepare())
            await asyncio.wait([attempt, stopping], return_when=asyncio.FIRST_COMPLETED)
            if attempt.done():
                error = attempt.result()
                self._troubles.report("kafka", "start", error)
                if error is None:
                    return True
                await asyncio.wait([stopping], timeout=_KNOCK_S)
            attempt.cancel()
        return False

    async def _prepare(self) -> EbbflowError | None:
        """Reach Kafka and create topics; what is in the way, if it may pass."""
        try:
            await check_reachable(self._config.kafka)
            await create_topics(self._config.kafka, [*CATALOGUE, *_unlisted(self._processors)])
        except EbbflowError as error:
            if not error.retriable:
                raise
            return error
        return None

    async def _beat(self, runner: Runner) -> None:
        while True:
            await runner.stage.beat()
            runner.stage.measure()
            if runner.crash is not None and not self._stopping.is_set():
                raise runner.crash
            await asyncio.sleep(_BEAT_S)

    async def _knock(self) -> None:
        """Faust only logs that Kafka is away, over and over; find out and say it once."""
        while True:
            self._troubles.report("kafka", "connection", await _unreachable(self._config.kafka))
            await asyncio.sleep(_KNOCK_S)

    def _fail(self, error: EbbflowError) -> None:
        self._failure = self._failure or error
        self._stop_soon()

    def _stop_soon(self) -> None:
        if not self._stopping.is_set():
            log.info("stopping")
            self._stopping.set()
            _arm(self._give_up)

    def _give_up(self) -> None:
        log.error("did not stop in time: ending as if killed, nothing is lost")
        self._leave(1)

    def _leave(self, status: int) -> None:
        """End without waiting for Faust's thread, which waits for the broker."""
        if self._failure is not None:
            log.error(str(self._failure), hint=self._failure.hint)
        os._exit(status if self._failure is None else _FAILED)


def _arm(give_up: Callable[[], None]) -> None:
    """Whatever hangs from now on, the process ends."""
    deadline = threading.Timer(_KILL_S, give_up)
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
