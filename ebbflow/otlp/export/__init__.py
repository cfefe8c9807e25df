"""OTLP clients: HTTP and gRPC, what their answers mean, and how often something is sent.

    Courier         joins records into requests, splits what is too large, repeats what may pass, accounts for the rest
     └─ Exporter    one request, one answer: `Accepted`, or an error whose attributes say what to do
         ├─ HttpExporter
         └─ GrpcExporter

    error           retriable    what the courier does
    NetworkError    yes          sends the same request again after a backoff
    RateLimited     yes          the same, and not before `retry_after_s`
    TooLarge        no           sends both halves; a single item becomes a dead letter
    Rejected        no           dead letters

Reference: opentelemetry-proto docs/specification.md v1.11, "OTLP/gRPC", "OTLP/HTTP", "Partial Success".
"""

from ebbflow.otlp.export.answer import Accepted, Exporter
from ebbflow.otlp.export.choose import make_exporter
from ebbflow.otlp.export.courier import Courier, Parcel

__all__ = ["Accepted", "Courier", "Exporter", "Parcel", "make_exporter"]
