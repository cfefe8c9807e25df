"""Outputs until Kafka has acknowledged them: sent at once, sent again for as long as it takes.

A failed output is sent again after others that succeeded, so repeats may come out of order; readers that drop repeats
must remember each source, not the largest. What Kafka refuses for good, because of its size, is handed to `on_refused`;
a missing right or a wrong setting is raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ebbflow.component import Output
from ebbflow.errors import Category, EbbflowError, InternalError, NetworkError, RateLimited, Rejected
from ebbflow.kafka_errors import FOREIGN, translate

_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.1, 5.0
# What may wait for acknowledgement; one full request of every partition leader has room in it.
MAX_WAITING_BYTES = 16 << 20
_OVERHEAD_BYTES = 200


class Producer(Protocol):
    """What is needed of aiokafka's producer, started."""

    async def send(
        self, topic: str, value: bytes, *, key: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> Awaitable[Any]: ...

    async def stop(self) -> None: ...


Connect = Callable[[], Awaitable[Producer]]
# An output that Kafka will never take, and why; what is returned is sent in its place.
OnRefused = Callable[[Output, EbbflowError], Iterable[Output]]
Report = Callable[[EbbflowError | None], None]


@dataclass(slots=True)
class _Entry:
    output: Output
    future: asyncio.Future[Any] | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.output.value) + _OVERHEAD_BYTES


class Outbox:
    """Not for several tasks at a time.

    Args:
        connect: makes a started producer; called again when one has broken.
        report: hears of every trouble with Kafka, and None when it is over.
    """

    def __init__(self, connect: Connect, *, on_refused: OnRefused, report: Report) -> None:
        self._connect = connect
        self._on_refused = on_refused
        self._report = report
        self._producer: Producer | None = None
        self._entries: list[_Entry] = []
        self._waiting_bytes = 0
        self._sent = 0

    @property
    def is_full(self) -> bool:
        return self._waiting_bytes > MAX_WAITING_BYTES

    def add(self, outputs: Iterable[Output]) -> None:
        """Take outputs over; they are not sent yet."""
        for output in outputs:
            entry = _Entry(output)
            self._entries.append(entry)
            self._waiting_bytes += entry.size_bytes

    async def send(self) -> None:
        """Hand what is new to the producer; does not wait for acknowledgement, nor fail."""
        await self._send()

    async def settle(self) -> None:
        """Return when Kafka has acknowledged everything.

        Raises:
            EbbflowError: a right or a setting is wrong; nothing is forgotten.
        """
        backoff_s = _FIRST_BACKOFF_S
        while self._entries:
            error = await self._send() or await self._gather()
            if error is None:
                continue
            if not _may_pass(error):
                raise error
            self._report(error)
            if not isinstance(error, NetworkError | RateLimited):
                await self._disconnect()
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)
        self._report(None)

    async def close(self) -> None:
        """Let the producer go; outputs that are not acknowledged are given up."""
        await self._disconnect()

    async def _send(self) -> EbbflowError | None:
        """Send entries in order up to the first trouble, which is returned."""
        while self._sent < len(self._entries):
            entry = self._entries[self._sent]
            try:
                if self._producer is None:
                    self._producer = await self._connect()
                output = entry.output
                entry.future = asyncio.ensure_future(
                    await self._producer.send(output.topic, output.value, key=output.key, headers=list(output.headers))
                )
            except Exception as foreign:  # noqa: BLE001 - translated; an unknown one is raised by `settle`
                error = _as_ours(foreign, entry.output)
                if not isinstance(error, Rejected):
                    return error
                self._replace(self._sent, error)
                continue
            self._sent += 1
        return None

    async def _gather(self) -> EbbflowError | None:
        """Wait for all that was sent; keep what failed, to be sent again. Returns a trouble, if there was one."""
        # Not `gather`: who gives up waiting must not cancel what the producer has in hand.
        await asyncio.wait([entry.future for entry in self._entries if entry.future is not None])
        entries, self._entries, self._sent, self._waiting_bytes = self._entries, [], 0, 0
        trouble: EbbflowError | None = None
        for entry in entries:
            failure = _failure(entry.future)
            if failure is None:
                continue
            error = _as_ours(failure, entry.output)
            if isinstance(error, Rejected):
                self.add(self._on_refused(entry.output, error))
            else:
                trouble = error if trouble is None or not _may_pass(error) else trouble
                self.add([entry.output])
        return trouble

    def _replace(self, index: int, error: EbbflowError) -> None:
        entry = self._entries.pop(index)
        self._waiting_bytes -= entry.size_bytes
        self.add(self._on_refused(entry.output, error))

    async def _disconnect(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()


class _NotKafkaError(InternalError):
    """Something that no attempt can mend: an output that is not bytes, a bug."""


def _failure(future: asyncio.Future[Any] | None) -> BaseException | None:
    if future is None or future.cancelled():
        return asyncio.CancelledError()
    return future.exception()


def _as_ours(error: BaseException, output: Output) -> EbbflowError:
    if isinstance(error, EbbflowError):
        return error
    if isinstance(error, (*FOREIGN, asyncio.CancelledError)):
        return translate(error, f"write to {output.topic}")
    return _NotKafkaError(
        f"write to {output.topic}: {type(error).__name__}: {error}", hint="report it with the processor"
    )


def _may_pass(error: EbbflowError) -> bool:
    """Whether sending again may help. Wrong settings and missing rights stay wrong; a broken producer is replaced."""
    return error.category not in {Category.CONFIG, Category.PERMISSION} and not isinstance(error, _NotKafkaError)
