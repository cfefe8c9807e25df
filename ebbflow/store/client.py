"""How the commands ask: the running store over HTTP, or, when none runs, its file.

DuckDB lets one process write or several read: while a store runs its file is locked, so it is asked itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import orjson

from ebbflow.config import StoreConfig
from ebbflow.errors import ConfigError, DependencyError, EbbflowError, NetworkError, StoreLocked
from ebbflow.store import queries
from ebbflow.store.database import Database

ALIVE_S = 5.0
TIMEOUT = httpx.Timeout(60.0, connect=2.0)
TOP_FIELDS = frozenset(queries.TopRow.__dataclass_fields__)


class Reader(Protocol):
    """Whoever answers questions about the store."""

    def spans(self, wanted: queries.SpanFilter) -> Iterator[bytes]:
        """Spans as JSON lines, newest first."""
        ...

    def trace(self, prefix: str) -> Iterator[bytes]:
        """One trace's spans as JSON lines, oldest first."""
        ...

    def top(self, window_s: float) -> queries.Top: ...


class FileReader:
    """Reads the file while no store has it open."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def spans(self, wanted: queries.SpanFilter) -> Iterator[bytes]:
        yield from queries.find_spans(self._database, wanted)

    def trace(self, prefix: str) -> Iterator[bytes]:
        yield from queries.find_trace(self._database, prefix)

    def top(self, window_s: float) -> queries.Top:
        return queries.find_top(self._database, int(window_s * 1e9))


class RemoteReader:
    """Asks a running store.

    Raises:
        ConfigError: the question is wrong; the store's own words.
        NetworkError: the store cannot be reached, or broke off.
        DependencyError: what answers is no store, or a store in trouble.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def alive(self) -> bool:
        """Whether anything listens where the store should be.

        Raises:
            NetworkError: something does, and says nothing.
        """
        try:
            self._client.get("/healthz", timeout=ALIVE_S)
        except httpx.ConnectError:
            return False
        except httpx.TimeoutException:
            raise NetworkError(
                f"what listens at {self._client.base_url} does not answer",
                hint="if it is no store (see `ss -ltnp`), set store.port to the store's port",
            ) from None
        except httpx.HTTPError:
            return True
        return True

    def spans(self, wanted: queries.SpanFilter) -> Iterator[bytes]:
        names = ("service", "status", "slower_than_ns", "since_ns", "limit")
        yield from self._lines("/api/traces", {name: getattr(wanted, name) for name in names})

    def trace(self, prefix: str) -> Iterator[bytes]:
        if not prefix.isalnum():
            raise ConfigError(f"{prefix!r} is no trace id", hint="a trace id is 32 hex digits; its beginning is enough")
        yield from self._lines(f"/api/traces/{prefix}", {})

    def top(self, window_s: float) -> queries.Top:
        found = orjson.loads(b"".join(self._lines("/api/top", {"window_s": window_s})))
        rows = [queries.TopRow(**{key: row[key] for key in TOP_FIELDS}) for row in found.pop("rows")]
        return queries.Top(rows=rows, **found)

    def _lines(self, path: str, parameters: dict[str, Any]) -> Iterator[bytes]:
        try:
            with self._client.stream("GET", path, params=parameters) as response:
                if response.is_error:
                    raise _refusal(response)
                for line in response.iter_lines():
                    yield line.encode() + b"\n"
        except httpx.HTTPError as error:
            raise NetworkError(
                f"the store at {self._client.base_url} does not answer: {error}", hint="is `ebbflow store` still up?"
            ) from None


def _refusal(response: httpx.Response) -> EbbflowError:
    """The store's error, rebuilt from its answer."""
    body = response.read()
    try:
        found = orjson.loads(body)
        message, hint = str(found["error"]), str(found.get("hint", ""))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return DependencyError(
            f"{response.request.url.host}:{response.request.url.port} is not an ebbflow store",
            hint="set store.port to the store's port",
        )
    return (ConfigError if response.status_code == httpx.codes.BAD_REQUEST else DependencyError)(message, hint=hint)


@contextmanager
def connect(config: StoreConfig) -> Iterator[Reader]:
    """Whoever can answer: the store when it runs, else its file.

    Raises:
        DependencyError: neither is there.
        StoreError: the file cannot be read.
    """
    base_url = f"http://{config.host}:{config.port}"
    # No proxy, whatever the environment says: the store is on this machine.
    with httpx.Client(base_url=base_url, timeout=TIMEOUT, trust_env=False) as client:
        remote = RemoteReader(client)
        if remote.alive():
            yield remote
            return
    with _open_file(config.path, base_url) as database:
        yield FileReader(database)


@contextmanager
def _open_file(path: Path, base_url: str) -> Iterator[Database]:
    if not path.exists():
        raise DependencyError(
            f"no store at {base_url}, and no file {path}", hint="start one with `ebbflow store`, or all with `make run`"
        )
    try:
        database = Database(path, read_only=True)
    except StoreLocked as error:
        raise StoreLocked(f"{error}, but nothing answers at {base_url}", hint="set store.port to its port") from None
    try:
        yield database
    finally:
        database.close()
