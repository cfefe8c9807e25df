"""The buffer's arithmetic against a client that takes, refuses and acknowledges as told."""

import logging

import pytest
from confluent_kafka import KafkaError, KafkaException

from ebbflow.config import KafkaConfig
from ebbflow.errors import ConfigError
from ebbflow.producing.publisher import Item, Publisher

MIB = 1 << 20


class Client:
    """librdkafka's producer as far as the publisher uses it."""

    def __init__(self, options):
        self.options = options
        self.sent = []
        self.full = False
        self.refusal = None

    def produce(self, topic, value, key, on_delivery, headers=None):
        if self.full:
            raise BufferError
        if self.refusal is not None:
            raise KafkaException(KafkaError(self.refusal))
        self.sent.append((topic, key, value, on_delivery))

    def acknowledge(self, count, error=None):
        for _, _, _, on_delivery in self.sent[:count]:
            on_delivery(error, None)
        del self.sent[:count]

    def poll(self, timeout_s):
        assert timeout_s == 0

    def flush(self, timeout_s):
        return len(self.sent)

    def purge(self):
        self.sent.clear()


@pytest.fixture
def publisher():
    return Publisher(KafkaConfig(), buffer_bytes=20 * MIB, make_client=Client)


def item(events=10, size=MIB, **callbacks):
    return Item("topic", b"key", bytes(size), events, **callbacks)


def test_publish_hands_over_at_once_and_counts_when_acknowledged(publisher):
    publisher.publish(item(events=7))
    assert (publisher.counts_of("topic").published, publisher.buffered_events) == (0, 7)
    publisher._client.acknowledge(1)
    assert (publisher.counts_of("topic").published, publisher.buffered_events, publisher.buffered_bytes) == (7, 0, 0)


def test_publish_no_more_than_16_mib_are_in_flight(publisher):
    for _ in range(18):
        publisher.publish(item())
    assert len(publisher._client.sent) == 16
    publisher._client.acknowledge(2)
    publisher.poll()
    assert len(publisher._client.sent) == 16
    assert publisher.buffered_events == 160


def test_publish_full_buffer_drops_the_oldest_that_waits(publisher):
    dropped = []
    for n in range(25):
        publisher.publish(item(events=n + 1, on_dropped=dropped.append))
    # 16 are in flight, 4 fit beside them: of the 9 that waited the 5 oldest went.
    assert [each.events for each in dropped] == [17, 18, 19, 20, 21]
    assert publisher.counts_of("topic").dropped == sum([17, 18, 19, 20, 21])
    assert publisher.buffered_events + publisher.counts_of("topic").dropped == sum(range(1, 26))


def test_publish_client_without_room_waits_for_the_next_poll(publisher):
    publisher._client.full = True
    publisher.publish(item())
    assert publisher.buffered_events == 10
    publisher._client.full = False
    publisher.poll()
    assert len(publisher._client.sent) == 1


def test_publish_refused_at_once_is_counted_and_told(publisher, caplog):
    refused = []
    publisher._client.refusal = KafkaError.MSG_SIZE_TOO_LARGE
    publisher.publish(item(events=3, on_refused=refused.append))
    assert (publisher.counts_of("topic").refused, publisher.buffered_events, len(refused)) == (3, 0, 1)
    assert "refused a record of 3 events" in caplog.text


def test_acknowledgement_with_an_error_is_a_refusal(publisher):
    refused = []
    publisher.publish(item(events=3, on_refused=refused.append))
    publisher._client.acknowledge(1, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert (publisher.counts_of("topic").refused, publisher.counts_of("topic").published, len(refused)) == (3, 0, 1)


def test_finish_counts_what_could_not_be_delivered_and_leaves_room_for_a_last_word(publisher):
    refused = []
    for events in (3, 4):
        publisher.publish(item(events=events, on_refused=refused.append))
    publisher._client.acknowledge(1)
    (purged,) = publisher._client.sent
    assert publisher.finish(0.1) == 4
    assert (
        publisher.counts_of("topic").published,
        publisher.counts_of("topic").dropped,
        publisher.buffered_events,
    ) == (3, 4, 0)
    publisher.publish(item(events=0, size=1))
    purged[3](KafkaError(KafkaError._PURGE_QUEUE), None)
    publisher.close(0.1)
    assert [len(value) for _, _, value, _ in publisher._client.sent] == [1]
    assert (
        publisher.counts_of("topic").published,
        publisher.counts_of("topic").dropped,
        publisher.counts_of("topic").refused,
        refused,
    ) == (3, 4, 0, [])


def test_connection_state_is_told_once_per_change(publisher, caplog):
    caplog.set_level(logging.INFO)
    on_error = publisher._client.options["error_cb"]
    for _ in range(3):
        on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert not publisher.connected
    publisher.publish(item())
    publisher._client.acknowledge(1)
    assert publisher.connected
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "hint:" in caplog.records[0].getMessage()


def test_other_client_errors_are_warnings(publisher, caplog):
    publisher._client.options["error_cb"](KafkaError(KafkaError._AUTHENTICATION))
    assert "Kafka client:" in caplog.text
    assert publisher.connected


def test_publisher_bad_client_setting_is_a_config_error():
    def refuse(_options):
        raise KafkaException(KafkaError(KafkaError._INVALID_ARG, "no such mechanism"))

    with pytest.raises(ConfigError, match="Kafka client"):
        Publisher(KafkaConfig(), buffer_bytes=MIB, make_client=refuse)
