"""One source of batches, a process bucket of one producer run: rows in, spans out.

Two paths lead to the same spans. The common one, in `read`, takes an event that is exactly one message at the position
where one is due, on a connection where all is in order: it pairs it and joins the span from pieces. Everything else
goes through `_take`, which knows nothing of it: protocols/http1_connection.py. A property test holds them together.

Order is what the rows have; nothing depends on where batches are cut. Event time is the highest row time so far: a
missing event is given up, and an open exchange times out, when it has passed far enough.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable
from typing import Any, cast

import numpy as np

from ebbflow.kernel.layout import Layout
from ebbflow.otlp.http_spans import complete_span
from ebbflow.protocols.http1_connection import CONNECTION_CLOSED, RECEIVE, SEND, TIMEOUT, Totals
from ebbflow.protocols.http1_messages import Request
from ebbflow.protocols.stream import Segment
from ebbflow.records import Batch
from ebbflow.requests.connections import Connections, SourceKey
from ebbflow.requests.shared import Shared
from ebbflow.requests.tracking import ProcessSpans, Tracked
from ebbflow.requests.validate import CLOSE, CLOSE_LAYOUT, DATA, EOF, ERROR, EXIT, SHUTDOWN, Bools

_SHUT_WR = 1
_ERRORS = {errno.ECONNRESET: "connection_reset", errno.EPIPE: "connection_reset", errno.ETIMEDOUT: TIMEOUT}


class Source(Connections):
    """See above.

    Attributes:
        sequence: of the last batch.
        watermark_ns: the highest row time so far, monotonic.
        offset_ns: from monotonic to unix time, of the last batch.
        scanned_ns: event time when time-outs were last looked for.
        origin: Kafka key and coordinates of the last record.
    """

    def __init__(self, key: SourceKey, host_name: str, shared: Shared, *, since_ns: int) -> None:
        super().__init__(key, host_name, shared, since_ns=since_ns)
        self.sequence = -1
        self.watermark_ns = 0
        self.offset_ns = 0
        self.scanned_ns = 0
        self.origin: tuple[bytes | None, bytes] = (None, b"")

    @property
    def unix_ns(self) -> int:
        """Event time of this source."""
        return self.watermark_ns + self.offset_ns

    def read(self, batch: Batch, valid: Bools) -> None:
        """Take the valid rows of a batch."""
        self.offset_ns = batch.unix_offset_ns
        self.describe(batch.envelope)
        rows = batch.rows[valid] if not valid.all() else batch.rows
        starts, ends = batch.starts[valid].tolist(), batch.ends[valid].tolist()
        times = rows["time_ns"]
        high = np.maximum.accumulate(np.concatenate(([self.watermark_ns], times.astype(np.int64))))
        columns = (rows[name].tolist() for name in ("generation", "position", "size", "nth", "kind", "direction"))
        others = (rows["aux"].tolist(), rows["pid"].tolist(), high[:-1].tolist())
        self._read_rows(zip(times.tolist(), *columns, starts, ends, *others, strict=True), batch.heap)
        self.watermark_ns = int(high[-1]) if len(rows) else max(self.watermark_ns, batch.envelope.clock.monotonic_ns)
        self._release_due()
        self._expire_due()
        self.prune_processes()

    def _read_rows(self, rows: Iterable[tuple[int, ...]], heap: bytes) -> None:
        """The common path; it must do what `_take` does, only sooner."""
        connections, offset_ns = self.connections, self.offset_ns
        common_path, heads = self.shared.common_path, self.shared.heads
        requests, responses = heads.requests.known, heads.responses.known
        exchanges = 0
        for row in rows:
            time_ns, generation, position, size, nth, kind, direction, start, end, _, _, _ = row
            connection = connections.get(generation)
            if connection is not None and kind == DATA and common_path:
                side = connection.sides[direction]
                if side.ready and side.position == position:
                    payload = heap[start:end]
                    cut = payload.find(b"\r\n\r\n") + 4
                    raw = payload if cut == end - start else payload[:cut]
                    waiting = cast("deque[Request]", connection.waiting)
                    if side.is_request:
                        request = requests.get(raw) or heads.requests.find(raw)
                        if request is not None and request.message_bytes == size and not waiting:
                            waiting.append(Request(request, time_ns, position, offset_ns))
                            side.position = position + size
                            side.nth = nth + 1
                            connection.last_ns = time_ns
                            continue
                    elif waiting and waiting[0].time_ns <= time_ns:
                        response = responses.get(raw) or heads.responses.find(raw)
                        if response is not None and response.message_bytes == size:
                            asked = waiting.popleft()
                            begin_ns, asked_offset_ns = asked.time_ns, asked.offset_ns
                            connection.process.spans.append(
                                complete_span(
                                    connection.endpoint,  # type: ignore[arg-type]  # set before a side is ready
                                    asked.known,
                                    asked.position,
                                    begin_ns + asked_offset_ns,
                                    response,
                                    time_ns + asked_offset_ns,
                                )
                            )
                            side.position = position + size
                            side.nth = nth + 1
                            connection.last_ns = time_ns
                            exchanges += 1
                            continue
            self._take(row, heap)
        self.shared.exchanges += exchanges

    def _take(self, row: tuple[int, ...], heap: bytes) -> None:
        """Any row."""
        time_ns, generation, position, size, nth, kind, direction, start, end, aux, pid, high_ns = row
        if kind == EXIT:
            self.exit(pid, time_ns)
            return
        connection = self.connections.get(generation) or self.open(generation, pid, kind)
        if connection is None:
            return
        self._release_if_due(connection, high_ns)
        connection.exchanges.offset_ns = self.offset_ns
        if kind == DATA:
            connection.data(direction, Segment(time_ns, position, size, nth, heap[start:end]))
        elif kind == EOF:
            connection.ended(RECEIVE, position, nth, time_ns)
        elif kind == SHUTDOWN and aux >= _SHUT_WR:
            connection.ended(SEND, position, nth, time_ns)
        elif kind == ERROR:
            connection.failed(_ERRORS.get(aux) or errno.errorcode.get(aux, "connection_error"), time_ns)
        elif kind == CLOSE:
            connection.closed(CONNECTION_CLOSED, time_ns, _totals(heap[start:end], CLOSE_LAYOUT))
            self.forget(connection)
            return
        self.settle(connection)

    # What has been found, and what is due.

    def settle(self, connection: Tracked) -> None:
        """Collect what a row brought, and keep account of what is held back."""
        self.collect(connection)
        shared = self.shared
        pending = connection.pending_bytes
        shared.pending_bytes += pending - connection.accounted_bytes
        connection.accounted_bytes = pending
        if shared.pending_bytes > self.limits.max_pending_bytes and pending:
            connection.shed()
            self.settle(connection)
        if connection.held_since_ns:
            self.holding[connection.generation] = connection
        else:
            self.holding.pop(connection.generation, None)

    def _release_if_due(self, connection: Tracked, high_ns: int) -> None:
        since_ns = connection.held_since_ns
        if since_ns and high_ns > since_ns + self.limits.reorder_ns:
            connection.release()
            self.settle(connection)

    def _release_due(self) -> None:
        for generation in sorted(self.holding):
            self._release_if_due(self.holding[generation], self.watermark_ns)

    def _expire_due(self) -> None:
        """Time out exchanges; looked for eight times per time-out."""
        timeout_ns = self.limits.exchange_timeout_ns
        if self.watermark_ns - self.scanned_ns >= timeout_ns // 8:
            self.scanned_ns = self.watermark_ns
            self.expire(self.watermark_ns - timeout_ns)

    def expire(self, before_ns: int) -> None:
        """Time out what is open on connections silent since then (monotonic)."""
        for connection in self.connections.values():
            if connection.last_ns < before_ns and (connection.is_open or connection.held_since_ns):
                connection.expire()
                self.settle(connection)

    def close(self) -> None:
        """The source is gone."""
        for connection in list(self.connections.values()):
            connection.closed(TIMEOUT, connection.last_ns, None)
            self.forget(connection)

    def take_spans(self, most_bytes: int) -> list[bytes]:
        """Encoded ResourceSpans of what was found since the last call, in an order of their own."""
        parts: list[bytes] = []
        for process in sorted(filter(_has_spans, self.processes.values()), key=_description):
            parts += process.take(most_bytes)
        return parts

    # Snapshots.

    def pack(self) -> list[Any]:
        numbers = {description: number for number, description in enumerate(self.processes)}
        return [
            list(self.key),
            [self.host_name, self.sequence, self.since_ns, self.watermark_ns, self.offset_ns, self.scanned_ns],
            list(self.origin),
            list(numbers),
            [connection.pack(numbers) for connection in self.connections.values()],
            list(self.closed),
        ]

    @classmethod
    def unpack(cls, packed: list[Any], shared: Shared) -> Source:
        key, values, origin, processes, connections, closed = packed
        host_name, sequence, since_ns, watermark_ns, offset_ns, scanned_ns = values
        source = cls((key[0], key[1], key[2], key[3]), host_name, shared, since_ns=since_ns)
        source.sequence, source.watermark_ns, source.offset_ns = sequence, watermark_ns, offset_ns
        source.scanned_ns = scanned_ns
        source.origin = (origin[0], origin[1])
        source.closed = dict.fromkeys(closed)
        known = [source.process(description) for description in processes]
        for description, process, pid, state in connections:
            connection = source.track(description, known[process], pid, anchored=True)
            connection.restore(state)
            source.settle(connection)
        return source


def _totals(payload: bytes, layout: Layout) -> Totals | None:
    if len(payload) != layout.size:
        return None
    totals = np.frombuffer(payload, layout.dtype)[0]
    return (
        (int(totals["received"]), int(totals["received_events"])),
        (int(totals["sent"]), int(totals["sent_events"])),
    )


def _has_spans(process: ProcessSpans) -> bool:
    return bool(process.spans)


def _description(process: ProcessSpans) -> bytes:
    return process.description
