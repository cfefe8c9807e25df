"""What all sources of a processor share: limits, caches, counts, and the sums that are bounded."""

from __future__ import annotations

from dataclasses import dataclass

from ebbflow.protocols.http1_heads import Heads
from ebbflow.protocols.http1_messages import Exchange, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """Attributes:
    exchange_timeout_ns: an exchange without any event for so long is emitted as incomplete.
    reorder_ns: a missing event is given up when events so much later than its successor have come.
    max_connections, max_pending_bytes: of all sources together.
    max_closed: connections remembered after their end, per source, to know late events from new connections.
    max_processes: descriptions remembered per source.
    """

    exchange_timeout_ns: int = 300_000_000_000
    reorder_ns: int = 200_000_000
    max_connections: int = 100_000
    max_pending_bytes: int = 64 << 20
    max_closed: int = 4096
    max_processes: int = 4096


@dataclass(slots=True)
class Shared:
    """`common_path` False: everything is read the long way. `finished`: exchanges not yet made spans.

    The counts are those since the last record; `connections` and `pending_bytes` are current.
    """

    limits: RequestLimits
    common_path: bool
    heads: Heads
    tally: Tally
    finished: list[Exchange]
    connections: int = 0
    pending_bytes: int = 0
    exchanges: int = 0
    incomplete: int = 0
    evicted: int = 0
