from __future__ import annotations

import re

import pytest

from ebbflow import topics
from ebbflow.errors import ConfigError
from ebbflow.topics import CATALOGUE, HOUR_MS, MAX_RECORD_BYTES, Topic


def test_catalogue_names_are_unique_and_legal():
    names = [topic.name for topic in CATALOGUE]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9._-]{1,249}", name) for name in names)


def test_catalogue_says_how_sensitive_each_topic_is():
    assert {topic.sensitivity.partition(":")[0] for topic in CATALOGUE} <= {"low", "medium", "high"}


@pytest.mark.parametrize("topic", CATALOGUE, ids=lambda topic: topic.name)
def test_catalogue_deletes_by_time_or_compacts(topic):
    assert (topic.cleanup, topic.retention_ms > 0) in {("delete", True), ("compact", False)}


def test_settings_of_a_stream_has_its_retention():
    topic = Topic("t", key="k", value="v", writer="w", readers="r", sensitivity="low: x", retention_ms=HOUR_MS)
    assert topic.settings() == {
        "cleanup.policy": "delete", "max.message.bytes": str(MAX_RECORD_BYTES), "retention.ms": "3600000",
    }  # fmt: skip


def test_settings_of_a_compacted_topic_has_no_retention():
    settings = topics.topic(topics.CHECKPOINTS).settings()
    assert settings["cleanup.policy"] == "compact"
    assert "retention.ms" not in settings


def test_topic_known_name_gives_its_entry():
    assert topics.topic("otlp_spans").writer == "processors/requests"


def test_topic_unknown_name_is_an_error_with_a_hint():
    with pytest.raises(ConfigError, match="there is no topic nonsense") as caught:
        topics.topic("nonsense")
    assert "ebbflow topics" in caught.value.hint
