import socket

import httpx
import orjson
import pytest

from ebbflow.config import StoreConfig
from ebbflow.errors import ConfigError, DependencyError, NetworkError, StoreLocked
from ebbflow.store.client import FileReader, RemoteReader, connect
from ebbflow.store.database import Database
from ebbflow.store.decode import rows_of
from ebbflow.store.queries import SpanFilter
from ebbflow.store.samples import make_request, make_span


def fill(database):
    decoded = rows_of(make_request([make_span(n) for n in range(3)]), 2_000_000_000_000_000_000)
    database.insert(decoded.rows, decoded.resources)


@pytest.fixture
def nowhere(tmp_path):
    """A store's settings with a port that is bound and where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield StoreConfig(port=bound.getsockname()[1], path=tmp_path / "store.duckdb")


def test_remote_and_file_reader_give_the_same(client, store, database, tmp_path):
    fill(store._database)
    remote, file = RemoteReader(client), FileReader(store._database)
    assert list(remote.spans(SpanFilter(limit=2))) == list(file.spans(SpanFilter(limit=2)))
    assert list(remote.trace(f"{2:032x}")) == list(file.trace(f"{2:032x}"))
    assert remote.top(1e6).rows == file.top(1e6).rows
    assert len(remote.top(1e6).rows) == 3


def test_remote_reader_error_of_the_store_keeps_its_words_and_hint(client):
    with pytest.raises(ConfigError, match="no trace begins with ff") as error:
        list(RemoteReader(client).trace("ff"))
    assert "ebbflow traces" in error.value.hint


@pytest.mark.parametrize("prefix", ["", "a/b", "../healthz", "a?b"])
def test_remote_reader_id_that_would_change_the_address_is_refused(client, prefix):
    with pytest.raises(ConfigError, match="no trace id"):
        list(RemoteReader(client).trace(prefix))


def answering(status: int, content: bytes) -> RemoteReader:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=content))
    return RemoteReader(httpx.Client(transport=transport, base_url="http://store"))


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b"1"])
def test_remote_reader_other_server_is_told(content):
    with pytest.raises(DependencyError, match="not an ebbflow store"):
        list(answering(404, content).spans(SpanFilter()))


def test_remote_reader_store_in_trouble_is_told():
    with pytest.raises(DependencyError, match="full"):
        list(answering(503, orjson.dumps({"error": "full", "hint": "free"})).spans(SpanFilter()))


def failing(kind: type[httpx.HTTPError]) -> RemoteReader:
    def fail(request):
        raise kind("broke", request=request)

    return RemoteReader(httpx.Client(transport=httpx.MockTransport(fail), base_url="http://store"))


def test_remote_reader_store_that_breaks_off_is_a_network_error():
    with pytest.raises(NetworkError, match="does not answer: broke"):
        list(failing(httpx.ReadError).spans(SpanFilter()))


@pytest.mark.parametrize(("kind", "alive"), [(httpx.ConnectError, False), (httpx.ReadError, True)])
def test_remote_reader_alive_only_a_refused_connection_is_no(kind, alive):
    assert failing(kind).alive() is alive


def test_remote_reader_silent_listener_is_told_soon():
    with pytest.raises(NetworkError, match="what listens at http://store does not answer") as error:
        failing(httpx.ReadTimeout).alive()
    assert "store.port" in error.value.hint


def test_connect_nothing_there_says_how_to_start(nowhere):
    with pytest.raises(DependencyError, match="no store at") as error, connect(nowhere):
        pass
    assert "ebbflow store" in error.value.hint


def test_connect_without_a_store_reads_the_file(nowhere):
    database = Database(nowhere.path)
    fill(database)
    database.close()
    with connect(nowhere) as reader:
        assert len(list(reader.spans(SpanFilter()))) == 3
        assert len(list(reader.trace(f"{1:032x}"))) == 1


def test_connect_locked_file_without_an_answering_store_says_both(nowhere, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise StoreLocked("f is in use")

    nowhere.path.touch()
    monkeypatch.setattr("ebbflow.store.client.Database", refuse)
    with pytest.raises(StoreLocked, match="f is in use, but nothing answers at") as error, connect(nowhere):
        pass
    assert "store.port" in error.value.hint


def test_connect_with_a_store_asks_it(nowhere, monkeypatch):
    monkeypatch.setattr(RemoteReader, "alive", lambda _: True)
    with connect(nowhere) as reader:
        assert isinstance(reader, RemoteReader)
