"""Which exporter a configuration asks for."""

from __future__ import annotations

import ipaddress
import ssl
from urllib.parse import SplitResult, urlsplit

import grpc

from ebbflow.config import Config, OtlpConfig
from ebbflow.errors import ConfigError
from ebbflow.otlp.export.answer import Exporter
from ebbflow.otlp.export.grpc import GrpcExporter
from ebbflow.otlp.export.http import HttpExporter
from ebbflow.otlp.signals import Signal
from ebbflow.tls import client_context, read_pem

DEFAULT_GRPC_PORT = 4317


def make_exporter(config: Config, signal: Signal) -> Exporter:
    """The exporter for one signal; it connects when it first sends.

    Raises:
        ConfigError: an endpoint that is no URL, TLS files that cannot be used, settings that exclude each other.
    """
    otlp = config.otlp
    _check_headers(otlp.headers)
    if otlp.protocol == "grpc":
        return _make_grpc(otlp, signal)
    url = http_url(config, signal)
    parts = _split(url)
    return HttpExporter(
        signal,
        url,
        headers=otlp.headers,
        compress=otlp.compression == "gzip",
        timeout_s=otlp.timeout_s,
        tls=_context(otlp) if parts.scheme == "https" else None,
        use_proxy=not _is_loopback(parts.hostname),
    )


def http_url(config: Config, signal: Signal) -> str:
    """The signal's own URL as given, or the base URL with the signal's path, or the embedded store's."""
    own: str = getattr(config.otlp, f"{signal.name}_endpoint", "")
    if own:
        return own
    if config.otlp.endpoint:
        return config.otlp.endpoint.rstrip("/") + signal.path
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.store.host, config.store.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{config.store.port}{signal.path}"


def _make_grpc(otlp: OtlpConfig, signal: Signal) -> GrpcExporter:
    endpoint = getattr(otlp, f"{signal.name}_endpoint", "") or otlp.endpoint
    if not endpoint:
        raise ConfigError(
            "otlp.protocol is grpc without an endpoint; the embedded store speaks http/protobuf",
            hint="set otlp.endpoint, or leave otlp.protocol at http/protobuf",
        )
    scheme = "http://" if otlp.insecure else "https://"
    parts = _split(endpoint if "://" in endpoint else scheme + endpoint)
    if parts.path.strip("/"):
        raise ConfigError(f"{endpoint}: gRPC has no path", hint="name host and port only: http://host:4317")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return GrpcExporter(
        signal,
        f"{host}:{parts.port or DEFAULT_GRPC_PORT}",
        headers=otlp.headers,
        compress=otlp.compression == "gzip",
        timeout_s=otlp.timeout_s,
        credentials=_credentials(otlp) if parts.scheme == "https" else None,
        use_proxy=not _is_loopback(parts.hostname),
    )


def _credentials(otlp: OtlpConfig) -> grpc.ChannelCredentials:
    _context(otlp)  # gRPC takes any bytes and fails later, without saying why
    files = (otlp.certificate, otlp.client_key, otlp.client_certificate)
    if otlp.client_certificate is not None and otlp.client_key is None:
        files = (otlp.certificate, otlp.client_certificate, otlp.client_certificate)
    return grpc.ssl_channel_credentials(*(read_pem("otlp", path) for path in files))


def _context(otlp: OtlpConfig) -> ssl.SSLContext:
    return client_context("otlp", otlp.certificate, otlp.client_certificate, otlp.client_key)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"{url}: not a URL of an OTLP endpoint", hint="write http://host:port or https://host:port")
    return parts


def _check_headers(headers: dict[str, str]) -> None:
    for name, value in headers.items():
        if not name or not all("!" <= c <= "~" and c not in '()<>@,;:\\"/[]?={}' for c in name):
            raise ConfigError(f"otlp.headers: {name!r} is no header name", hint='write headers = { name = "value" }')
        if not all(" " <= c <= "~" for c in value):
            raise ConfigError(f"otlp.headers: the value of {name} has characters that cannot be sent")


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
