"""The one thread that writes: requests that wait go into the database together, then all of them are answered.

    submit ──> waiting ──> [a group] ──> one transaction ──> every future of the group is done
                              │
                              └─ between groups, every `SWEEP_S`: retention

Group commit: while one transaction runs, requests gather for the next, so the cost of reaching the disk is shared by
as many as wait. A group that fails for its data is tried again request by request, so that one cannot spoil others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from ebbflow.config import StoreConfig
from ebbflow.errors import EbbflowError, InternalError, NetworkError, RateLimited, StoreError
from ebbflow.store.columns import Row
from ebbflow.store.database import Database
from ebbflow.store.decode import Decoded
from ebbflow.store.metrics import StoreMetrics

MAX_WAITING_BYTES = 128 << 20
MAX_GROUP_SPANS = 50_000
SWEEP_S = 10.0
RETRY_AFTER_S = 1


@dataclass(slots=True)
class Waiting:
    decoded: Decoded
    done: Future[None]


class Writer(threading.Thread):
    """Owns the database for writing, from `start` to `close`."""

    def __init__(
        self,
        database: Database,
        config: StoreConfig,
        metrics: StoreMetrics,
        log: FilteringBoundLogger,
        *,
        clock_ns: Callable[[], int],
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        sweep_s: float = SWEEP_S,
    ) -> None:
        super().__init__(name="store-writer", daemon=True)
        self._database = database
        self._config = config
        self._metrics = metrics
        self._log = log
        self._clock_ns = clock_ns
        self._max_waiting_bytes = max_waiting_bytes
        self._sweep_s = sweep_s
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._broken = False
        self._problem = ""

    def submit(self, decoded: Decoded) -> Future[None]:
        """Queue one request's rows; the future is done when they are on disk.

        Raises:
            RateLimited: too much waits already; nothing was queued. A single request is always taken.
            NetworkError: the store is stopping.
        """
        with self._changed:
            if self._closing:
                raise NetworkError("the store is stopping")
            if self._waiting and self._waiting_bytes + decoded.weight_bytes > self._max_waiting_bytes:
                raise RateLimited("the database does not keep up", retry_after_s=RETRY_AFTER_S)
            item = Waiting(decoded, Future())
            self._waiting.append(item)
            self._account(decoded.weight_bytes)
            self._changed.notify()
        return item.done

    def problems(self) -> list[str]:
        """Why the store is not ready; empty when it is."""
        if not self.is_alive():
            return ["the writer is not running"]
        return [self._problem] if self._problem else []

    def close(self) -> None:
        """Write what waits, then stop. Returns when the thread has ended."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self.ident is not None:
            self.join()

    def run(self) -> None:
        try:
            self._work()
        finally:
            self._abandon()

    def _work(self) -> None:
        next_sweep_ns, swept = self._clock_ns(), True
        while True:
            group = self._next_group()
            if group:
                self.write(group)
            elif self._closing:
                return
            due = self._clock_ns() >= next_sweep_ns
            # A sweep that could delete nothing is not tried again with every group.
            if due or (group and swept and self._too_large()):
                swept = self.sweep()
                next_sweep_ns = self._clock_ns() + int(self._sweep_s * 1e9)

    def _abandon(self) -> None:
        """Nobody may wait for a thread that has ended."""
        with self._changed:
            self._closing = True
            left = list(self._waiting)
            self._waiting.clear()
        if left:
            self._fail(left, NetworkError("the store is stopping"))

    def _next_group(self) -> list[Waiting]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing, self._sweep_s)
            group: list[Waiting] = []
            spans = 0
            while self._waiting and spans < MAX_GROUP_SPANS:
                group.append(self._waiting.popleft())
                spans += len(group[-1].decoded.rows)
                self._account(-group[-1].decoded.weight_bytes)
        return group

    def _account(self, weight_bytes: int) -> None:
        self._waiting_bytes += weight_bytes
        self._metrics.waiting.set(self._waiting_bytes)

    def write(self, group: list[Waiting]) -> None:
        """Write requests in one transaction, and answer each of them."""
        try:
            self._insert(group)
        except EbbflowError as error:
            self._fail(group, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the senders must hear of it and the thread go on
            if len(group) > 1:
                for item in group:
                    self.write([item])
            else:
                self._fail(group, InternalError(f"writing failed: {error}"))
        else:
            self._problem = ""
            for item in group:
                item.done.set_result(None)

    def _insert(self, group: list[Waiting]) -> None:
        if self._broken:
            self._database.reopen()
            self._broken = False
        rows: list[Row] = []
        resources: dict[int, str] = {}
        for item in group:
            rows += item.decoded.rows
            resources |= item.decoded.resources
        with self._metrics.commits.time():
            inserted = self._database.insert(rows, resources)
        self._metrics.stored.inc(inserted.stored)
        self._metrics.repeated.inc(inserted.repeated)

    def _fail(self, group: list[Waiting], error: EbbflowError) -> None:
        self._note(error)
        self._metrics.failed.inc(sum(len(item.decoded.rows) for item in group))
        for item in group:
            item.done.set_exception(error)

    def _note(self, error: EbbflowError) -> None:
        """Remember and tell a problem once, not with every request it meets."""
        self._broken = self._broken or isinstance(error, StoreError)
        if str(error) != self._problem:
            self._problem = str(error)
            self._log.error("cannot write", error=str(error), code=error.code, hint=error.hint)

    def _too_large(self) -> bool:
        try:
            self._metrics.file.set(self._database.file_bytes())
            return self._database.is_beyond(self._config.max_bytes)
        except EbbflowError as error:
            self._note(error)
            return False

    def sweep(self) -> bool:
        """Apply retention by age, then by size; whether all that is due was deleted."""
        try:
            age = self._database.expire_older(self._clock_ns() - int(self._config.retention_s * 1e9))
            size = self._database.expire_beyond(self._config.max_bytes)
            done = not self._database.is_beyond(self._config.max_bytes)
        except EbbflowError as error:
            self._note(error)
            return False
        for reason, deleted in (("age", age), ("size", size)):
            if deleted:
                self._metrics.deleted.labels(reason).inc(deleted)
                self._log.info("spans deleted", reason=reason, spans=deleted, file_bytes=self._database.file_bytes())
        return done
