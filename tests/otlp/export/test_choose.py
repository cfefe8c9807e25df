import pytest

from ebbflow.config import Config, OtlpConfig, StoreConfig
from ebbflow.errors import ConfigError
from ebbflow.otlp.export.choose import http_url, make_exporter
from ebbflow.otlp.export.grpc import GrpcExporter
from ebbflow.otlp.export.http import HttpExporter
from ebbflow.otlp.signals import TRACES


@pytest.mark.parametrize(
    ("otlp", "url"),
    [
        ({}, "http://127.0.0.1:14318/v1/traces"),
        ({"endpoint": "http://backend:4318"}, "http://backend:4318/v1/traces"),
        ({"endpoint": "https://backend/otlp/"}, "https://backend/otlp/v1/traces"),
        ({"traces_endpoint": "http://backend/in?x=1"}, "http://backend/in?x=1"),
        ({"endpoint": "http://other", "traces_endpoint": "http://backend/"}, "http://backend/"),
    ],
    ids=["embedded store", "base", "base with path", "own URL", "own URL first"],
)
def test_http_url_is_what_the_specification_says(otlp, url):
    assert http_url(Config(otlp=OtlpConfig(**otlp)), TRACES) == url


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:9/v1/traces"),
        ("::", "http://[::1]:9/v1/traces"),
        ("10.0.0.1", "http://10.0.0.1:9/v1/traces"),
    ],
)
def test_http_url_of_a_store_that_listens_everywhere_is_loopback(host, url):
    assert http_url(Config(store=StoreConfig(host=host, port=9)), TRACES) == url


async def make(**otlp):
    exporter = make_exporter(Config(otlp=OtlpConfig(**otlp)), TRACES)
    await exporter.close()
    return exporter


async def test_make_exporter_default_is_http():
    assert isinstance(await make(), HttpExporter)


@pytest.mark.parametrize(
    ("otlp", "target"),
    [
        ({"endpoint": "http://backend:4317"}, "backend:4317"),
        ({"endpoint": "https://backend"}, "backend:4317"),
        ({"endpoint": "backend:1", "insecure": True}, "backend:1"),
        ({"endpoint": "http://[::1]:5/"}, "[::1]:5"),
        ({"traces_endpoint": "http://own:7", "endpoint": "http://base:8"}, "own:7"),
    ],
)
async def test_make_exporter_grpc_takes_host_and_port(otlp, target):
    exporter = await make(protocol="grpc", **otlp)
    assert isinstance(exporter, GrpcExporter)
    assert exporter._target == target


@pytest.mark.parametrize(
    ("otlp", "message"),
    [
        ({"protocol": "grpc"}, "grpc without an endpoint"),
        ({"protocol": "grpc", "endpoint": "http://b:1/v1/traces"}, "gRPC has no path"),
        ({"endpoint": "backend:4318"}, "not a URL"),
        ({"endpoint": "ftp://backend"}, "not a URL"),
        ({"endpoint": "http://"}, "not a URL"),
        ({"endpoint": "http://[::1"}, "not a URL"),
        ({"endpoint": "http://backend:99999"}, "not a URL"),
        ({"headers": {"a b": "c"}}, "'a b' is no header name"),
        ({"headers": {"": "c"}}, "'' is no header name"),
        ({"headers": {"a": "b\nc"}}, "the value of a has characters"),
        ({"endpoint": "https://b", "certificate": "/nonexistent.pem"}, "CA bundle"),
        ({"protocol": "grpc", "endpoint": "https://b", "certificate": "/nonexistent.pem"}, "CA bundle"),
    ],
)
async def test_make_exporter_unusable_setting_is_a_config_error(otlp, message):
    with pytest.raises(ConfigError, match=message):
        await make(**otlp)
