"""The DuckDB file: opening it, adding spans once, forgetting old ones.

A span that arrives twice is stored once: an upstream that repeats does so with the same ids and the same start, so a
batch is compared with the rows of its own time range only, which zone maps make cheap (1.7 ms for 10,000 spans against
10 million rows, 50-85 ms without the range). It holds across restarts because the file is what is compared with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from ebbflow.errors import PermissionDenied, StoreCorrupt, StoreError, StoreNewer
from ebbflow.store.columns import SCHEMA, SCHEMA_VERSION, SPAN_COLUMNS, Batch, Row, to_batch
from ebbflow.store.database_errors import translated
from ebbflow.store.gate import Gate

MEMORY_LIMIT = "1GB"
MAX_WAL_BYTES = 64 << 20
FETCH_ROWS = 1000
READERS_END_WITHIN_S = 5.0
# A quarter of DuckDB's default: as fast here, and a small `max_bytes` can be kept to (an empty store has six blocks).
BLOCK_BYTES = 65_536
# DuckDB reuses freed blocks but gives back only those at the file's end: up to half of a busy file is free space.
LIVE_SHARE = 0.5
LIVE_SHARE_AFTER = 0.4
# DuckDB draws a bar on standard output where it takes a program for a person; a setting of each single connection.
_QUIET = "SET enable_progress_bar = false"
_KEYS = ("trace_hi", "trace_lo", "span_id", "start_ns")
_JOIN = " AND ".join(f"stored.{key} = arrived.{key}" for key in _KEYS)
_REPEATS = f"""
    SELECT row FROM arrived SEMI JOIN
        (SELECT {", ".join(_KEYS)} FROM spans WHERE start_ns BETWEEN ? AND ?) stored ON {_JOIN}
"""  # noqa: S608 - names of our own columns
_NAMES = ", ".join(column.name for column in SPAN_COLUMNS)


@dataclass(frozen=True, slots=True)
class Inserted:
    """Spans of one batch: new ones, and those that were there already."""

    stored: int
    repeated: int


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of the file with its log, and of the blocks in it that are in use."""

    file_bytes: int
    live_bytes: int


class Database:
    """One open file. Methods that write are for a single thread; `rows` is for any.

    Raises:
        StoreError: or one of its kinds, for whatever is wrong with the file, here and in every method.
        PermissionDenied: the file or its directory cannot be written.
    """

    def __init__(self, path: Path, *, read_only: bool = False, max_bytes: int = 0) -> None:
        self.path = path
        self._read_only = read_only
        self._wal_bytes = min(MAX_WAL_BYTES, max_bytes // 8) if max_bytes else MAX_WAL_BYTES
        if not read_only:
            _make_directory(path.parent)
        self._gate = Gate()
        self._connection = self._open()

    def _open(self) -> duckdb.DuckDBPyConnection:
        with translated(self.path):
            connection = duckdb.connect(self.path, read_only=self._read_only, config=self._settings())
            try:
                connection.execute(_QUIET)
                _prepare(connection, self.path, read_only=self._read_only)
            except BaseException:
                connection.close()
                raise
        return connection

    def _settings(self) -> dict[str, Any]:
        settings = {"memory_limit": MEMORY_LIMIT, "autoinstall_known_extensions": "false"}
        if self._read_only:
            return settings
        return {**settings, "checkpoint_threshold": f"{self._wal_bytes} bytes", "default_block_size": BLOCK_BYTES}

    def reopen(self) -> None:
        """After an error that DuckDB calls fatal nothing works until the file is opened again."""
        self._connection.close()
        self._connection = self._open()

    def close(self) -> None:
        with translated(self.path):
            self._connection.close()

    def rows(self, query: str, parameters: Sequence[Any] = (), *, many: bool = False) -> Iterator[tuple[Any, ...]]:
        """Answer a query on a connection of its own; from any thread.

        However slowly the rows are taken, nothing in the file is held up by it: they are all found at once.

        Args:
            query: a SELECT.
            parameters: its values.
            many: more rows than should be in memory; they wait in a temporary table.
        """
        with translated(self.path), closing(self._connection.cursor()) as cursor:
            cursor.execute(_QUIET)
            with self._gate.reading():
                if not many:
                    found = cursor.execute(query, list(parameters)).fetchall()
                else:
                    cursor.execute(f"CREATE TEMP TABLE found AS {query}", list(parameters))
            if not many:
                yield from found
                return
            cursor.execute("FROM found")
            while part := cursor.fetchmany(FETCH_ROWS):
                yield from part

    def insert(self, rows: Sequence[Row], resources: Mapping[int, str]) -> Inserted:
        """Add spans in one transaction; they are on disk when this returns."""
        batch = to_batch(rows)
        with translated(self.path), self._transaction():
            fresh = self._without_repeats(batch, len(rows))
            self._insert_resources(resources)
            stored = len(fresh["span_id"])
            if stored:
                self._insert_batch(fresh)
        return Inserted(stored, len(rows) - stored)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            _rollback(self._connection)
            raise

    def _without_repeats(self, batch: Batch, count: int) -> Batch:
        keep = first_of_each(batch)
        arrived = {"row": np.arange(count), **{key: batch[key] for key in _KEYS}}
        start = batch["start_ns"]
        self._connection.register("arrived", arrived)
        found = self._connection.execute(_REPEATS, [int(start.min()), int(start.max())]).fetchnumpy()["row"]
        self._connection.unregister("arrived")
        keep[found] = False
        return batch if keep.all() else {name: values[keep] for name, values in batch.items()}

    def _insert_resources(self, resources: Mapping[int, str]) -> None:
        for identity, attributes in resources.items():
            self._connection.execute("INSERT OR IGNORE INTO resources VALUES (?, ?)", [identity, attributes])

    def _insert_batch(self, batch: Batch) -> None:
        self._connection.register("batch", batch)
        self._connection.execute(f"INSERT INTO spans ({_NAMES}) SELECT {_NAMES} FROM batch")  # noqa: S608 - our names
        self._connection.unregister("batch")

    def size(self) -> Size:
        """Now, on disk."""
        with translated(self.path):
            found = self._connection.execute("SELECT block_size * used_blocks FROM pragma_database_size()").fetchone()
        return Size(self.file_bytes(), int(found[0]) if found else 0)

    def file_bytes(self) -> int:
        """The file and its log, as the file system sees them: cheap enough for every commit."""
        return sum(_bytes_of(path) for path in (self.path, self.path.with_name(self.path.name + ".wal")))

    def is_beyond(self, max_bytes: int) -> bool:
        """Whether `expire_beyond` has something to delete; takes 0.4 ms."""
        return self.size().live_bytes > LIVE_SHARE * max_bytes

    def expire_older(self, received_before_ns: int) -> int:
        """Delete what arrived before that time; the number of spans deleted."""
        return self._delete_before(received_before_ns)

    def expire_beyond(self, max_bytes: int) -> int:
        """Delete the spans that arrived first until the file can do with `max_bytes`; the number of spans deleted."""
        live = self.size().live_bytes
        if live <= LIVE_SHARE * max_bytes:
            return 0
        with translated(self.path):
            found = self._connection.execute(
                "SELECT quantile_disc(received_ns, ?) FROM spans", [1 - LIVE_SHARE_AFTER * max_bytes / live]
            ).fetchone()
        cutoff = found[0] if found else None
        return 0 if cutoff is None else self._delete_before(cutoff + 1)

    def _delete_before(self, received_ns: int) -> int:
        """Nothing is deleted while a reader would keep its space from being freed; the next time will do."""
        with translated(self.path):
            oldest = self._connection.execute("SELECT min(received_ns) FROM spans").fetchone()
        if oldest is None or oldest[0] is None or oldest[0] >= received_ns:
            return 0
        with self._gate.alone(READERS_END_WITHIN_S) as alone:
            deleted = self._delete(received_ns) if alone else 0
            if deleted:
                self._checkpoint()
        return deleted

    def _delete(self, received_ns: int) -> int:
        with translated(self.path), self._transaction():
            found = self._connection.execute("DELETE FROM spans WHERE received_ns < ?", [received_ns]).fetchone()
            self._connection.execute("DELETE FROM resources WHERE id NOT IN (SELECT DISTINCT resource_id FROM spans)")
        return int(found[0]) if found else 0

    def _checkpoint(self) -> None:
        # With a writer in the way, of which there is none but us, the next checkpoint will do.
        with translated(self.path), suppress(duckdb.TransactionException):
            self._connection.execute("CHECKPOINT")


def first_of_each(batch: Batch) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows are the first with their ids, shape (n,)."""
    identities = np.stack([batch[key] for key in ("trace_hi", "trace_lo", "span_id")], axis=1)
    keep = np.zeros(len(identities), dtype=np.bool_)
    keep[np.unique(identities, axis=0, return_index=True)[1]] = True
    return keep


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except PermissionError:
        raise PermissionDenied(f"{path}: no right to make this directory", hint="set store.path") from None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}", hint="name a file with --set store.path=FILE") from None


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _rollback(connection: duckdb.DuckDBPyConnection) -> None:
    with suppress(duckdb.Error):  # the first error is the one to tell
        connection.execute("ROLLBACK")


def _prepare(connection: duckdb.DuckDBPyConnection, path: Path, *, read_only: bool) -> None:
    """Make the tables of a new file; refuse files that are not ours or from the future."""
    tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if "meta" not in tables:
        if tables:
            raise StoreCorrupt(f"{path} is a DuckDB file of another program", hint="set store.path to another file")
        if read_only:
            raise StoreError(f"{path} is empty", hint="start `ebbflow store`, or set store.path")
        connection.execute(f"BEGIN; {SCHEMA}")
        connection.execute("INSERT INTO meta VALUES ('schema_version', ?)", [str(SCHEMA_VERSION)])
        connection.execute("COMMIT")
        return
    found = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    version = int(found[0]) if found and str(found[0]).isdigit() else 0
    if version > SCHEMA_VERSION:
        raise StoreNewer(
            f"{path} has schema version {version}, this release knows {SCHEMA_VERSION}",
            hint="upgrade ebbflow, or set store.path to another file",
        )
    if version < 1:
        raise StoreCorrupt(f"{path} has no schema version", hint="set store.path to another file")
