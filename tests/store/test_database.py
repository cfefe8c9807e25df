import duckdb
import numpy as np
import pytest

from ebbflow.errors import PermissionDenied, StoreCorrupt, StoreError, StoreNewer
from ebbflow.store.columns import SCHEMA_VERSION, SPAN_COLUMNS
from ebbflow.store.database import Database, Inserted, first_of_each
from ebbflow.store.decode import rows_of
from ebbflow.store.samples import make_request, make_span


def insert(database, spans, received_ns=5, resource=None) -> Inserted:
    decoded = rows_of(make_request(spans, resource), received_ns)
    return database.insert(decoded.rows, decoded.resources)


def insert_many(database, count):
    """Rows as DuckDB makes them itself: `received_ns` counts from 1, the attributes do not compress."""
    made = {"received_ns": "number", "attributes": "to_json(uuid()::VARCHAR || uuid()::VARCHAR)"}
    values = [
        made.get(c.name, "''" if c.sql == "VARCHAR" else "'{}'" if c.sql == "JSON" else "0") for c in SPAN_COLUMNS
    ]
    database._connection.execute(f"INSERT INTO spans SELECT {', '.join(values)} FROM range(1, {count + 1}) t(number)")


def one(database, sql):
    return next(database.rows(sql))


def test_insert_new_spans_are_stored(database):
    assert insert(database, [make_span(n) for n in range(3)]) == Inserted(3, 0)
    assert one(database, "SELECT count(*), min(name), max(service) FROM spans") == (3, "span 0", "shop")


def test_insert_same_spans_again_are_stored_once(database):
    insert(database, [make_span(0), make_span(1)])
    assert insert(database, [make_span(1), make_span(2)]) == Inserted(1, 1)
    assert one(database, "SELECT count(*), count(DISTINCT span_id) FROM spans") == (3, 3)


def test_insert_same_span_twice_in_a_batch_is_stored_once(database):
    assert insert(database, [make_span(0), make_span(0), make_span(1)]) == Inserted(2, 1)


def test_insert_only_repeats_adds_nothing(database):
    insert(database, [make_span(0)])
    assert insert(database, [make_span(0)]) == Inserted(0, 1)


def test_insert_same_span_id_in_another_trace_is_another_span(database):
    insert(database, [make_span(0)])
    assert insert(database, [make_span(0, trace_id=b"\x09" * 16)]) == Inserted(1, 0)


def test_insert_repeats_are_known_after_a_restart(config):
    first = Database(config.path)
    insert(first, [make_span(0)])
    first.close()
    second = Database(config.path)
    assert insert(second, [make_span(0), make_span(1)]) == Inserted(1, 1)
    second.close()


def test_insert_failing_leaves_nothing_and_the_next_works(database):
    rows = rows_of(make_request([make_span(0)]), 5).rows
    with pytest.raises(StoreError):
        database.insert(rows, {1: "not json"})
    assert one(database, "SELECT count(*) FROM spans") == (0,)
    assert insert(database, [make_span(0)]) == Inserted(1, 0)


def test_traces_view_shows_ids_in_hex_and_json_by_key(database):
    insert(database, [make_span(0, attributes={"http.route": "/x"})])
    assert one(database, "SELECT trace_id, span_id, duration_ns, attributes->>'http.route' FROM traces") == (
        f"{1:032x}",
        f"{1:016x}",
        2_000_000,
        "/x",
    )


def test_first_of_each_agrees_with_a_set():
    chance = np.random.default_rng(1)
    batch = {key: chance.integers(0, 3, 100, dtype=np.uint64) for key in ("trace_hi", "trace_lo", "span_id")}
    seen, expected = set(), []
    for identity in zip(*batch.values(), strict=True):
        expected.append(identity not in seen)
        seen.add(identity)
    assert first_of_each(batch).tolist() == expected


def test_expire_older_deletes_by_arrival_and_forgets_resources(database):
    insert(database, [make_span(0)], received_ns=10, resource={"service.name": "old"})
    insert(database, [make_span(1)], received_ns=20, resource={"service.name": "new"})
    assert database.expire_older(20) == 1
    assert one(database, "SELECT count(*), max(service) FROM spans") == (1, "new")
    assert one(database, "SELECT count(*) FROM resources") == (1,)


def test_expire_older_nothing_old_deletes_nothing(database):
    insert(database, [make_span(0)], received_ns=10)
    assert database.expire_older(10) == 0


def test_expire_beyond_small_file_deletes_nothing(database):
    insert(database, [make_span(0)])
    assert database.expire_beyond(1 << 30) == 0


def test_expire_beyond_file_too_large_deletes_the_oldest_and_frees_space(database):
    insert_many(database, 10_000)
    database._checkpoint()
    live = database.size().live_bytes
    deleted = database.expire_beyond(live)
    assert 4000 < deleted < 7000
    left = one(database, "SELECT count(*), max(received_ns) FROM spans")
    assert left == (10_000 - deleted, 10_000)
    assert database.size().live_bytes <= live


def test_expire_beyond_what_is_in_the_log_only_deletes_nothing(database):
    insert_many(database, 1000)
    assert not database.is_beyond(1 << 20)
    assert database.expire_beyond(1 << 20) == 0


def test_expire_older_waits_for_readers_and_leaves_it_when_they_stay(database, monkeypatch):
    monkeypatch.setattr("ebbflow.store.database.READERS_END_WITHIN_S", 0.01)
    insert(database, [make_span(0)], received_ns=10)
    with database._gate.reading():
        assert database.expire_older(20) == 0
    assert database.expire_older(20) == 1


@pytest.mark.parametrize("many", [False, True])
def test_rows_taken_slowly_hold_nothing_up(database, many):
    insert(database, [make_span(n) for n in range(5)], received_ns=10)
    rows = database.rows("SELECT name FROM spans ORDER BY name DESC", many=many)
    assert next(rows) == ("span 4",)
    assert database.expire_older(20) == 5
    assert list(rows) == [("span 3",), ("span 2",), ("span 1",), ("span 0",)]


def test_rows_many_come_in_order_and_with_parameters(database):
    insert_many(database, 3000)
    found = database.rows("SELECT received_ns FROM spans WHERE received_ns > ? ORDER BY received_ns", [5], many=True)
    assert [number for (number,) in found] == list(range(6, 3001))


def test_rows_of_a_read_only_file_can_be_many(config):
    writer = Database(config.path)
    insert(writer, [make_span(0)])
    writer.close()
    reader = Database(config.path, read_only=True)
    assert list(reader.rows("SELECT name FROM spans", many=True)) == [("span 0",)]
    reader.close()


def test_rows_bad_query_is_a_store_error(database):
    with pytest.raises(StoreError):
        next(database.rows("SELECT nothing"))


def test_open_read_only_sees_what_was_written(config):
    writer = Database(config.path)
    insert(writer, [make_span(0)])
    writer.close()
    reader = Database(config.path, read_only=True)
    assert one(reader, "SELECT count(*) FROM spans") == (1,)
    reader.close()


def test_open_makes_missing_directories(tmp_path):
    database = Database(tmp_path / "a" / "b" / "store.duckdb")
    database.close()
    assert (tmp_path / "a" / "b" / "store.duckdb").exists()


def test_open_below_a_file_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        Database(tmp_path / "file" / "store.duckdb")


def test_open_directory_that_cannot_be_made_is_denied(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(PermissionDenied) as error:
        Database(tmp_path / "a" / "store.duckdb")
    assert "store.path" in error.value.hint


def test_open_file_of_a_newer_schema_is_refused(config):
    Database(config.path).close()
    with duckdb.connect(config.path) as connection:
        connection.execute("UPDATE meta SET value = ?", [str(SCHEMA_VERSION + 1)])
    with pytest.raises(StoreNewer, match="schema version 2, this release knows 1"):
        Database(config.path)


def test_open_file_without_a_version_is_refused(config):
    Database(config.path).close()
    with duckdb.connect(config.path) as connection:
        connection.execute("DELETE FROM meta")
    with pytest.raises(StoreCorrupt, match="no schema version"):
        Database(config.path)


def test_open_duckdb_file_of_another_program_is_refused_and_untouched(config):
    with duckdb.connect(config.path) as connection:
        connection.execute("CREATE TABLE theirs (a INT)")
    with pytest.raises(StoreCorrupt, match="another program"):
        Database(config.path)
    with duckdb.connect(config.path) as connection:
        assert connection.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("theirs",)]


def test_open_read_only_of_an_empty_duckdb_file_says_so(config):
    duckdb.connect(config.path).close()
    with pytest.raises(StoreError, match="is empty"):
        Database(config.path, read_only=True)


def test_reopen_after_close_works_again(database):
    database._connection.close()
    with pytest.raises(StoreError):
        insert(database, [make_span(0)])
    database.reopen()
    assert insert(database, [make_span(0)]) == Inserted(1, 0)


def test_rows_draw_no_progress_on_standard_output(database):
    assert one(database, "SELECT value FROM duckdb_settings() WHERE name = 'enable_progress_bar'") == ("false",)
