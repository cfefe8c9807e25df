"""OTLP/HTTP with binary protobuf: POST over kept connections, gzip, TLS.

Retried are 429, 502, 503, 504 and whatever ends without an answer; everything else is final. `Retry-After` counts in
seconds or names a date. Whatever comes back is read up to `MAX_RESPONSE_BYTES`, before and after decompression.

Reference: opentelemetry-proto docs/specification.md, "OTLP/HTTP"; RFC 9110 10.2.3 (Retry-After).
"""

from __future__ import annotations

import asyncio
import gzip
import ssl
import time
import zlib
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

import httpx
import orjson
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from ebbflow.errors import ConfigError, EbbflowError, InternalError, NetworkError, RateLimited, Rejected, TooLarge
from ebbflow.otlp.export.answer import MAX_RESPONSE_BYTES, MAX_RETRY_AFTER_S, Accepted, read_response, shorten
from ebbflow.otlp.signals import Signal

RETRIABLE = frozenset({429, 502, 503, 504})
CONTENT_TOO_LARGE = 413
# Compressing less than this is quicker than handing it to a thread.
THREAD_BYTES = 64 << 10
GZIP_LEVEL = 1  # three times as fast as the default for the same ratio on spans

_HINTS = {
    400: "look at what was refused: `ebbflow dlq`",
    401: "set the backend's credentials in otlp.headers",
    403: "set the backend's credentials in otlp.headers",
    404: "check otlp.endpoint (a base URL) and otlp.traces_endpoint (used as given)",
    405: "check otlp.endpoint (a base URL) and otlp.traces_endpoint (used as given)",
    415: "the backend does not take OTLP protobuf at this URL; check otlp.endpoint",
}

# httpx's errors, by the base that decides; a test fails for one that has none here.
FOREIGN: dict[type[Exception], type[EbbflowError]] = {
    httpx.NetworkError: NetworkError,
    httpx.TimeoutException: NetworkError,
    httpx.ProxyError: NetworkError,
    httpx.RemoteProtocolError: NetworkError,
    httpx.DecodingError: NetworkError,
    httpx.LocalProtocolError: ConfigError,
    httpx.UnsupportedProtocol: ConfigError,
    httpx.InvalidURL: ConfigError,
    httpx.TooManyRedirects: InternalError,
    httpx.HTTPStatusError: InternalError,
    httpx.StreamError: InternalError,
    httpx.CookieConflict: InternalError,
}


class HttpExporter:
    """Posts to one URL.

    Args:
        url: used as given.
        headers: sent along; content headers are ours.
        compress: gzip the body.
        timeout_s: for one whole request, connection and answer included.
        tls: context for https.
        use_proxy: honour HTTPS_PROXY and its like.
    """

    def __init__(
        self,
        signal: Signal,
        url: str,
        *,
        headers: Mapping[str, str],
        compress: bool,
        timeout_s: float,
        tls: ssl.SSLContext | None = None,
        use_proxy: bool = True,
        clock_unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._signal = signal
        self._url = url
        self._compress = compress
        self._timeout_s = timeout_s
        self._clock_unix_s = clock_unix_s
        ours = {"content-type": "application/x-protobuf", "accept-encoding": "gzip", "user-agent": "ebbflow"}
        if compress:
            ours["content-encoding"] = "gzip"
        self._client = httpx.AsyncClient(
            headers={name.lower(): value for name, value in headers.items()} | ours,
            timeout=None,  # noqa: S113 - `send` limits the whole exchange, not its single reads
            verify=tls if tls is not None else False,  # False: the URL is plain http
            trust_env=use_proxy,
        )

    async def send(self, body: bytes) -> Accepted:
        content = await _gzip(body) if self._compress else body
        try:
            async with asyncio.timeout(self._timeout_s):
                status, headers, answer = await self._post(content)
        except TimeoutError:
            raise NetworkError(f"no answer from {self._url} in {self._timeout_s:g} s", hint=_AWAY) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise _translate(error, self._url) from None
        return judge(self._signal, status, headers, answer, self._clock_unix_s())

    async def close(self) -> None:
        await self._client.aclose()

    async def _post(self, content: bytes) -> tuple[int, httpx.Headers, bytes | None]:
        """Status, headers and the decompressed body; None for one that is too large."""
        async with self._client.stream("POST", self._url, content=content) as response:
            chunks, size = [], 0
            async for chunk in response.aiter_raw():
                chunks.append(chunk)
                size += len(chunk)
                if size > MAX_RESPONSE_BYTES:
                    return response.status_code, response.headers, None
            return response.status_code, response.headers, _decode(b"".join(chunks), response.headers)


def judge(signal: Signal, status: int, headers: Mapping[str, str], body: bytes | None, now_unix_s: float) -> Accepted:
    """What an answer means: `headers` with names in lower case, `body` decompressed.

    A body of None was too large to read, which is final whatever the status says.

    Raises:
        RateLimited, NetworkError, TooLarge, Rejected: see `Exporter.send`.
    """
    if body is None:
        raise Rejected(f"HTTP {status} with more than {MAX_RESPONSE_BYTES} bytes, discarded", hint=_HINTS[404])
    json = headers.get("content-type", "").startswith("application/json")
    if httpx.codes.is_success(status):
        return _read_json(signal, body) if json else read_response(signal, body)
    text = f"HTTP {status} {_reason(body, json=json) or httpx.codes.get_reason_phrase(status)}".strip()
    if status in RETRIABLE:
        retry_after_s = read_retry_after(headers.get("retry-after", ""), now_unix_s)
        if retry_after_s is not None:
            raise RateLimited(text, retry_after_s=retry_after_s, hint=_BUSY)
        raise NetworkError(text, hint=_BUSY)
    if status == CONTENT_TOO_LARGE:
        raise TooLarge(text, hint="lower otlp.batch_bytes, or raise the backend's request limit")
    if httpx.codes.is_redirect(status):
        text += f" to {shorten(headers.get('location', ''))}"
    raise Rejected(text, hint=_HINTS.get(status, "see the backend's log; what was refused is in `ebbflow dlq`"))


def read_retry_after(text: str, now_unix_s: float) -> float | None:
    """Seconds to wait, from a number of seconds or an HTTP date; None when it is neither."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        date_unix_s = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(0.0, date_unix_s - now_unix_s), MAX_RETRY_AFTER_S)


_AWAY = "check that the backend runs at otlp.endpoint: `ebbflow doctor`"
_BUSY = "the backend is busy or restarting; data waits in Kafka"


async def _gzip(body: bytes) -> bytes:
    if len(body) < THREAD_BYTES:
        return gzip.compress(body, GZIP_LEVEL, mtime=0)
    return await asyncio.to_thread(gzip.compress, body, GZIP_LEVEL, mtime=0)


def _decode(body: bytes, headers: Mapping[str, str]) -> bytes | None:
    """A body without its content coding; empty when it cannot be had, None when it would be too large."""
    if headers.get("content-encoding", "identity") not in {"gzip", "x-gzip"}:
        return body
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        decoded = decoder.decompress(body, MAX_RESPONSE_BYTES)
    except zlib.error:
        return b""
    return None if decoder.unconsumed_tail else decoded


def _read_json(signal: Signal, body: bytes) -> Accepted:
    """A JSON `Export*ServiceResponse`: lowerCamelCase names, 64-bit numbers as text or number."""
    first, _, rest = signal.rejected.partition("_")
    try:
        partial = orjson.loads(body).get("partialSuccess") or {}
        return Accepted(
            max(0, int(partial.get(first + rest.title(), 0))), shorten(str(partial.get("errorMessage", "")))
        )
    except (ValueError, TypeError, AttributeError):
        return Accepted(0, f"accepted with {len(body)} bytes that are no JSON answer")


def _reason(body: bytes, *, json: bool) -> str:
    """The message of a `google.rpc.Status`; nothing when the body is something else."""
    try:
        text = orjson.loads(body).get("message", "") if json else Status.FromString(body).message
    except (DecodeError, ValueError, AttributeError):
        return ""
    return shorten(str(text))


def _translate(error: Exception, url: str) -> EbbflowError:
    ours = next((ours for theirs, ours in FOREIGN.items() if isinstance(error, theirs)), InternalError)
    hint = _AWAY if ours is NetworkError else "check otlp.endpoint and otlp.headers: `ebbflow config`"
    return ours(f"{url}: {shorten(str(error)) or type(error).__name__}", hint=hint)
