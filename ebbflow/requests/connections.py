"""The connections of one source: how they come, how they go, and the spans they leave."""

from __future__ import annotations

from ebbflow.otlp.http_spans import exchange_span
from ebbflow.protocols.http1_connection import CONNECTION_CLOSED
from ebbflow.requests.shared import Shared
from ebbflow.requests.tracking import ProcessSpans, Tracked
from ebbflow.requests.validate import CLOSE, DATA
from ebbflow.v1 import raw_pb2

EVICTED = "evicted"
SourceKey = tuple[str, bytes, int, int]
"""Host, boot, producer run, bucket."""


class Connections:
    """See above.

    Attributes:
        since_ns: connections opened before that (monotonic) may have been missed in part.
        connections: by generation, in the order in which they came.
        processes: by serialised dictionary entry.
        holding: connections that hold events back.
        closed: generations whose end was seen, the last ones.
    """

    def __init__(self, key: SourceKey, host_name: str, shared: Shared, *, since_ns: int) -> None:
        self.key = key
        self.host_name = host_name
        self.since_ns = since_ns
        self.shared = shared
        self.limits = shared.limits
        self.connections: dict[int, Tracked] = {}
        self.processes: dict[bytes, ProcessSpans] = {}
        self.holding: dict[int, Tracked] = {}
        self.closed: dict[int, None] = {}
        self._by_pid: dict[int, set[int]] = {}
        self._entries: dict[int, tuple[bytes, ProcessSpans]] = {}

    def describe(self, envelope: raw_pb2.RawBatch) -> None:
        """Take over the dictionaries of a batch."""
        processes = [self.process(process.SerializeToString()) for process in envelope.processes]
        self._entries = {}
        for entry in envelope.connections:
            generation, process = entry.generation, processes[entry.process]
            entry.process = 0
            description = entry.SerializeToString()
            connection = self.connections.get(generation)
            if connection is None:
                self._entries[generation] = description, process
            else:
                connection.describe(description, process)
                connection.resolve(self.key[0], self.key[1])

    def process(self, description: bytes) -> ProcessSpans:
        """The process of a serialised dictionary entry."""
        process = self.processes.get(description)
        if process is None:
            process = self.processes[description] = ProcessSpans(self.key[0], self.host_name, description)
        return process

    def prune_processes(self) -> None:
        """Forget processes without connections when there are many."""
        if len(self.processes) > self.limits.max_processes:
            used = {connection.process.description for connection in self.connections.values()}
            used |= {key for key, process in self.processes.items() if process.spans}
            self.processes = {key: process for key, process in self.processes.items() if key in used}

    def open(self, generation: int, pid: int, kind: int) -> Tracked | None:
        """The first row of a connection. None: it is none, or its end was seen."""
        if generation in self.closed:
            self.shared.tally.late_events += kind == DATA
            return None
        if kind not in {DATA, CLOSE}:
            return None
        if self.shared.connections >= self.limits.max_connections:
            self.evict()
        entry = self._entries.get(generation)
        if entry is None:
            process = self.process(raw_pb2.Process(pid=pid).SerializeToString())
            entry = raw_pb2.Connection(generation=generation).SerializeToString(), process
        return self.track(*entry, pid, anchored=generation >= self.since_ns)

    def track(self, description: bytes, process: ProcessSpans, pid: int, *, anchored: bool) -> Tracked:
        """Add a connection. `anchored`: all of it since its first byte has been, or will be, in the batches."""
        shared = self.shared
        connection = Tracked(
            description,
            process,
            pid,
            anchored=anchored,
            heads=shared.heads,
            tally=shared.tally,
            finished=shared.finished,
        )
        self.connections[connection.generation] = connection
        self._by_pid.setdefault(pid, set()).add(connection.generation)
        shared.connections += 1
        return connection

    def forget(self, connection: Tracked, *, remember: bool = True) -> None:
        """Collect what is left of a connection and drop it."""
        self.collect(connection)
        generation = connection.generation
        del self.connections[generation]
        self.holding.pop(generation, None)
        generations = self._by_pid[connection.pid]
        generations.discard(generation)
        if not generations:
            del self._by_pid[connection.pid]
        self.shared.connections -= 1
        self.shared.pending_bytes -= connection.accounted_bytes
        if remember:
            self.closed[generation] = None
            if len(self.closed) > self.limits.max_closed:
                del self.closed[next(iter(self.closed))]

    def exit(self, pid: int, time_ns: int) -> None:
        """A process ended, and its connections with it."""
        for generation in sorted(self._by_pid.get(pid, ())):
            connection = self.connections[generation]
            connection.closed(CONNECTION_CLOSED, time_ns, None)
            self.forget(connection)

    def evict(self) -> None:
        """Forget the sixteenth of this source's connections that has been silent for longest."""
        oldest = sorted(self.connections.values(), key=lambda connection: connection.last_ns)
        for connection in oldest[: max(1, len(oldest) // 16)]:
            connection.closed(EVICTED, connection.last_ns, None)
            self.since_ns = max(self.since_ns, connection.generation + 1)
            self.forget(connection, remember=False)
            self.shared.evicted += 1

    def collect(self, connection: Tracked) -> None:
        """Turn finished exchanges into spans."""
        connection.resolve(self.key[0], self.key[1])
        shared = self.shared
        for exchange in shared.finished:
            assert connection.endpoint is not None  # noqa: S101 - an exchange has a direction
            connection.process.spans.append(exchange_span(connection.endpoint, exchange))
            if exchange.incomplete:
                shared.incomplete += 1
            else:
                shared.exchanges += 1
        shared.finished.clear()
