from __future__ import annotations

from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from ebbflow import __version__
from ebbflow.otlp.http_heads import CLIENT, SERVER
from ebbflow.otlp.resources import endpoint, process_resource
from ebbflow.testing.http_traffic import attributes
from ebbflow.v1 import raw_pb2


def resource(**process) -> dict[str, str | int]:
    encoded = process_resource("h", "host", raw_pb2.Process(**process))
    entries = ResourceSpans.FromString(encoded).resource.attributes
    return {entry.key: entry.value.string_value or entry.value.int_value for entry in entries}


def network(is_server: bool, **connection) -> dict[str, str | int]:
    made = endpoint("h", bytes(16), raw_pb2.Connection(generation=1, **connection), is_server=is_server)
    assert made.kind == (SERVER if is_server else CLIENT)
    return attributes(Span.FromString(made.addresses[0]))


def test_process_resource_has_all_that_is_known() -> None:
    found = resource(
        pid=7, comm="sh", exe="/bin/x", service_name="shop", container_id="c1", cgroup="/s", command_line="x 1"
    )
    assert found == {
        "service.name": "shop", "host.id": "h", "host.name": "host", "os.type": "linux", "container.id": "c1",
        "process.pid": 7, "process.executable.name": "x", "process.executable.path": "/bin/x",
        "process.command_line": "x 1", "process.linux.cgroup": "/s", "telemetry.sdk.name": "ebbflow",
        "telemetry.sdk.language": "python", "telemetry.sdk.version": __version__,
    }  # fmt: skip


def test_process_resource_service_name_falls_back() -> None:
    assert resource(pid=7, exe="/bin/x")["service.name"] == "x"
    assert resource(pid=7, comm="sh")["service.name"] == "sh"
    assert resource(pid=7)["service.name"] == "unknown_service"


def test_endpoint_of_ipv6_client() -> None:
    found = network(
        False, family=raw_pb2.FAMILY_INET6, local_address=bytes(15) + b"\1", local_port=5,
        remote_address=bytes(15) + b"\2", remote_port=80,
    )  # fmt: skip
    assert (found["network.type"], found["network.peer.address"], found["server.address"]) == ("ipv6", "::2", "::2")
    assert (found["network.local.address"], found["network.local.port"], found["server.port"]) == ("::1", 5, 80)


def test_endpoint_of_unix_sockets_names_the_path_on_the_servers_side() -> None:
    server = network(True, family=raw_pb2.FAMILY_UNIX, unix_path="/run/a.sock")
    client = network(False, family=raw_pb2.FAMILY_UNIX, unix_path="/run/a.sock")
    assert (server["network.transport"], server["network.local.address"]) == ("unix", "/run/a.sock")
    assert server["server.address"] == client["server.address"] == client["network.peer.address"] == "/run/a.sock"


def test_endpoint_of_nothing_known_has_the_protocol_only() -> None:
    assert network(True) == {"network.protocol.name": "http"}
