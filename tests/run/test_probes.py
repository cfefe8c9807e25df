from __future__ import annotations

import socket

import pytest

from ebbflow.broker import free_port
from ebbflow.config import KafkaConfig, StoreConfig
from ebbflow.errors import NetworkError
from ebbflow.kafka import TopicState
from ebbflow.run import probes as module
from ebbflow.run.probes import RealProbes


def test_answers_nobody_there_is_no():
    assert not RealProbes().answers(f"http://127.0.0.1:{free_port()}/readyz")


def test_answers_whatever_is_fetched_is_yes(monkeypatch):
    monkeypatch.setattr(module, "fetch", lambda _: "")
    assert RealProbes().answers("http://127.0.0.1:1/readyz")


def test_accepts_goes_by_the_first_brokers_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        kafka = KafkaConfig(bootstrap=f"127.0.0.1:{port},127.0.0.1:1")
        assert RealProbes().accepts(kafka)
    assert not RealProbes().accepts(kafka)


def test_require_kafka_nobody_there_is_a_network_error():
    with pytest.raises(NetworkError):
        RealProbes().require_kafka(KafkaConfig(bootstrap=f"127.0.0.1:{free_port()}"), 1.0)


def test_create_topics_says_which_are_new(monkeypatch):
    async def create_topics(_):
        return [TopicState("a", True, 1), TopicState("b", False, 1)]

    monkeypatch.setattr("ebbflow.kafka.create_topics", create_topics)
    assert RealProbes().create_topics(KafkaConfig()) == [True, False]


@pytest.mark.parametrize(("text", "expected"), [("", False), ("{0} 0\n", False), ("{0} 1\n", True)])
def test_has_spans_counts_those_stored_since_its_start(monkeypatch, text, expected):
    monkeypatch.setattr(module, "fetch", lambda _: text.format("ebbflow_store_spans_stored_total"))
    assert RealProbes().has_spans(StoreConfig()) is expected


def test_has_spans_store_away_is_no():
    assert not RealProbes().has_spans(StoreConfig(port=free_port()))
