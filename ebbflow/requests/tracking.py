"""A connection as the processor keeps it: its protocol state, and what the batches' dictionaries say about it."""

from __future__ import annotations

from typing import Any

from ebbflow.otlp.encode import resource_spans
from ebbflow.otlp.http_spans import Endpoint
from ebbflow.otlp.resources import SCOPE, endpoint, process_resource
from ebbflow.otlp.semconv import SCHEMA_URL
from ebbflow.protocols.http1_connection import RECEIVE, SEND, Connection, Totals
from ebbflow.protocols.http1_heads import Heads
from ebbflow.protocols.http1_messages import Exchange, Tally
from ebbflow.protocols.stream import ANYWHERE
from ebbflow.v1 import raw_pb2

_REQUEST_DIRECTIONS = {raw_pb2.ROLE_SERVER: RECEIVE, raw_pb2.ROLE_CLIENT: SEND}
_UNANCHORED: Totals = ((ANYWHERE, 0), (ANYWHERE, 0))


class ProcessSpans:
    """The spans of one process that are waiting to be written; `description` is the dictionary entry, serialised."""

    __slots__ = ("_resource", "description", "spans")

    def __init__(self, host_id: str, host_name: str, description: bytes) -> None:
        self.description = description
        self.spans: list[bytes] = []
        self._resource = process_resource(host_id, host_name, raw_pb2.Process.FromString(description))

    def take(self, most_bytes: int) -> list[bytes]:
        """ResourceSpans of all spans so far, none much larger than `most_bytes` if single spans are not."""
        parts: list[list[bytes]] = [[]]
        size = 0
        for span in self.spans:
            if size + len(span) > most_bytes and parts[-1]:
                parts.append([])
                size = 0
            parts[-1].append(span)
            size += len(span)
        self.spans = []
        return [resource_spans(self._resource, SCOPE, part, SCHEMA_URL) for part in parts if part]


class Tracked(Connection):
    """One connection.

    Attributes:
        generation: its key.
        description: the dictionary entry, serialised without the index of its process.
        endpoint: what its spans share; None until the direction of requests is known.
        pid: of its first row; its end ends the connection.
        accounted_bytes: pending bytes as last added to the processor's sum.
    """

    __slots__ = ("accounted_bytes", "description", "endpoint", "generation", "pid", "process")

    def __init__(
        self,
        description: bytes,
        process: ProcessSpans,
        pid: int,
        *,
        anchored: bool,
        heads: Heads,
        tally: Tally,
        finished: list[Exchange],
    ) -> None:
        entry = raw_pb2.Connection.FromString(description)
        super().__init__(
            _REQUEST_DIRECTIONS.get(entry.role),
            aligned=anchored and entry.origin != raw_pb2.ORIGIN_BEFORE,
            heads=heads,
            tally=tally,
            finished=finished,
            start=((0, 0), (0, 0)) if anchored else _UNANCHORED,
        )
        self.generation: int = entry.generation
        self.description = description
        self.process = process
        self.pid = pid
        self.endpoint: Endpoint | None = None
        self.accounted_bytes = 0

    def describe(self, description: bytes, process: ProcessSpans) -> None:
        """A batch says something else about the connection, or about its process."""
        self.process = process
        if description != self.description:
            self.description = description
            self.endpoint = None
            role = raw_pb2.Connection.FromString(description).role
            if self.request_direction is None and role in _REQUEST_DIRECTIONS:
                self.decide(_REQUEST_DIRECTIONS[role])

    def resolve(self, host_id: str, boot_id: bytes) -> None:
        """Set the endpoint once the direction of requests is known."""
        if self.endpoint is None and self.request_direction is not None:
            entry = raw_pb2.Connection.FromString(self.description)
            self.endpoint = endpoint(host_id, boot_id, entry, is_server=self.is_server)

    def pack(self, processes: dict[bytes, int]) -> list[Any]:
        """For a snapshot; `processes` numbers the descriptions."""
        return [self.description, processes[self.process.description], self.pid, self.state()]
