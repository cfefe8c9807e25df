"""What is the same and what differs between OTLP's signals, as far as carrying them goes.

    TracesData                          wire-identical to ExportTraceServiceRequest; two of them, one after the other,
     └─ resource_spans[]                are one with the resources of both (protobuf merges repeated fields)
         └─ scope_spans[]
             └─ spans[]                 the items that are counted, exported and rejected

Reference: opentelemetry-proto docs/specification.md; the Collector's kafka receiver and exporter, encoding otlp_proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from ebbflow.errors import ValidationError

TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal.

    Attributes:
        path: appended to a base URL for OTLP/HTTP.
        method: full name of the gRPC method.
        levels: names of the repeated fields from the message down to the items.
        rejected: field of the response's partial success that counts what was refused.
    """

    name: str
    path: str
    method: str
    data: type[Message]
    response: type[Message]
    levels: tuple[str, str, str]
    rejected: str

    def count(self, value: bytes) -> int:
        """Items in a serialised message, which is checked on the way.

        Raises:
            ValidationError: not such a message, one without items, or an id of a wrong length: backends refuse the
                whole request for one of these, and with it whatever was sent along.
        """
        message = self._parse(value)
        items = sum(len(group) for group in self._groups(message))
        if not items and value:
            raise ValidationError(f"not {self.data.DESCRIPTOR.name}: no {self.levels[2]} in {len(value)} bytes")
        if not all(_has_good_ids(item) for group in self._groups(message) for item in group):
            raise ValidationError(f"{self.levels[2]} with an id that is not {TRACE_ID_BYTES} or {SPAN_ID_BYTES} bytes")
        return items

    def halve(self, value: bytes) -> tuple[bytes, bytes] | None:
        """Two messages that hold the items of one, split where it costs least; None when it has a single item.

        Raises:
            ValidationError: not such a message.
        """
        message = self._parse(value)
        holder: Any = message
        for level in self.levels:
            entries = getattr(holder, level)
            if len(entries) != 1:
                return self._split_at(message, level, len(entries) // 2) if entries else None
            holder = entries[0]
        return None

    def _split_at(self, message: Message, level: str, middle: int) -> tuple[bytes, bytes]:
        """All levels above `level` have one entry, which both halves get."""
        halves = []
        for part in (slice(middle, None), slice(middle)):
            half: Any = type(message)()
            half.CopyFrom(message)
            holder = half
            for name in self.levels[: self.levels.index(level)]:
                holder = getattr(holder, name)[0]
            del getattr(holder, level)[part]
            halves.append(half.SerializeToString())
        return halves[0], halves[1]

    def _parse(self, value: bytes) -> Message:
        try:
            return self.data.FromString(value)
        except DecodeError as error:
            raise ValidationError(f"not {self.data.DESCRIPTOR.name}: {error}") from None

    def _groups(self, message: Any) -> Iterator[Any]:
        resources, scopes, items = self.levels
        for resource in getattr(message, resources):
            for scope in getattr(resource, scopes):
                yield getattr(scope, items)


def _has_good_ids(span: Any) -> bool:
    return len(span.trace_id) == TRACE_ID_BYTES and len(span.span_id) == SPAN_ID_BYTES


TRACES = Signal(
    name="traces",
    path="/v1/traces",
    method="/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    data=TracesData,
    response=ExportTraceServiceResponse,
    levels=("resource_spans", "scope_spans", "spans"),
    rejected="rejected_spans",
)
