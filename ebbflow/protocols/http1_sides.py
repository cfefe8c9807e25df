"""The two directions of a connection, and what each does with its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebbflow.protocols.http1 import MessageReader
from ebbflow.protocols.http1_framing import Framing
from ebbflow.protocols.stream import StreamBuffer

if TYPE_CHECKING:
    from ebbflow.protocols.http1_connection import Connection


class RequestListener:
    """What a connection does with requests."""

    certain = True

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def began(self, head: bytes, time_ns: int, position: int) -> Framing:
        connection = self._connection
        if not connection.exchanges.requests:
            connection.responses.settle(time_ns)
        return connection.exchanges.ask(head, time_ns, position)

    def ended(self, time_ns: int, body_bytes: int) -> None:
        del time_ns
        self._connection.exchanges.asked(body_bytes)

    def lost(self, messages: int, until_ns: int) -> None:
        self._connection.exchanges.lose_requests(messages, until_ns)

    def refused(self) -> None:
        self._connection.refuse()


class ResponseListener:
    """What a connection does with responses."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.certain = True

    def began(self, head: bytes, time_ns: int, position: int) -> Framing | None:
        framing, self.certain = self._connection.exchanges.answer(head, time_ns, position)
        return framing

    def ended(self, time_ns: int, body_bytes: int) -> None:
        self._connection.exchanges.answered(time_ns, body_bytes)

    def lost(self, messages: int, until_ns: int) -> None:
        self._connection.exchanges.lose_responses(messages, until_ns)

    def refused(self) -> None:
        self._connection.refuse()


class Side(StreamBuffer):
    """One direction: its stream, its reader, and whether the next event may take the common path.

    `ready`: nothing is held or unfinished here, and the exchanges are orderly. Then an event that is exactly one
    message needs no more than to be paired.
    """

    __slots__ = ("is_request", "listener", "reader", "ready")

    def __init__(self, position: int, nth: int) -> None:
        super().__init__(position, nth)
        self.is_request = False
        self.ready = False
        self.reader: MessageReader
        self.listener: RequestListener | ResponseListener
