"""What errors of the two Kafka clients mean to us: one table.

Both clients report a broker's answer by the protocol's error code, so one entry serves both; librdkafka numbers its
own errors below -100, aiokafka has classes for them. A code or class that stands nowhere here becomes an InternalError
that names it, and a test fails for every one that the installed clients know and the table does not.

Reference: Kafka protocol guide, "Error Codes"; librdkafka rdkafka.h, rd_kafka_resp_err_t; aiokafka/errors.py.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiokafka import errors as aio
from confluent_kafka import KafkaException

from ebbflow.errors import (
    ConfigError,
    DependencyError,
    EbbflowError,
    InternalError,
    NetworkError,
    PermissionDenied,
    RateLimited,
    Rejected,
    ValidationError,
)

THROTTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Meaning:
    error: type[EbbflowError]
    hint: str


AWAY = Meaning(
    NetworkError, "check that Kafka runs at kafka.bootstrap: `ebbflow doctor`; start one with `ebbflow kafka`"
)
UNSETTLED = Meaning(NetworkError, "Kafka is between two states (election, rebalance); the same call works later")
CREDENTIALS = Meaning(ConfigError, "check kafka.security_protocol, sasl_* and ssl_*: `ebbflow config`")
RIGHTS = Meaning(PermissionDenied, "grant this user read and write on topics and groups named ebbflow.* and otlp_*")
SETTING = Meaning(ConfigError, "check [kafka] in `ebbflow config`, and the topics with `ebbflow topics`")
NO_TOPIC = Meaning(DependencyError, "create the topics: `ebbflow topics`")
BROKER = Meaning(DependencyError, "see the broker's log: disk, storage or version do not allow it")
TOO_LARGE = Meaning(Rejected, "raise the topic's max.message.bytes; `ebbflow topics` shows what it should be")
BAD_DATA = Meaning(ValidationError, "look at the record with `ebbflow dlq`")
SLOW_DOWN = Meaning(RateLimited, "raise the broker's quota for this client")
MISUSE = Meaning(InternalError, "report it with the command that led here")

# Broker codes (positive, and -1), then librdkafka's own (negative).
# fmt: off
_CODES: dict[Meaning, tuple[int, ...]] = {
    AWAY: (8, 13, -146, -166, -185, -187, -192, -193, -195),
    UNSETTLED: (
        5, 6, 7, 9, 11, 14, 15, 16, 19, 20, 22, 25, 27, 41, 47, 51, 60, 70, 71, 72, 74, 75, 77, 78, 79, 80, 82, 83,
        88, 90, 103, 110, 111, 113, 116, 117, 120, 122, 123, 124, 129, 131, 132,
        -138, -142, -144, -147, -151, -152, -153, -158, -163, -164, -167, -177, -178, -180, -182, -183, -184,
    ),
    CREDENTIALS: (33, 34, 54, 58, 61, 62, 63, 64, 66, 67, 93, 97, -169, -181),
    RIGHTS: (29, 30, 31, 53, 65),
    SETTING: (17, 21, 23, 24, 26, 37, 38, 39, 40, 44, 81, 112, 128, -145, -149, -173, -174, -175, -176, -186),
    NO_TOPIC: (3, 100, -188, -190),
    BROKER: (-1, 35, 43, 56, 57, 73, 76, 84, 85, 94, 95, 96, 114, 115, 119, 125, 126, 127, -165, -171),
    TOO_LARGE: (10, 18, 118),
    BAD_DATA: (1, 2, 4, 32, 87, 121, -139, -140, -159, -160, -161, -162, -168, -191, -198, -199),
    SLOW_DOWN: (89, 133),
    MISUSE: (
        0, 12, 28, 36, 42, 45, 46, 48, 49, 50, 52, 55, 59, 68, 69, 86, 91, 92, 130,
        -137, -141, -143, -148, -150, -154, -155, -156, -157, -170, -172, -179, -189, -194, -196, -197,
    ),
}
# aiokafka's own errors, and the bases that it raises itself.
_CLASSES: dict[Meaning, tuple[type[BaseException], ...]] = {
    AWAY: (
        aio.NoBrokersAvailable, aio.NodeNotReadyError, aio.MetadataEmptyBrokerList, aio.KafkaUnavailableError,
        aio.KafkaTimeoutError, aio.KafkaConnectionError,
    ),
    UNSETTLED: (
        aio.Cancelled, aio.TooManyInFlightRequests, aio.StaleMetadata, aio.CommitFailedError, aio.ProducerFenced,
        aio.CorrelationIdError, aio.KafkaProtocolError,
    ),
    CREDENTIALS: (aio.AuthenticationMethodNotSupported, aio.AuthenticationFailedError),
    SETTING: (aio.KafkaConfigurationError, aio.UnsupportedCodecError),
    BROKER: (aio.UnrecognizedBrokerVersion, aio.IncompatibleBrokerVersion, aio.BrokerResponseError),
    TOO_LARGE: (aio.RecordTooLargeError,),
    BAD_DATA: (aio.NoOffsetForPartitionError,),
    SLOW_DOWN: (aio.QuotaViolationError,),
    MISUSE: (
        aio.KafkaError, aio.IllegalStateError, aio.IllegalArgumentError, aio.IllegalOperation,
        aio.ConsumerStoppedError, aio.ProducerClosed,
    ),
}
# fmt: on
BY_CODE = {code: meaning for meaning, codes in _CODES.items() for code in codes}
BY_CLASS = {error: meaning for meaning, classes in _CLASSES.items() for error in classes}
FOREIGN: tuple[type[Exception], ...] = (
    aio.KafkaError,
    aio.IllegalOperation,
    aio.ConsumerStoppedError,
    KafkaException,
    OSError,  # with TimeoutError and ssl.SSLError below it
)


def meaning(error: BaseException) -> Meaning | None:
    """The table's entry for an exception of either client, or of the socket below it; None where there is none."""
    if isinstance(error, KafkaException):
        return BY_CODE.get(error.args[0].code())
    if isinstance(error, aio.BrokerResponseError) and type(error) is not aio.BrokerResponseError:
        return BY_CODE.get(error.errno)
    if isinstance(error, ssl.SSLError):
        return CREDENTIALS
    return AWAY if isinstance(error, OSError) else BY_CLASS.get(type(error))


def translate(error: BaseException, doing: str = "") -> EbbflowError:
    """Our error for one of theirs. `doing` says what was tried: "create topics"."""
    what = f"Kafka: {doing}: {_text(error)}" if doing else f"Kafka: {_text(error)}"
    return _make(meaning(error) or MISUSE, what)


def for_code(code: int, text: str) -> EbbflowError:
    """Our error for a code inside a broker's answer, where nothing was raised."""
    return _make(BY_CODE.get(code, MISUSE), text)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise our errors in place of theirs."""
    try:
        yield
    except FOREIGN as error:
        raise translate(error, doing) from None


def _make(found: Meaning, text: str) -> EbbflowError:
    if found.error is RateLimited:
        return RateLimited(text, retry_after_s=THROTTLE_S, hint=found.hint)
    return found.error(text, hint=found.hint)


def _text(error: BaseException) -> str:
    if isinstance(error, KafkaException):
        return str(error.args[0].str())
    return str(next((arg for arg in error.args if isinstance(arg, str)), "")) or type(error).__name__
