import ssl

import pytest
from aiokafka import errors as aio
from confluent_kafka import KafkaError, KafkaException

from ebbflow import errors, kafka_errors

AIOKAFKA = sorted(
    {error for error in vars(aio).values() if isinstance(error, type) and issubclass(error, Exception)},
    key=lambda error: error.__name__,
)
CONFLUENT = sorted(value for name, value in vars(KafkaError).items() if name.isupper() and isinstance(value, int))


@pytest.mark.parametrize("error", AIOKAFKA, ids=lambda error: error.__name__)
def test_meaning_of_every_aiokafka_error_is_in_the_table(error):
    assert kafka_errors.meaning(error()) is not None


@pytest.mark.parametrize("code", CONFLUENT)
def test_meaning_of_every_librdkafka_code_is_in_the_table(code):
    assert kafka_errors.meaning(KafkaException(KafkaError(code))) is not None


def test_table_has_no_code_twice():
    codes = [code for codes in kafka_errors._CODES.values() for code in codes]
    assert len(codes) == len(set(codes))


def test_table_has_no_class_twice():
    classes = [error for classes in kafka_errors._CLASSES.values() for error in classes]
    assert len(classes) == len(set(classes))


def test_foreign_covers_every_error_of_both_clients():
    assert [error for error in (*AIOKAFKA, KafkaException) if not issubclass(error, kafka_errors.FOREIGN)] == []


@pytest.mark.parametrize(
    ("foreign", "ours", "retriable"),
    [
        (aio.KafkaConnectionError("x"), errors.NetworkError, True),
        (ConnectionRefusedError("x"), errors.NetworkError, True),
        (TimeoutError(), errors.NetworkError, True),
        (ssl.SSLCertVerificationError("x"), errors.ConfigError, False),
        (aio.LeaderNotAvailableError(), errors.NetworkError, True),
        (aio.TopicAuthorizationFailedError(), errors.PermissionDenied, False),
        (aio.SaslAuthenticationFailed(), errors.ConfigError, False),
        (aio.MessageSizeTooLargeError(), errors.Rejected, False),
        (aio.UnknownTopicOrPartitionError(), errors.DependencyError, False),
        (KafkaException(KafkaError(KafkaError._TRANSPORT)), errors.NetworkError, True),
        (KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)), errors.PermissionDenied, False),
        (KafkaException(KafkaError(KafkaError.THROTTLING_QUOTA_EXCEEDED)), errors.RateLimited, True),
    ],
)
def test_translate_known_error_gives_type_hint_and_reason(foreign, ours, retriable):
    error = kafka_errors.translate(foreign, "publish")
    assert (type(error), error.retriable) == (ours, retriable)
    assert error.hint
    assert str(error).startswith("Kafka: publish: ")


def test_translate_unknown_error_is_internal_and_names_it():
    class Novel(aio.KafkaError):
        pass

    error = kafka_errors.translate(Novel())
    assert isinstance(error, errors.InternalError)
    assert str(error) == "Kafka: Novel"


def test_for_code_unknown_is_internal():
    assert isinstance(kafka_errors.for_code(9999, "x"), errors.InternalError)


def test_for_code_quota_says_how_long_to_wait():
    error = kafka_errors.for_code(89, "x")
    assert isinstance(error, errors.RateLimited)
    assert error.retry_after_s == kafka_errors.THROTTLE_S


def test_translated_replaces_foreign_errors_without_their_trace():
    with pytest.raises(errors.NetworkError, match="Kafka: commit: gone") as caught, kafka_errors.translated("commit"):
        raise aio.KafkaConnectionError("gone")
    assert caught.value.__suppress_context__


def test_translated_lets_other_errors_pass():
    with pytest.raises(KeyError), kafka_errors.translated("commit"):
        raise KeyError("x")
