from concurrent.futures import Future

import pytest
import structlog
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from ebbflow.errors import InternalError, NetworkError, RateLimited, StoreFull
from ebbflow.store.database import Inserted
from ebbflow.store.decode import rows_of
from ebbflow.store.metrics import StoreMetrics
from ebbflow.store.samples import make_request, make_span
from ebbflow.store.writer import Waiting, Writer

SECOND_NS = 1_000_000_000


class ScriptedDatabase:
    """Answers `insert` from a script; an exception is raised, None is success."""

    def __init__(self, *script: Exception | None) -> None:
        self.script = list(script)
        self.groups: list[int] = []
        self.reopened = 0
        self.beyond: bool | Exception = False
        self.expired = (0, 0)
        self.cutoffs: list[int] = []

    def insert(self, rows, resources) -> Inserted:
        self.groups.append(len(rows))
        problem = self.script.pop(0) if self.script else None
        if problem is not None:
            raise problem
        return Inserted(len(rows), 0)

    def reopen(self) -> None:
        self.reopened += 1

    def file_bytes(self) -> int:
        return 0

    def is_beyond(self, max_bytes: int) -> bool:
        if isinstance(self.beyond, Exception):
            raise self.beyond
        return self.beyond

    def expire_older(self, received_before_ns: int) -> int:
        self.cutoffs.append(received_before_ns)
        problem = self.script.pop(0) if self.script else None
        if problem is not None:
            raise problem
        return self.expired[0]

    def expire_beyond(self, max_bytes: int) -> int:
        return self.expired[1]


def make_writer(database, config, **settings) -> Writer:
    metrics = StoreMetrics(CollectorRegistry())
    return Writer(database, config, metrics, structlog.get_logger(), clock_ns=lambda: 100_000 * SECOND_NS, **settings)


def decoded(*numbers: int):
    found = rows_of(make_request([make_span(number) for number in numbers]), 5)
    found.weight_bytes = 100
    return found


def totals(writer: Writer) -> dict[str, int]:
    return {key: value for key, value in writer._metrics.totals().items() if value}


def test_submit_future_is_done_when_the_span_is_in_the_database(database, config):
    # Or the sweep that follows may find the span too old before it is looked for.
    writer = make_writer(database, config.model_copy(update={"retention_s": 1e9}))
    writer.start()
    try:
        writer.submit(decoded(0)).result(5)
        assert list(database.rows("SELECT count(*) FROM spans")) == [(1,)]
    finally:
        writer.close()


def test_submit_what_gathered_goes_in_one_transaction(config):
    database = ScriptedDatabase()
    writer = make_writer(database, config)
    futures = [writer.submit(decoded(number)) for number in range(5)]
    writer.start()
    for future in futures:
        future.result(5)
    writer.close()
    assert database.groups == [5]
    assert totals(writer) == {"stored": 5}


def test_submit_beyond_the_limit_is_refused_for_now(config):
    writer = make_writer(ScriptedDatabase(), config, max_waiting_bytes=150)
    writer.submit(decoded(0))
    with pytest.raises(RateLimited) as error:
        writer.submit(decoded(1))
    assert error.value.retry_after_s == 1


def test_submit_one_larger_than_the_limit_is_taken_when_nothing_waits(config):
    writer = make_writer(ScriptedDatabase(), config, max_waiting_bytes=1)
    assert not writer.submit(decoded(0)).done()


def test_submit_after_close_is_refused(config):
    writer = make_writer(ScriptedDatabase(), config)
    writer.start()
    writer.close()
    with pytest.raises(NetworkError, match="stopping"):
        writer.submit(decoded(0))


def test_close_writes_what_waits(config):
    database = ScriptedDatabase()
    writer = make_writer(database, config)
    future = writer.submit(decoded(0))
    writer.start()
    writer.close()
    assert future.result(0) is None
    assert database.groups == [1]


def test_close_before_start_returns(config):
    writer = make_writer(ScriptedDatabase(), config)
    writer.close()
    assert writer.problems() == ["the writer is not running"]


def group(*decoded_requests) -> list[Waiting]:
    return [Waiting(request, Future()) for request in decoded_requests]


def test_write_store_trouble_fails_the_whole_group_and_is_told_once(config):
    database = ScriptedDatabase(StoreFull("full", hint="free space"), StoreFull("full", hint="free space"))
    writer = make_writer(database, config)
    items = group(decoded(0), decoded(1, 2))
    with capture_logs() as logs:
        writer.write(items)
        writer.write(group(decoded(3)))
    assert [type(item.done.exception(0)) for item in items] == [StoreFull, StoreFull]
    assert [entry["hint"] for entry in logs] == ["free space"]
    assert totals(writer) == {"failed": 4}
    assert writer._problem == "full"


def test_write_after_store_trouble_opens_the_file_again_and_recovers(config):
    database = ScriptedDatabase(StoreFull("full"))
    writer = make_writer(database, config)
    writer.write(group(decoded(0)))
    again = group(decoded(0))
    writer.write(again)
    writer.write(group(decoded(1)))
    assert database.reopened == 1
    assert again[0].done.result(0) is None
    assert writer._problem == ""


def test_write_data_that_cannot_be_stored_does_not_spoil_the_others(config):
    database = ScriptedDatabase(ValueError("odd"), None, ValueError("odd"), None)
    writer = make_writer(database, config)
    items = group(decoded(0), decoded(1), decoded(2))
    writer.write(items)
    assert [type(item.done.exception(0)) for item in items] == [type(None), InternalError, type(None)]
    assert totals(writer) == {"stored": 2, "failed": 1}


def test_problems_running_writer_has_none(config):
    writer = make_writer(ScriptedDatabase(), config)
    writer.start()
    assert writer.problems() == []
    writer.close()


def test_run_that_breaks_fails_whoever_waits(config, monkeypatch):
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    database = ScriptedDatabase()
    monkeypatch.setattr(database, "expire_older", lambda _: 1 / 0)
    writer = make_writer(database, config, sweep_s=0.001)
    writer.start()
    writer.join(5)
    with pytest.raises(NetworkError):
        writer.submit(decoded(0))


def test_abandon_fails_what_waits(config):
    writer = make_writer(ScriptedDatabase(), config)
    future = writer.submit(decoded(0))
    writer._abandon()
    assert isinstance(future.exception(0), NetworkError)


def test_sweep_deletes_by_age_and_size_counts_and_logs(config):
    database = ScriptedDatabase()
    database.expired = (3, 4)
    writer = make_writer(database, config)
    with capture_logs() as logs:
        writer.sweep()
    assert database.cutoffs == [100_000 * SECOND_NS - 86_400 * SECOND_NS]
    assert [(entry["reason"], entry["spans"]) for entry in logs] == [("age", 3), ("size", 4)]
    assert totals(writer) == {"deleted_age": 3, "deleted_size": 4}


def test_sweep_trouble_is_noted(config):
    writer = make_writer(ScriptedDatabase(StoreFull("full")), config)
    writer.sweep()
    assert writer._problem == "full"


def test_run_sweeps_when_the_file_is_too_large(config):
    database = ScriptedDatabase()
    database.expired, database.beyond = (0, 4), True
    writer = make_writer(database, config, sweep_s=3600)
    writer._clock_ns = lambda: 0
    future = writer.submit(decoded(0))
    writer.start()
    future.result(5)
    writer.close()
    assert totals(writer)["deleted_size"] == 4


def test_run_sweep_that_deletes_nothing_is_not_repeated_with_every_group(config):
    database = ScriptedDatabase()
    database.beyond = True
    writer = make_writer(database, config, sweep_s=3600)
    for number in range(3):
        group_of_one = writer.submit(decoded(number))
        if number == 0:
            writer.start()
        group_of_one.result(5)
    writer.close()
    assert len(database.cutoffs) == 1


def test_too_large_trouble_is_noted(config):
    writer = make_writer(ScriptedDatabase(), config)
    writer._database.beyond = StoreFull("full")
    assert not writer._too_large()
    assert writer._problem == "full"
