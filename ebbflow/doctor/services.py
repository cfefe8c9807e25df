"""Checks of what ebbflow talks to: Kafka and the OTLP backend. Foreign failures become findings, never exceptions."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

import httpx

from ebbflow.config import KafkaConfig, OtlpConfig, StoreConfig
from ebbflow.doctor.check import Check, fail, note, ok
from ebbflow.errors import EbbflowError, NetworkError
from ebbflow.kafka import check_reachable
from ebbflow.tls import client_context

TIMEOUT_S = 3.0
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_GRPC_PORT, _HTTP_PORT = 4317, 4318


def is_local(bootstrap: str) -> bool:
    """Whether every broker is on this machine's loopback, where `make run` starts Kafka itself."""
    hosts = {part.strip().rpartition(":")[0].strip("[]") for part in bootstrap.split(",")}
    return hosts <= LOOPBACK


def first_port(bootstrap: str) -> int | None:
    port = bootstrap.partition(",")[0].rpartition(":")[2].strip()
    return int(port) if port.isdecimal() else None


def listens(host: str, port: int, timeout_s: float = TIMEOUT_S) -> str:
    """Empty when somebody accepts a connection, else the reason."""
    try:
        socket.create_connection((host, port), timeout_s).close()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def kafka(config: KafkaConfig, timeout_s: float = TIMEOUT_S) -> Check:
    """Kafka answers; where it is `make run`'s own and nobody listens, that it does not is no failure."""
    port = first_port(config.bootstrap)
    if is_local(config.bootstrap) and port is not None and listens("127.0.0.1", port):
        value = f"nobody listens at {config.bootstrap}; make run starts it"
        return note("kafka", value, needed=True, reachable=False)
    try:
        cluster = asyncio.run(check_reachable(config, timeout_s))
    except NetworkError as error:
        return fail("kafka", str(error), needed=True, hint=_KAFKA_HINT, reachable=False)
    except EbbflowError as error:
        return fail("kafka", str(error), needed=True, hint=error.hint, reachable=False)
    brokers = f"{len(cluster.brokers)} broker{'s' if len(cluster.brokers) != 1 else ''}"
    value = f"{config.bootstrap}: {brokers}, {len(cluster.topics)} topics"
    return ok("kafka", value, needed=True, reachable=True, brokers=list(cluster.brokers))


def otlp(config: OtlpConfig, store: StoreConfig, timeout_s: float = TIMEOUT_S) -> Check:
    """The OTLP backend takes spans: an empty request is sent to it. Spans wait in Kafka while it does not."""
    if config.protocol == "grpc" and (config.traces_endpoint or config.endpoint):
        return _otlp_port(config.traces_endpoint or config.endpoint, timeout_s)
    if config.traces_endpoint or config.endpoint:
        return _otlp_http(config, config.traces_endpoint or f"{config.endpoint.rstrip('/')}/v1/traces", timeout_s)
    address = f"{store.host}:{store.port}"
    if listens(store.host, store.port, timeout_s):
        return note("otlp", f"none set; the embedded store at {address} starts with make run")
    return _otlp_http(config, f"http://{address}/v1/traces", timeout_s)


def _otlp_http(config: OtlpConfig, url: str, timeout_s: float) -> Check:
    headers = {"content-type": "application/x-protobuf", **config.headers}
    try:
        files = (config.certificate, config.client_certificate, config.client_key)
        verify = client_context("otlp", *files) if url.startswith("https") else False
        status = httpx.post(url, content=b"", headers=headers, timeout=timeout_s, verify=verify).status_code
    except EbbflowError as error:
        return fail("otlp", str(error), hint=error.hint)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        return fail("otlp", f"{url}: {error or type(error).__name__}", hint=_OTLP_HINT)
    if status == httpx.codes.OK:
        return ok("otlp", url)
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return fail("otlp", f"{url}: HTTP {status}", hint="set the backend's credentials in otlp.headers")
    return fail("otlp", f"{url}: HTTP {status}", hint=_OTLP_HINT)


def _otlp_port(endpoint: str, timeout_s: float) -> Check:
    parts = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
    try:
        host, port = parts.hostname or "", parts.port or _GRPC_PORT
    except ValueError as error:
        return fail("otlp", f"{endpoint}: {error}", hint=_OTLP_HINT)
    if reason := listens(host, port, timeout_s):
        return fail("otlp", f"{host}:{port}: {reason}", hint=_OTLP_HINT)
    return ok("otlp", f"{host}:{port} accepts connections (gRPC)")


_OTLP_HINT = "start the backend, or correct it: ebbflow --set otlp.endpoint=URL doctor"
_KAFKA_HINT = "start it (one of your own: ebbflow kafka), or correct it: ebbflow --set kafka.bootstrap=HOST:PORT doctor"
