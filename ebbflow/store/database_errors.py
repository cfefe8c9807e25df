"""DuckDB's errors as ours: the only place that reads their text.

DuckDB has one exception for most I/O and tells cases apart in the message only. `PATTERNS` lists what was seen with
2.0.0; a test provokes each of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from ebbflow.errors import PermissionDenied, StoreCorrupt, StoreError, StoreFull, StoreLocked, StoreNewer

Make = Callable[[Path, re.Match[str]], StoreError | PermissionDenied]
_MOVE_AWAY = "move the file away, a new one is made; or name another with --set store.path=FILE"


def _locked(path: Path, match: re.Match[str]) -> StoreError:
    holder = f"process {match[1]}" if match[1] else "another process"
    return StoreLocked(f"{path} is in use by {holder}", hint="a store runs on it: stop that one, or set store.path")


def _full(path: Path, _: re.Match[str]) -> StoreError:
    return StoreFull(
        f"{path}: no space left on its disk", hint="free space, lower store.max_bytes, or move store.path to another"
    )


def _newer(path: Path, _: re.Match[str]) -> StoreError:
    return StoreNewer(f"{path} was written by a newer DuckDB", hint=f"upgrade ebbflow; or {_MOVE_AWAY}")


def _corrupt(path: Path, _: re.Match[str]) -> StoreError:
    return StoreCorrupt(f"{path} is damaged, or not a store", hint=_MOVE_AWAY)


def _directory(path: Path, _: re.Match[str]) -> StoreError:
    return StoreError(f"{path} is a directory", hint="name a file with --set store.path=FILE")


def _missing(path: Path, _: re.Match[str]) -> StoreError:
    return StoreError(f"{path} does not exist", hint="start `ebbflow store`, or set store.path")


def _denied(path: Path, _: re.Match[str]) -> PermissionDenied:
    return PermissionDenied(f"{path}: no right to read or write it", hint=f"run `ls -l {path}`, or set store.path")


PATTERNS: tuple[tuple[re.Pattern[str], Make], ...] = tuple(
    (re.compile(pattern, re.DOTALL), make)
    for pattern, make in (
        (r"Could not set lock on file.*?(?:\(PID (\d+)\)|$)", _locked),
        (r"No space left on device|Disk quota exceeded|File too large|not enough space", _full),
        (r"newer version of DuckDB|file with version number|storage version", _newer),
        (r"Permission denied|Read-only file system", _denied),
        (r"Is a directory", _directory),
        (r"database does not exist|No such file", _missing),
        (
            r"not a valid DuckDB|Corrupt|checksum|Could not read|Failure while replaying WAL|Serialization Error",
            _corrupt,
        ),
    )
)


def translate(error: duckdb.Error, path: Path) -> StoreError | PermissionDenied:
    """Our error for one of DuckDB's."""
    text = str(error)
    for pattern, make in PATTERNS:
        if match := pattern.search(text):
            return make(path, match)
    return StoreError(f"{path}: {text.splitlines()[0] if text else type(error).__name__}", hint=_MOVE_AWAY)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise DuckDB's errors as ours."""
    try:
        yield
    except duckdb.Error as error:
        raise translate(error, path) from error
