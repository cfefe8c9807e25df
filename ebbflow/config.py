"""One typed tree of settings: defaults, then `ebbflow.toml`, then `EBBFLOW_*`, then flags.

`load` reads the sources in that order and remembers for every value where it came from, which `ebbflow config` prints.
An environment variable names a key by joining its path with two underscores: `EBBFLOW_KAFKA__BOOTSTRAP`. Lists are
written as JSON or separated by commas. A key nobody knows, or a value that does not fit, is a `ConfigError` that names
the key and the source.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import orjson
from pydantic import Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ebbflow.errors import ConfigError
from ebbflow.feature_config import (
    CpuConfig,
    DiskConfig,
    MemoryConfig,
    ProcessConfig,
    Section,
    SyscallsConfig,
    TcpConfig,
)

ENV_PREFIX = "EBBFLOW_"
# Set by the process manager and by tests for child processes; not settings.
ENV_NOT_SETTINGS = frozenset({"EBBFLOW_CONFIG", "EBBFLOW_COMPONENT"})
_LAST_PORT = 65535
_MASK = "********"
Port = Annotated[int, Field(ge=1, le=_LAST_PORT)]


class KafkaConfig(Section):
    bootstrap: str = Field("127.0.0.1:19092", description="host:port of one or more brokers, separated by commas")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
    )
    sasl_username: str = Field("", description="user for SASL")
    sasl_password: str = Field("", description="password for SASL", json_schema_extra={"secret": True})
    ssl_cafile: Path | None = Field(None, description="CA bundle that signs the brokers' certificates")
    ssl_certfile: Path | None = Field(None, description="our certificate, where brokers ask for one")
    ssl_keyfile: Path | None = Field(None, description="its key")
    partitions: int = Field(4, ge=1, description="partitions of topics that are created")
    replication_factor: int = Field(1, ge=1, description="copies of each partition of topics that are created")

    @field_validator("bootstrap")
    @classmethod
    def _check_bootstrap(cls, value: str) -> str:
        for broker in value.split(","):
            host, _, port = broker.strip().rpartition(":")
            if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= _LAST_PORT:
                raise ValueError("Input should be host:port, several separated by commas")
        return value


class CaptureConfig(Section):
    targets: list[str] = Field(default_factory=list, description="pid:N, exe:PATH, cgroup:PATH, port:N, or all")
    payload_bytes: int = Field(1024, ge=0, le=8192, description="payload kept of each event")
    first_payload_bytes: int = Field(4096, ge=0, le=8192, description="payload kept of a direction's first event")
    ring_bytes: int = Field(64 << 20, ge=4096, description="ring buffer between kernel and producer; a power of two")
    max_connections: int = Field(65536, ge=64, description="connections tracked in the kernel")
    event_ring_bytes: int = Field(4 << 20, ge=4096, description="ring buffer of every other feature; a power of two")
    interval_s: float = Field(5.0, ge=0.1, le=300, description="what is summed up in the kernel is read this often")
    exclude_ports: list[Port] = Field(default_factory=list, description="never captured; Kafka's and OTLP's are added")

    @field_validator("ring_bytes", "event_ring_bytes")
    @classmethod
    def _check_power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("Input should be a power of two")
        return value


class RedactionConfig(Section):
    enabled: bool = Field(True, description="mask credentials before anything leaves the producer")
    bodies: bool = Field(True, description="drop message bodies, and payload of unknown protocols")
    headers: list[str] = Field(default_factory=list, description="more header names to mask")
    parameters: list[str] = Field(default_factory=list, description="more query parameters to mask")


class ProducerConfig(Section):
    features: list[str] = Field(
        default_factory=lambda: ["sockets"],
        description="what `ebbflow run` watches: sockets, tcp, process, syscalls, cpu, memory, disk",
    )
    buckets: int = Field(4, ge=1, le=1024, description="process buckets of this host; each is a Kafka key")
    batch_bytes: int = Field(400_000, ge=1_000, le=900_000, description="a batch is published when this large")
    batch_age_s: float = Field(0.25, gt=0, le=60, description="or this old")
    niceness: int = Field(
        10, ge=0, le=19, description="scheduling niceness of the producer: what it watches goes first; the ring waits"
    )
    report_s: float = Field(10.0, ge=0, description="its own metrics go to otlp_metrics this often; 0: never")
    buffer_bytes: int = Field(256 << 20, ge=1 << 20, description="kept while Kafka is away; then the oldest is dropped")


class RequestsConfig(Section):
    exchange_timeout_s: float = Field(300.0, gt=0, description="an exchange without an end is emitted as incomplete")
    max_connections: int = Field(100_000, ge=1, description="connections remembered per partition")
    max_pending_bytes: int = Field(64 << 20, ge=1 << 16, description="bytes held back per partition for reassembly")


class StreamConfig(Section):
    checkpoint_interval_s: float = Field(1.0, gt=0, le=60, description="longest work repeated after a crash")
    bad_window: int = Field(100, ge=1, le=10_000, description="records of a partition that are looked back on")
    bad_share: float = Field(0.5, gt=0, le=1, description="a stage stops when more of them are bad; 1: never")
    stall_s: float = Field(30.0, gt=0, description="not ready when records wait this long for their commit")
    session_timeout_s: float = Field(10.0, ge=6, le=300, description="a killed worker's partitions wait this long")


class OtlpConfig(Section):
    endpoint: str = Field("", description="base URL of an OTLP backend; empty: the embedded store")
    traces_endpoint: str = Field("", description="full URL for traces, used as given")
    protocol: Literal["http/protobuf", "grpc"] = Field("http/protobuf", description="http/protobuf or grpc")
    headers: dict[str, str] = Field(
        default_factory=dict, description="sent with every request, such as a token", json_schema_extra={"secret": True}
    )
    compression: Literal["gzip", "none"] = Field("gzip", description="gzip or none")
    timeout_s: float = Field(10.0, gt=0, description="of one request")
    batch_bytes: int = Field(3_500_000, ge=10_000, le=64 << 20, description="largest request before compression")
    certificate: Path | None = Field(None, description="CA bundle that signs the backend's certificate")
    client_certificate: Path | None = Field(None, description="our certificate, where the backend asks for one")
    client_key: Path | None = Field(None, description="its key")
    insecure: bool = Field(False, description="gRPC without TLS for a host without a scheme")


class StoreConfig(Section):
    host: str = Field("127.0.0.1", description="where the embedded store listens")
    port: Port = Field(14318, description="OTLP/HTTP port of the embedded store")
    path: Path = Field(Path(".run/store.duckdb"), description="database file")
    retention_s: float = Field(86_400.0, gt=0, description="spans older than this are deleted")
    max_bytes: int = Field(2 << 30, ge=1 << 20, description="oldest spans are deleted when the file is larger")


class HealthConfig(Section):
    host: str = Field("127.0.0.1", description="where /metrics and health are served")
    producer_port: int = Field(0, ge=0, le=65535, description="/metrics and health of the producer; 0: none")
    processor_port: int = Field(0, ge=0, le=65535, description="of the processors; 0: none")
    sink_port: int = Field(0, ge=0, le=65535, description="of the sinks; 0: none")


class LogConfig(Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    format: Literal["auto", "console", "json"] = Field(
        "auto", description="console, json, or auto: console on a terminal"
    )


class Config(Section):
    kafka: KafkaConfig = Field(default_factory=KafkaConfig)
    capture: CaptureConfig = Field(default_factory=CaptureConfig)
    redaction: RedactionConfig = Field(default_factory=RedactionConfig)
    producer: ProducerConfig = Field(default_factory=ProducerConfig)
    tcp: TcpConfig = Field(default_factory=TcpConfig)
    process: ProcessConfig = Field(default_factory=ProcessConfig)
    syscalls: SyscallsConfig = Field(default_factory=SyscallsConfig)
    cpu: CpuConfig = Field(default_factory=CpuConfig)
    memory: MemoryConfig = Field(default_factory=MemoryConfig)
    disk: DiskConfig = Field(default_factory=DiskConfig)
    requests: RequestsConfig = Field(default_factory=RequestsConfig)
    stream: StreamConfig = Field(default_factory=StreamConfig)
    otlp: OtlpConfig = Field(default_factory=OtlpConfig)
    store: StoreConfig = Field(default_factory=StoreConfig)
    health: HealthConfig = Field(default_factory=HealthConfig)
    log: LogConfig = Field(default_factory=LogConfig)


@dataclass(frozen=True, slots=True)
class Setting:
    """One value of the tree, for `ebbflow config`."""

    key: str
    value: Any
    origin: str
    description: str
    secret: bool

    @property
    def shown(self) -> Any:
        """The value for people's eyes: a secret that is set shows only that it is."""
        if not self.secret or not self.value:
            return self.value
        return dict.fromkeys(self.value, _MASK) if isinstance(self.value, dict) else _MASK


@dataclass(frozen=True, slots=True)
class Loaded:
    config: Config
    origins: Mapping[str, str]

    def settings(self) -> Iterator[Setting]:
        """Every setting, in the order of the tree."""
        for key, field in _fields().items():
            section, _, name = key.partition(".")
            yield Setting(
                key,
                getattr(getattr(self.config, section), name),
                self.origins.get(key, "default"),
                field.description or "",
                _is_secret(field),
            )


@cache
def _fields() -> dict[str, FieldInfo]:
    """Dotted key to field. The tree has two levels, sections and settings."""
    sections = ((name, getattr(Config(), name)) for name in Config.model_fields)
    return {f"{name}.{key}": field for name, section in sections for key, field in type(section).model_fields.items()}


def _is_secret(field: FieldInfo) -> bool:
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("secret"))


def load(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Loaded:
    """Merge all sources.

    Args:
        path: a TOML file that must exist; None takes `EBBFLOW_CONFIG`, or `ebbflow.toml` where there is one.
        environ: the environment, `os.environ` by default.
        flags: dotted key to value, from the command line; None values are left out.

    Raises:
        ConfigError: names the key and the source of what is wrong.
    """
    environ = os.environ if environ is None else environ
    merged: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    for origin, key, value in [*_from_file(path, environ), *_from_environment(environ), *_from_flags(flags or {})]:
        _check_known(key, origin)
        section, _, name = key.partition(".")
        merged.setdefault(section, {})[name] = value
        origins[key] = origin
    try:
        return Loaded(Config.model_validate(merged), origins)
    except ValidationError as error:
        raise _explain(error.errors()[0], origins) from None


def _explain(error: ErrorDetails, origins: Mapping[str, str]) -> ConfigError:
    key = ".".join(str(part) for part in error["loc"][:2])
    message = error["msg"].removeprefix("Value error, ")
    value = "" if _is_secret(_fields()[key]) else f" (it is {error['input']!r})"
    return ConfigError(
        f"{key} from {origins.get(key, 'default')}: {message}{value}",
        hint="see docs/configuration.md for every key with its meaning",
    )


def _check_known(key: str, origin: str) -> None:
    if key not in _fields():
        near = get_close_matches(key, _fields(), n=1)
        hint = f"did you mean {near[0]}?" if near else "see docs/configuration.md for every key"
        raise ConfigError(f"{key} from {origin}: there is no such setting", hint=hint)


def _from_file(path: Path | None, environ: Mapping[str, str]) -> Iterator[tuple[str, str, Any]]:
    if path is None and environ.get("EBBFLOW_CONFIG"):
        path = Path(environ["EBBFLOW_CONFIG"])
    if path is None:
        path = Path("ebbflow.toml")
        if not path.exists():
            return
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="name a readable TOML file with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}", hint="see docs/configuration.md for an example") from None
    for section, body in tree.items():
        if not isinstance(body, dict):
            raise ConfigError(f"{section} from {path}: settings stand in sections", hint="write [section] above it")
        for name, value in body.items():
            yield str(path), f"{section}.{name}", value


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, Any]]:
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX) or variable in ENV_NOT_SETTINGS:
            continue
        key = variable.removeprefix(ENV_PREFIX).lower().replace("__", ".", 1)
        yield variable, key, _parse_text(key, environ[variable])


def _from_flags(flags: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for key, value in flags.items():
        if value is not None:
            yield "command line", key, _parse_text(key, value) if isinstance(value, str) else value


def _parse_text(key: str, text: str) -> Any:
    """Lists and maps from text: JSON, or `a,b` and `k=v,k=v`; everything else is for pydantic to convert."""
    field = _fields().get(key)
    if field is None:
        return text
    kind = get_origin(field.annotation)
    if kind not in {list, dict}:
        return None if text == "" and field.default is None else text
    if text[:1] in {"[", "{"}:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if kind is list:
        return parts
    return {name: value for name, _, value in (part.partition("=") for part in parts)}
