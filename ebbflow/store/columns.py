"""The tables of the store: one row a span, described once for SQL and for numpy.

    spans       one row a span; hot fields in columns of their own, the rest as JSON
    resources   one row a distinct resource; `id` is a hash of its attributes
    meta        schema version

A further signal is a further table with its own `received_ns` and `resource_id`; resources are shared. Absent text is
the empty string, absent ids and HTTP status are 0: columns without NULL need no validity masks on the way in. Ids are
big-endian integers, so that comparing them is cheap and a hex prefix is a range.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SCHEMA_VERSION = 1
MISSING_SERVICE = "unknown_service"
KINDS = ("internal", "internal", "server", "client", "producer", "consumer")
STATUSES = ("unset", "ok", "error")

# A row is a plain tuple in the order of SPAN_COLUMNS: cheaper to make than anything with names.
Row = tuple[int | str, ...]
Batch = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    sql: str
    dtype: Any


def _integers(sql: str, dtype: Any, *names: str) -> tuple[Column, ...]:
    return tuple(Column(name, sql, dtype) for name in names)


SPAN_COLUMNS: tuple[Column, ...] = (
    *_integers("UBIGINT", np.uint64, "trace_hi", "trace_lo", "span_id", "parent_id"),
    *_integers("UBIGINT", np.uint64, "start_ns", "end_ns", "received_ns", "resource_id"),
    *_integers("UTINYINT", np.uint8, "kind", "status"),
    Column("http_status", "USMALLINT", np.uint16),
    Column("flags", "UINTEGER", np.uint32),
    Column("service", "VARCHAR", object),
    Column("name", "VARCHAR", object),
    Column("route", "VARCHAR", object),
    Column("attributes", "JSON", object),
    Column("status_message", "VARCHAR", object),
    Column("trace_state", "VARCHAR", object),
    Column("scope", "JSON", object),
    Column("events", "JSON", object),
    Column("links", "JSON", object),
    Column("dropped", "JSON", object),
)
INDEX = {column.name: position for position, column in enumerate(SPAN_COLUMNS)}

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS resources (id UBIGINT PRIMARY KEY, attributes JSON NOT NULL);
CREATE TABLE IF NOT EXISTS spans ({", ".join(f"{column.name} {column.sql} NOT NULL" for column in SPAN_COLUMNS)});
CREATE VIEW IF NOT EXISTS traces AS
    SELECT printf('%016x%016x', trace_hi, trace_lo) AS trace_id, printf('%016x', s.span_id) AS span_id,
           printf('%016x', parent_id) AS parent_span_id, s.name, service, kind, status, http_status, route,
           make_timestamp_ns(start_ns::BIGINT) AS start_time, greatest(end_ns, start_ns) - start_ns AS duration_ns,
           r.attributes AS resource, s.attributes
    FROM spans s JOIN resources r ON r.id = s.resource_id;
"""  # noqa: S608 - names of our own columns


def to_batch(rows: Sequence[Row]) -> Batch:
    """Rows to one array a column, each of shape (n,)."""
    transposed: Iterable[tuple[Any, ...]] = zip(*rows, strict=True)
    return {
        column.name: np.array(values, dtype=column.dtype)
        for column, values in zip(SPAN_COLUMNS, transposed, strict=True)
    }
