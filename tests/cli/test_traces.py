import socket

import orjson
import pytest
from typer.testing import CliRunner

from ebbflow.cli import make_app
from ebbflow.cli.traces import make_filter, show_spans
from ebbflow.errors import ConfigError, DependencyError
from ebbflow.store.database import Database
from ebbflow.store.decode import rows_of
from ebbflow.store.queries import SpanFilter
from ebbflow.store.samples import make_request, make_span


@pytest.fixture
def run(tmp_path):
    """Runs a command on the store file in `tmp_path`; nobody listens on its port."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        settings = [f"store.port={bound.getsockname()[1]}", f"store.path={tmp_path / 's.duckdb'}"]
        options = [part for setting in settings for part in ("--set", setting)]

        def invoke(*arguments: str) -> str:
            result = CliRunner().invoke(make_app(), [*options, *arguments], catch_exceptions=False)
            assert result.exit_code == 0, result.output
            return result.output

        yield invoke


@pytest.fixture
def filled(tmp_path):
    database = Database(tmp_path / "s.duckdb")
    spans = [
        make_span(0, trace_id=b"\xab" * 16, name="root", attributes={"http.response.status_code": 200}),
        make_span(1, trace_id=b"\xab" * 16, name="child", parent_span_id=(1).to_bytes(8, "big")),
        make_span(2, name="other", attributes={"http.response.status_code": 503}),
    ]
    decoded = rows_of(make_request(spans), 5)
    database.insert(decoded.rows, decoded.resources)
    database.close()


@pytest.mark.usefixtures("filled")
def test_traces_json_is_one_span_a_line_newest_first(run):
    spans = [orjson.loads(line) for line in run("traces", "--json").splitlines()]
    assert [span["name"] for span in spans] == ["other", "child", "root"]


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--limit", "1"], ["other"]),
        (["--limit", "0"], ["other", "child", "root"]),
        (["--status", "5xx"], ["other"]),
        (["--service", "nobody"], []),
        (["--slower-than", "1ms"], ["other", "child", "root"]),
        (["--slower-than", "2ms"], []),
        (["--since", "1h"], []),
    ],
)
def test_traces_options_filter(run, options, found):
    assert [orjson.loads(line)["name"] for line in run("traces", "--json", *options).splitlines()] == found


@pytest.mark.usefixtures("filled")
def test_traces_table_has_a_head_and_a_line_a_span(run):
    lines = run("traces").splitlines()
    assert lines[0].split() == ["start", "service", "kind", "name", "target", "status", "took", "trace"]
    assert len(lines) == 4


@pytest.mark.usefixtures("filled")
def test_traces_nothing_found_says_so(run):
    assert run("traces", "--service", "nobody") == "no spans\n"


def test_traces_many_spans_come_as_several_tables(capsys, monkeypatch):
    monkeypatch.setattr("ebbflow.cli.traces.TABLE_ROWS", 2)
    span = {
        "trace_id": "ab" * 16,
        "name": "n",
        "kind": "server",
        "start_unix_nano": 1,
        "end_unix_nano": 2,
        "status": "ok",
        "resource": {},
        "attributes": {},
    }
    show_spans(iter([orjson.dumps(span)] * 5))
    assert len(capsys.readouterr().out.splitlines()) == 3 + 5


def test_traces_no_store_at_all_is_told(run):
    with pytest.raises(DependencyError) as error:
        run("traces")
    assert "ebbflow store" in error.value.hint


@pytest.mark.parametrize("options", [["--status", "odd"], ["--since", "5"], ["--slower-than", "fast"]])
def test_traces_bad_option_is_told_before_anything_is_asked(run, options):
    with pytest.raises(ConfigError):
        run("traces", *options)


def test_make_filter_durations_become_nanoseconds():
    wanted = make_filter(service="s", status="5xx", slower_than="250ms", since="10s", limit=3, now_ns=25_000_000_000)
    assert wanted == SpanFilter(service="s", status="5xx", slower_than_ns=250_000_000, since_ns=15_000_000_000, limit=3)


def test_make_filter_longer_ago_than_time_itself_is_everything():
    assert make_filter(service="", status="", slower_than="0", since="10s", limit=0, now_ns=5).since_ns == 1


@pytest.mark.usefixtures("filled")
def test_trace_tree_is_shown_for_the_beginning_of_an_id(run):
    lines = run("trace", "abab").splitlines()
    assert lines[0] == f"trace {'ab' * 16}"
    assert lines[1].startswith("2 spans, 1 service")
    assert lines[2].startswith("root")
    assert lines[3].startswith("└─ child")


@pytest.mark.usefixtures("filled")
def test_trace_json_is_one_span_a_line_oldest_first(run):
    names = [orjson.loads(line)["name"] for line in run("trace", "ab" * 16, "--json").splitlines()]
    assert names == ["root", "child"]


@pytest.mark.usefixtures("filled")
def test_trace_unknown_id_is_told(run):
    with pytest.raises(ConfigError, match="no trace begins with ff"):
        run("trace", "ff")
