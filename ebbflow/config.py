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
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ebbflow.errors import ConfigError

ENV_PREFIX = "EBBFLOW_"
# Set by the process manager and by tests for child processes; not settings.
ENV_NOT_SETTINGS = frozenset({"EBBFLOW_CONFIG", "EBBFLOW_COMPONENT"})
Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaConfig(Section):
    bootstrap: str = Field("127.0.0.1:19092", description="host:port of one or more brokers, separated by commas")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str = ""
    sasl_password: str = Field("", json_schema_extra={"secret": True})
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    partitions: int = Field(4, ge=1, description="partitions of topics that are created")
    replication_factor: int = Field(1, ge=1)


class CaptureConfig(Section):
    targets: list[str] = Field(default_factory=list, description="pid:N, exe:PATH, cgroup:PATH, port:N, or all")
    payload_bytes: int = Field(1024, ge=0, le=8192, description="payload kept of each event")
    first_payload_bytes: int = Field(4096, ge=0, le=8192, description="payload kept of a direction's first event")
    ring_bytes: int = Field(64 << 20, ge=4096, description="ring buffer between kernel and producer; a power of two")
    max_connections: int = Field(65536, ge=64, description="connections tracked in the kernel")
    exclude_ports: list[Port] = Field(default_factory=list, description="never captured; Kafka's and OTLP's are added")


class RedactionConfig(Section):
    enabled: bool = Field(True, description="mask credentials before anything leaves the producer")
    bodies: bool = Field(True, description="drop message bodies, and payload of unknown protocols")
    headers: list[str] = Field(default_factory=list, description="more header names to mask")
    parameters: list[str] = Field(default_factory=list, description="more query parameters to mask")


class ProducerConfig(Section):
    buckets: int = Field(4, ge=1, le=1024, description="process buckets of this host; each is a Kafka key")
    batch_bytes: int = Field(400_000, ge=1_000, le=900_000, description="a batch is published when this large")
    batch_age_s: float = Field(0.25, gt=0, le=60, description="or this old")
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


class OtlpConfig(Section):
    endpoint: str = Field("", description="base URL of an OTLP backend; empty: the embedded store")
    traces_endpoint: str = Field("", description="full URL for traces, used as given")
    protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    headers: dict[str, str] = Field(default_factory=dict, json_schema_extra={"secret": True})
    compression: Literal["gzip", "none"] = "gzip"
    timeout_s: float = Field(10.0, gt=0)
    batch_bytes: int = Field(3_500_000, ge=10_000, le=64 << 20, description="largest request before compression")
    certificate: Path | None = Field(None, description="CA bundle that signs the backend's certificate")
    client_certificate: Path | None = None
    client_key: Path | None = None
    insecure: bool = Field(False, description="gRPC without TLS for a host without a scheme")


class StoreConfig(Section):
    host: str = "127.0.0.1"
    port: Port = 14318
    path: Path = Field(Path(".run/store.duckdb"), description="database file")
    retention_s: float = Field(86_400.0, gt=0, description="spans older than this are deleted")
    max_bytes: int = Field(2 << 30, ge=1 << 20, description="oldest spans are deleted when the file is larger")


class HealthConfig(Section):
    host: str = "127.0.0.1"
    producer_port: int = Field(0, ge=0, le=65535, description="/metrics and health of the producer; 0: none")
    processor_port: int = Field(0, ge=0, le=65535)
    sink_port: int = Field(0, ge=0, le=65535)


class LogConfig(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Config(Section):
    kafka: KafkaConfig = Field(default_factory=KafkaConfig)
    capture: CaptureConfig = Field(default_factory=CaptureConfig)
    redaction: RedactionConfig = Field(default_factory=RedactionConfig)
    producer: ProducerConfig = Field(default_factory=ProducerConfig)
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


@dataclass(frozen=True, slots=True)
class Loaded:
    config: Config
    origins: Mapping[str, str]

    def settings(self) -> Iterator[Setting]:
        for section, body in Config.model_fields.items():
            model = body.annotation
            assert model is not None and issubclass(model, Section)  # noqa: S101, PT018 - the tree has two levels
            for name, field in model.model_fields.items():
                key = f"{section}.{name}"
                extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
                yield Setting(
                    key,
                    getattr(getattr(self.config, section), name),
                    self.origins.get(key, "default"),
                    field.description or "",
                    bool(extra.get("secret")),
                )


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
        section, _, name = key.partition(".")
        _check_known(section, name, origin)
        merged.setdefault(section, {})[name] = value
        origins[key] = origin
    try:
        return Loaded(Config.model_validate(merged), origins)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:2])
        where = origins.get(key, "default")
        raise ConfigError(
            f"{key} from {where}: {first['msg']} (it is {first['input']!r})",
            hint="run `ebbflow config` to see every key with its meaning",
        ) from None


def _check_known(section: str, name: str, origin: str) -> None:
    known = [f"{s}.{n}" for s, f in Config.model_fields.items() for n in f.annotation.model_fields]  # type: ignore[union-attr]
    key = f"{section}.{name}"
    if key not in known:
        near = get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "run `ebbflow config` to see every key"
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
        section, _, name = variable.removeprefix(ENV_PREFIX).lower().partition("__")
        yield variable, f"{section}.{name}", _parse_text(section, name, environ[variable])


def _from_flags(flags: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for key, value in flags.items():
        if value is not None:
            yield "command line", key, value


def _parse_text(section: str, name: str, text: str) -> Any:
    """Lists and maps from text: JSON, or `a,b` and `k=v,k=v`; everything else is for pydantic to convert."""
    model = Config.model_fields[section].annotation if section in Config.model_fields else None
    field = model.model_fields.get(name) if model is not None else None  # type: ignore[attr-defined]
    origin = getattr(field.annotation, "__origin__", None) if field is not None else None
    if origin not in {list, dict}:
        return text
    if text[:1] in "[{":
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if origin is list:
        return parts
    return dict(part.split("=", 1) if "=" in part else (part, "") for part in parts)
