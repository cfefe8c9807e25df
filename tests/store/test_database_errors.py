"""Each of DuckDB's errors that the store knows, provoked."""

import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from ebbflow.errors import PermissionDenied, StoreCorrupt, StoreError, StoreFull, StoreLocked, StoreNewer
from ebbflow.store.database import Database
from ebbflow.store.database_errors import translate
from ebbflow.store.decode import rows_of
from ebbflow.store.samples import make_http_spans, make_request


@contextmanager
def files_of_at_most(size_bytes: int):
    """A disk that is full, for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_translated_full_disk_is_store_full_and_works_after_reopening(config):
    database = Database(config.path)
    decoded = rows_of(make_request(make_http_spans(500, seed=1)), 5)
    with files_of_at_most(config.path.stat().st_size + 4096), pytest.raises(StoreFull) as error:
        database.insert(decoded.rows, decoded.resources)
    assert error.value.retriable
    assert "max_bytes" in error.value.hint
    database.reopen()
    assert database.insert(decoded.rows, decoded.resources).stored == 500
    database.close()


def test_translated_file_of_another_process_is_store_locked(config):
    # Not through the package: importing less is quicker.
    script = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, config.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        holder.stdout.readline()
        with pytest.raises(StoreLocked, match=f"in use by process {holder.pid}"):
            Database(config.path)


@pytest.mark.parametrize("content", [b"", b"garbage", b"garbage" * 1000])
def test_translated_file_that_is_no_database_is_store_corrupt(config, content):
    config.path.write_bytes(content)
    with pytest.raises(StoreCorrupt) as error:
        Database(config.path)
    assert "move the file away" in error.value.hint


def test_translated_database_cut_short_is_store_corrupt(config):
    Database(config.path).close()
    config.path.write_bytes(config.path.read_bytes()[:-300_000] + bytes(10))
    with pytest.raises(StoreCorrupt):
        Database(config.path)


def test_translated_database_with_flipped_bytes_is_store_corrupt(config):
    Database(config.path).close()
    content = bytearray(config.path.read_bytes())
    content[4096:4160] = content[8192:8256] = b"\xff" * 64
    config.path.write_bytes(content)
    with pytest.raises(StoreCorrupt):
        Database(config.path)


def test_translated_directory_is_named(tmp_path):
    with pytest.raises(StoreError, match="is a directory"):
        Database(tmp_path)


def test_translated_missing_file_read_only_is_named(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        Database(tmp_path / "none.duckdb", read_only=True)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('IO Error: Could not write file "f": No space left on device', StoreFull),
        ("FATAL Error: Failed to create checkpoint because of error: Could not write: Disk quota exceeded", StoreFull),
        ('IO Error: Cannot open file "f": Permission denied', PermissionDenied),
        ("IO Error: Trying to read a database file with version number 99, but we can only read", StoreNewer),
        ("Serialization Error: the file was created with a newer version of DuckDB", StoreNewer),
        ('IO Error: Could not set lock on file "f": Conflicting lock is held', StoreLocked),
        ("Binder Error: something new", StoreError),
        ("", StoreError),
    ],
)
def test_translate_text_decides_on_the_kind(text, kind):
    error = translate(duckdb.Error(text), Path("f"))
    assert type(error) is kind
    assert error.hint
