"""What a connection counts once it has become a tunnel."""

from __future__ import annotations

from ebbflow.protocols.http1_connection import RECEIVE, SEND, Connection
from ebbflow.protocols.http1_heads import Heads
from ebbflow.protocols.http1_messages import Tally
from ebbflow.protocols.stream import Segment

REQUEST = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
RESPONSE = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


def test_tunnel_that_ends_has_lost_nothing() -> None:
    tally = Tally()
    tunnel = Connection(RECEIVE, aligned=True, heads=Heads(), tally=tally, finished=[])
    tunnel.data(RECEIVE, Segment(1, 0, len(REQUEST), 0, REQUEST))
    tunnel.data(SEND, Segment(2, 0, len(RESPONSE), 0, RESPONSE))
    tunnel.data(RECEIVE, Segment(3, len(REQUEST), 5, 1, b"hello"))
    tunnel.ended(RECEIVE, len(REQUEST) + 5, 2, 4)
    assert (tally.tunnels, tally.opaque_events, tally.lost_events) == (1, 1, 0)
