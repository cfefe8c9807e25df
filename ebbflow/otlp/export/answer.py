"""What a backend may answer, whatever the transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from ebbflow.otlp.signals import Signal

# A peer's answer is a few bytes; this bounds what a broken or hostile one can make us hold. OTLP: 4 MiB recommended.
MAX_RESPONSE_BYTES = 4 << 20
# Longer waits are taken for a mistake of the peer's.
MAX_RETRY_AFTER_S = 3600.0
MAX_MESSAGE_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Accepted:
    """The backend took the request: all of it but `rejected` items. `message` is its warning, if any."""

    rejected: int = 0
    message: str = ""


class Exporter(Protocol):
    """One request, one answer; knows nothing of retries."""

    async def send(self, body: bytes) -> Accepted:
        """Send a serialised export request.

        Raises:
            NetworkError, RateLimited: the same request may succeed later.
            TooLarge: a smaller one may.
            Rejected: it never will.
        """

    async def close(self) -> None: ...


def read_response(signal: Signal, body: bytes) -> Accepted:
    """What an `Export*ServiceResponse` says. One that cannot be read was still an answer of success."""
    try:
        response: Any = signal.response.FromString(body)
    except DecodeError:
        return Accepted(0, f"accepted with {len(body)} bytes that are no {signal.response.DESCRIPTOR.name}")
    partial = response.partial_success
    return Accepted(max(0, getattr(partial, signal.rejected)), shorten(partial.error_message))


def shorten(text: str) -> str:
    """A peer's text, fit for a log line: one line, printable, bounded."""
    cut = text[:MAX_MESSAGE_CHARACTERS]
    return "".join(character if character.isprintable() else " " for character in cut).strip()
