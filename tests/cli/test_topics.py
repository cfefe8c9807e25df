import orjson
import pytest
from typer.testing import CliRunner

from ebbflow.cli import make_app
from ebbflow.cli.topics import to_row
from ebbflow.config import KafkaConfig
from ebbflow.errors import NetworkError
from ebbflow.kafka import TopicState
from ebbflow.topics import CATALOGUE, topic


def run(*arguments, **options):
    return CliRunner().invoke(make_app(), arguments, catch_exceptions=False, **options)


@pytest.fixture
def fake_kafka(monkeypatch):
    """Kafka where one topic exists with other partitions and the rest are created."""
    asked = []

    async def create(config: KafkaConfig):
        asked.append(config)
        problems = {"otlp_spans": ("partitions is 2, should be 4",)}
        return [TopicState(t.name, t.name != "otlp_spans", 2, problems.get(t.name, ())) for t in CATALOGUE]

    monkeypatch.setattr("ebbflow.kafka.create_topics", create)
    return asked


def test_topics_without_create_prints_the_catalogue_and_asks_nobody(fake_kafka):
    result = run("topics", "--no-create")
    assert (result.exit_code, fake_kafka) == (0, [])
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == [entry.name for entry in CATALOGUE]


def test_topics_prints_states_and_warns_of_differences(fake_kafka):
    result = run("--set", "kafka.bootstrap=h:1", "topics")
    assert result.exit_code == 0
    assert [config.bootstrap for config in fake_kafka] == ["h:1"]
    assert result.stdout.count(" created ") == len(CATALOGUE) - 1
    assert result.stderr.splitlines() == [
        "warning: otlp_spans: partitions is 2, should be 4",
        "hint: topics that exist are not changed; use Kafka's own tools, or delete and create again",
    ]


def test_topics_json_has_every_column(fake_kafka):
    rows = orjson.loads(run("topics", "--json").stdout)
    row = next(row for row in rows if row["name"] == "otlp_spans")
    assert row == {
        "name": "otlp_spans",
        "state": "differs",
        "partitions": 2,
        "cleanup": "delete",
        "retention_h": 24.0,
        "key": topic("otlp_spans").key,
        "value": "otlp_proto (TracesData)",
        "writer": "processors/requests",
        "readers": topic("otlp_spans").readers,
        "sensitivity": topic("otlp_spans").sensitivity,
        "problems": ["partitions is 2, should be 4"],
    }


def test_topics_kafka_away_is_an_error_with_a_hint(monkeypatch):
    async def away(_config):
        raise NetworkError("Kafka: no broker answers at h:1", hint="start it")

    monkeypatch.setattr("ebbflow.kafka.create_topics", away)
    with pytest.raises(NetworkError, match="no broker answers"):
        run("topics")


def test_to_row_compacted_topic_has_no_retention():
    row = to_row(topic("ebbflow.checkpoints"), None, 4)
    assert (row["retention_h"], row["state"], row["partitions"]) == (None, "", 1)


def test_to_row_existing_topic_without_differences_exists():
    assert to_row(topic("otlp_spans"), TopicState("otlp_spans", False, 4), 4)["state"] == "exists"
