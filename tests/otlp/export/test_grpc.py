"""The gRPC exporter and the courier against a real server that answers by script."""

from random import Random

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from ebbflow.config import Config, OtlpConfig
from ebbflow.errors import NetworkError, RateLimited, Rejected
from ebbflow.otlp.export import Accepted, Courier, Parcel, make_exporter
from ebbflow.otlp.export.grpc import RETRIABLE, judge, read_retry_info
from ebbflow.otlp.signals import TRACES
from ebbflow.testing.otlp_backend import GrpcBackend, Outcome
from ebbflow.testing.spans import make_record, make_traces, span_numbers

ALL = list(range(30))
CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def exporter(backend: GrpcBackend, **otlp):
    settings = {"endpoint": backend.url, "protocol": "grpc", "timeout_s": 5} | otlp
    return make_exporter(Config(otlp=OtlpConfig(**settings)), TRACES)


async def carry(backend: GrpcBackend, **otlp):
    """Three records of ten numbered spans through a courier; delays are noted instead of slept."""
    delays_s = []

    async def sleep(delay_s: float) -> None:
        delays_s.append(delay_s)

    client = exporter(backend, **otlp)
    parcels = [Parcel(make_record(range(i * 10, i * 10 + 10), offset=i), 10) for i in range(3)]
    courier = Courier(TRACES, client, batch_bytes=1 << 20, random=Random(1), sleep=sleep)
    await courier.deliver(parcels, lambda _error: None)
    await client.close()
    dead = [n for parcel in parcels for letter in parcel.dead_letters for n in span_numbers(letter.value)]
    arrived = [number for body in backend.accepted for number in span_numbers(body)]
    exported, rejected = sum(parcel.exported for parcel in parcels), sum(parcel.rejected for parcel in parcels)
    assert exported + rejected == len(ALL)
    return arrived, dead, exported, rejected, delays_s


def test_retriable_codes_are_those_of_the_specification():
    assert {code.name for code in RETRIABLE} == {
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNAVAILABLE",
        "DATA_LOSS",
    }


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
async def test_status_without_retry_info_is_retried_split_or_final(code):
    async with GrpcBackend([Outcome(code)]) as backend:
        arrived, dead, _, _, delays_s = await carry(backend)
        if code in RETRIABLE:
            assert (arrived, dead, len(delays_s), len(backend.requests)) == (ALL, [], 1, 2)
        elif code is EXHAUSTED:
            assert (arrived, dead, delays_s, len(backend.requests)) == (ALL, [], [], 3)
        else:
            assert (arrived, dead, delays_s, len(backend.requests)) == ([], ALL, [], 1)


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
async def test_status_with_retry_info_waits_as_long_or_is_final(code):
    async with GrpcBackend([Outcome(code, retry_after_s=2.5)]) as backend:
        arrived, dead, _, _, delays_s = await carry(backend)
        if code in RETRIABLE or code is EXHAUSTED:
            assert (arrived, dead, len(backend.requests)) == (ALL, [], 2)
            assert 2.5 <= delays_s[0] <= 2.75
        else:
            assert (arrived, dead, delays_s, len(backend.requests)) == ([], ALL, [], 1)


async def test_request_beyond_the_servers_own_limit_is_split():
    async with GrpcBackend(max_request_bytes=1000) as backend:
        arrived, dead, exported, _, delays_s = await carry(backend)
        assert (arrived, dead, exported, delays_s) == (ALL, [], 30, [])
        assert all(len(body) <= 1000 for body in backend.accepted)


async def test_resource_exhausted_to_the_last_span_is_a_dead_letter_for_each():
    async with GrpcBackend([Outcome(EXHAUSTED)] * 59) as backend:
        arrived, dead, _, rejected, _ = await carry(backend)
        assert (arrived, dead, rejected, len(backend.requests)) == ([], ALL, 30, 59)


async def test_partial_success_is_counted_and_not_repeated():
    response = ExportTraceServiceResponse(partial_success={"rejected_spans": 4}).SerializeToString()
    async with GrpcBackend([Outcome(response=response)]) as backend:
        arrived, dead, exported, rejected, _ = await carry(backend)
        assert (arrived, dead, exported, rejected, len(backend.requests)) == (ALL, [], 26, 4, 1)


async def test_unreadable_response_is_success():
    async with GrpcBackend([Outcome(response=b"\xff\xff")]) as backend:
        assert (await carry(backend))[2] == 30


async def test_response_beyond_the_limit_is_final():
    async with GrpcBackend([Outcome(response=bytes((4 << 20) + 1))]) as backend:
        _, dead, _, rejected, delays_s = await carry(backend)
        assert (dead, rejected, delays_s, len(backend.requests)) == (ALL, 30, [], 1)


async def test_silent_server_is_given_up_and_asked_again():
    async with GrpcBackend([Outcome(silent=True)]) as backend:
        arrived, dead, exported, _, delays_s = await carry(backend, timeout_s=0.1)
        assert (arrived, dead, exported, len(delays_s)) == (ALL, [], 30, 1)


async def test_server_that_is_not_there_is_a_network_error():
    async with GrpcBackend() as backend:
        client = exporter(backend)
    with pytest.raises(NetworkError, match="gRPC UNAVAILABLE"):
        await client.send(make_traces([1]))
    await client.close()


@pytest.mark.parametrize("compression", ["gzip", "none"])
async def test_request_has_the_bytes_and_the_headers_as_metadata(compression):
    async with GrpcBackend() as backend:
        client = exporter(backend, headers={"X-Key": "secret"}, compression=compression)
        assert await client.send(make_traces(range(9))) == Accepted()
        await client.close()
        assert backend.accepted == [make_traces(range(9))]
        assert backend.requests[0].headers["x-key"] == "secret"


async def test_tls_known_authority_is_accepted(authority):
    async with GrpcBackend(credentials=authority.server_credentials()) as backend:
        client = exporter(backend, certificate=authority.path("ca.pem"))
        assert await client.send(make_traces([1])) == Accepted()
        await client.close()


async def test_tls_unknown_authority_is_a_network_error(authority, other_authority):
    async with GrpcBackend(credentials=authority.server_credentials()) as backend:
        client = exporter(backend, certificate=other_authority.path("ca.pem"))
        with pytest.raises(NetworkError):
            await client.send(make_traces([1]))
        await client.close()
        assert backend.requests == []


async def test_mutual_tls_with_key_in_its_own_file_or_the_certificates(authority, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(authority.path("client.pem").read_bytes() + authority.path("client.key").read_bytes())
    async with GrpcBackend(credentials=authority.server_credentials(ask_client=True)) as backend:
        for files in (
            {"client_certificate": authority.path("client.pem"), "client_key": authority.path("client.key")},
            {"client_certificate": both},
        ):
            client = exporter(backend, certificate=authority.path("ca.pem"), **files)
            assert await client.send(make_traces([1])) == Accepted()
            await client.close()


async def test_mutual_tls_without_a_certificate_is_a_network_error(authority):
    async with GrpcBackend(credentials=authority.server_credentials(ask_client=True)) as backend:
        client = exporter(backend, certificate=authority.path("ca.pem"))
        with pytest.raises(NetworkError):
            await client.send(make_traces([1]))
        await client.close()
        assert backend.requests == []


def test_judge_tells_target_code_and_details():
    error = judge(grpc.StatusCode.INVALID_ARGUMENT, "bad\nspan", None, "b:1")
    assert isinstance(error, Rejected)
    assert str(error) == "b:1: gRPC INVALID_ARGUMENT bad span"


@pytest.mark.parametrize("value", [b"\xff\xff", b"", "text"])
def test_read_retry_info_unreadable_or_absent_is_none(value):
    assert read_retry_info([("grpc-status-details-bin", value), ("other", b"x")]) is None


def test_read_retry_info_absurd_delay_is_capped():
    status = Status()
    status.details.add().Pack(Status())  # some other detail first
    status.details.add().Pack(RetryInfo(retry_delay={"seconds": 10**9}))
    error = judge(grpc.StatusCode.UNAVAILABLE, "", [("grpc-status-details-bin", status.SerializeToString())], "b")
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 3600.0
