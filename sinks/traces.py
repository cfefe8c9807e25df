"""Traces: serialised TracesData from `otlp_spans` to an OTLP backend, as it stands.

Input     otlp_spans, otlp_proto; whoever wrote it
Output    OTLP/HTTP or OTLP/gRPC, one request for many records; the embedded store when no endpoint is configured
Memory    one fetch of a partition, and one request
Repeats   after a crash the same bytes are sent again; backends that key on span ids do not notice
Refused   by the backend, or no spans at all: dead letters, counted; a partial success is counted and not repeated
"""

from __future__ import annotations

from random import SystemRandom
from typing import ClassVar, Self

from ebbflow.component import Delivery, Record, Report, Sink
from ebbflow.config import Config
from ebbflow.otlp.export import Courier, Exporter, Parcel, make_exporter
from ebbflow.otlp.signals import TRACES
from ebbflow.topics import OTLP_SPANS


class TracesSink(Sink):
    """Exports spans over OTLP."""

    name: ClassVar[str] = "traces"
    inputs: ClassVar[tuple[str, ...]] = (OTLP_SPANS,)

    def __init__(self, exporter: Exporter, courier: Courier) -> None:
        self._exporter = exporter
        self._courier = courier
        self._parcels: list[Parcel] = []

    @classmethod
    def from_config(cls, config: Config) -> Self:
        exporter = make_exporter(config, TRACES)
        courier = Courier(TRACES, exporter, batch_bytes=config.otlp.batch_bytes, random=SystemRandom())
        return cls(exporter, courier)

    async def add(self, record: Record) -> None:
        self._parcels.append(Parcel(record, TRACES.count(record.value)))

    async def flush(self, report: Report) -> list[Delivery]:
        parcels, self._parcels = self._parcels, []
        await self._courier.deliver(parcels, report)
        return [parcel.to_delivery() for parcel in parcels]

    async def close(self) -> None:
        await self._exporter.close()
