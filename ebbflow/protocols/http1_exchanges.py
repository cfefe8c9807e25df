"""Pairs the requests of a connection with its responses: first in, first out (RFC 9112, section 9.3.2).

    requests   [R4, Lost(2), R7]   unanswered
    responses  [S3, Lost(1)]       whose requests have not been seen
    current    S                   the response that is being read

At most one of the two queues holds anything: what arrives on one side first meets what waits on the other.

    request  + response          an exchange
    request  + lost response     an incomplete exchange, `data_lost`
    lost     + response          an incomplete exchange without a request, `data_lost`
    lost     + lost              counted in `lost_exchanges`
    nothing  + response          an orphan: its request went by before the connection was watched; counted

Counting alone keeps the pairs right as long as the numbers of lost messages are right, and they are estimates where a
message is more than one event. So after a loss, time has a say: a response does not answer what was asked later, and
on a connection that never pipelined it does not answer a request that was followed by another before it. When both
sides are empty again the loss is behind us.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from ebbflow.protocols.http1_framing import Framing, Kind, response_framing
from ebbflow.protocols.http1_heads import Heads
from ebbflow.protocols.http1_messages import (
    Exchange,
    Lost,
    Request,
    Response,
    Tally,
    pack_request,
    pack_response,
    unpack_request,
    unpack_response,
)

MAX_WAITING = 1024
DATA_LOST = "data_lost"


class Exchanges:
    """The pairing of one connection.

    Args:
        half_seen: there may be responses whose requests went by unseen.
        finished: where exchanges go.

    Attributes:
        offset_ns: of the batch being read.
        gapped: messages were lost and the two sides have not come to rest since.
        request_gap: some of them may have been requests.
        lossy: messages were lost at some time.
        pipelined: the client sends requests before it has the responses to earlier ones.
        started: a head was seen.
        strict: a response can never be stamped before its request (a server stamps in this order).
        tunnelled: the connection speaks something else from here on.
    """

    __slots__ = (
        "_finished",
        "_heads",
        "_tally",
        "current",
        "gapped",
        "lossy",
        "offset_ns",
        "pipelined",
        "request_gap",
        "requests",
        "responses",
        "started",
        "strict",
        "tunnelled",
    )

    def __init__(self, heads: Heads, tally: Tally, finished: list[Exchange], *, half_seen: bool) -> None:
        self._heads = heads
        self._tally = tally
        self._finished = finished
        self.strict = False
        self.requests: deque[Request | Lost] = deque()
        self.responses: deque[Response | Lost] = deque()
        self.current: Response | None = None
        self.gapped = half_seen
        self.request_gap = False
        self.pipelined = False
        self.lossy = False
        self.started = False
        self.tunnelled = False
        self.offset_ns = 0

    @property
    def quiet(self) -> bool:
        """Nothing is open on either side."""
        return not self.requests and not self.responses and self.current is None

    @property
    def orderly(self) -> bool:
        """Requests and responses alternate and none is missing."""
        return not self.gapped and not self.responses and self.current is None and len(self.requests) <= 1

    # The request side.

    def ask(self, raw: bytes, time_ns: int, position: int) -> Framing:
        """A request head. Raises ProtocolError where there is none."""
        known = self._heads.requests.get(raw)
        self.started = True
        request = Request(known, time_ns, position, self.offset_ns)
        while self.responses and self._is_before(self.responses[0], time_ns):
            self._orphan(self.responses.popleft())
        if not self.responses:
            self._wait(request)
        elif isinstance(first := self.responses[0], Lost):
            _take_lost(self.responses)
            self._finish(request, None, DATA_LOST)
        else:
            self.responses.popleft()
            first.request, first.matched = request, True
            self._finish_ended(first)
        return known.framing

    def asked(self, body_bytes: int) -> None:
        """The request last begun has ended; its chunked body had this size."""
        last = self.requests[-1] if self.requests else self.current.request if self.current else None
        if isinstance(last, Request) and last.known.framing.kind is Kind.CHUNKED:
            last.body_bytes = body_bytes

    def lose_requests(self, number: int, until_ns: int) -> None:
        self.gapped = self.request_gap = self.lossy = True
        while number and self.responses:
            first = self.responses[0]
            if isinstance(first, Lost):
                paired = _take_lost(self.responses, number)
                self._tally.lost_exchanges += paired
                number -= paired
            else:
                self.responses.popleft()
                first.matched = True
                self._finish_ended(first)
                number -= 1
        if number:
            self.requests.append(Lost(number, until_ns))

    # The response side.

    def answer(self, raw: bytes, time_ns: int, position: int) -> tuple[Framing | None, bool]:
        """A response head; raises ProtocolError where there is none.

        Returns:
            its framing, None for an interim response; whether the request that decides on it is known.
        """
        known = self._heads.responses.get(raw)
        self.started = True
        if known.is_interim:
            return None, True
        response = Response(known, time_ns, position, self.offset_ns, time_ns)
        self._realign(time_ns)
        self._match(response)
        self.current = response
        method = response.request.known.head.method if response.request else None
        framing = response_framing(known.head, method)
        if framing.kind is Kind.TUNNEL:
            self._tunnel(time_ns)
        return framing, response.request is not None

    def answered(self, time_ns: int, body_bytes: int) -> None:
        """The response being read has ended."""
        response, self.current = self.current, None
        if response is not None:
            response.last_ns, response.body_bytes, response.ended = time_ns, body_bytes, True
            if response.matched:
                self._finish_ended(response)

    def lose_responses(self, number: int, until_ns: int) -> None:
        self.gapped = self.lossy = True
        while number and self.requests:
            first = self.requests[0]
            if isinstance(first, Lost):
                paired = _take_lost(self.requests, number)
                self._tally.lost_exchanges += paired
                number -= paired
            else:
                self.requests.popleft()
                self._finish(first, None, DATA_LOST)
                number -= 1
        if number:
            self.gapped = True
            self.responses.append(Lost(number, until_ns))

    # Ends.

    def abort(self, reason: str, time_ns: int, last_ns: int) -> None:
        """Nothing that is open will be completed any more; `last_ns`: the last event of the current response."""
        response, self.current = self.current, None
        if response is not None:
            response.last_ns, response.ended = max(last_ns, response.time_ns), True
            if response.matched:
                self._finish(response.request, response, reason, time_ns)
        while self.requests:
            first = self.requests.popleft()
            if isinstance(first, Lost):
                self._tally.lost_exchanges += first.number
            else:
                self._finish(first, None, reason, time_ns)
        while self.responses:
            self._orphan(self.responses.popleft())
        self.gapped = True  # whatever still comes does not belong to what follows

    # Details.

    def _is_before(self, response: Response | Lost, time_ns: int) -> bool:
        """Whether a waiting response cannot be the answer to a request of that time."""
        latest_ns = response.until_ns if isinstance(response, Lost) else response.time_ns
        return (self.strict or self.gapped) and latest_ns < time_ns

    def _wait(self, request: Request) -> None:
        if self.requests and isinstance(last := self.requests[-1], Request) and last.time_ns == request.time_ns:
            self.pipelined = True  # two heads in one event
        self.requests.append(request)
        if len(self.requests) > MAX_WAITING:
            first = self.requests.popleft()
            if isinstance(first, Lost):
                self._tally.lost_exchanges += first.number
            else:
                self._finish(first, None, "too_many_requests_waiting")

    def _realign(self, time_ns: int) -> None:
        """See what the response of that time says about requests that wait longer than its own."""
        requests = self.requests
        while len(requests) > 1 and isinstance(second := requests[1], Request) and second.time_ns < time_ns:
            if not self.lossy:
                self.pipelined = True
            if self.pipelined or not self.gapped:
                return
            first = requests.popleft()
            if isinstance(first, Lost):
                self._tally.lost_exchanges += first.number
            else:
                self._finish(first, None, DATA_LOST)

    def _match(self, response: Response) -> None:
        if not self.requests:
            self.responses.append(response)
            if len(self.responses) > MAX_WAITING:
                self._orphan(self.responses.popleft())
        elif isinstance(first := self.requests[0], Lost):
            _take_lost(self.requests)
            response.matched = True
        elif (self.strict or self.gapped) and response.time_ns < first.time_ns:
            self._tally.orphan_responses += 1  # never matched, never finished
        else:
            self.requests.popleft()
            response.request, response.matched = first, True

    def _finish_ended(self, response: Response) -> None:
        """A matched response is an exchange once it has ended."""
        if response.ended:
            lost = response.request is None
            self._finish(response.request, response, DATA_LOST if lost else "", response.last_ns)

    def _finish(self, request: Request | None, response: Response | None, incomplete: str, end_ns: int = 0) -> None:
        first_ns = request.time_ns if request else response.time_ns if response else 0
        self._finished.append(Exchange(request, response, max(end_ns, first_ns), incomplete))
        if self.quiet:
            self.gapped = self.request_gap = False

    def _orphan(self, response: Response | Lost) -> None:
        if isinstance(response, Lost):
            return
        response.matched = self.request_gap
        if self.request_gap:
            self._finish_ended(response)
        else:
            self._tally.orphan_responses += 1

    def _tunnel(self, time_ns: int) -> None:
        self._tally.tunnels += 1
        self.answered(time_ns, -1)
        self.tunnelled = True

    def state(self) -> list[Any]:
        """For a snapshot."""
        waiting = [index for index, response in enumerate(self.responses) if response is self.current]
        flags = [self.gapped, self.request_gap, self.lossy, self.pipelined, self.started, self.strict, self.tunnelled]
        return [
            self.offset_ns,
            flags,
            [pack_request(request) for request in self.requests],
            [pack_response(response) for response in self.responses],
            waiting[0] if waiting else None if self.current is None else pack_response(self.current),
        ]

    def restore(self, state: list[Any]) -> None:
        self.offset_ns, flags, requests, responses, current = state
        self.gapped, self.request_gap, self.lossy, self.pipelined, self.started, self.strict, self.tunnelled = flags
        self.requests.extend(unpack_request(request, self._heads) for request in requests)
        self.responses.extend(unpack_response(response, self._heads) for response in responses)
        found = (
            self.responses[current] if isinstance(current, int) else current and unpack_response(current, self._heads)
        )
        self.current = found if isinstance(found, Response) else None


def _take_lost(queue: deque[Request | Lost] | deque[Response | Lost], most: int = 1) -> int:
    """Take up to `most` lost messages off the queue's head; returns how many."""
    first = queue[0]
    assert isinstance(first, Lost)  # noqa: S101 - the caller looked
    taken = min(first.number, most)
    first.number -= taken
    if not first.number:
        queue.popleft()
    return taken
