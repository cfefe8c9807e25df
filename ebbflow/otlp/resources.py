"""From a batch's dictionary entries to OTLP: a process is a resource, a connection gives addresses.

Semantic conventions 1.44.0: docs/resource/, docs/registry/attributes/network.md.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from pathlib import PurePosixPath

from ebbflow import __version__
from ebbflow.otlp import semconv
from ebbflow.otlp.encode import RESOURCE_ATTRIBUTES, Attribute, resource, scope
from ebbflow.otlp.http_heads import CLIENT, SERVER
from ebbflow.otlp.http_spans import Endpoint
from ebbflow.v1 import raw_pb2

SCOPE = scope("ebbflow.requests", __version__)
_STREAM_SOCKET = 1
_IDENTITY = struct.Struct("<Q")
_FAMILY_NAMES = {
    raw_pb2.FAMILY_INET: ("tcp", "ipv4"),
    raw_pb2.FAMILY_INET6: ("tcp", "ipv6"),
    raw_pb2.FAMILY_UNIX: ("unix", ""),
}
_TRANSPORT = Attribute(semconv.NETWORK_TRANSPORT)
_TYPE = Attribute(semconv.NETWORK_TYPE)
_PROTOCOL = Attribute(semconv.NETWORK_PROTOCOL_NAME)
_PEER_ADDRESS = Attribute(semconv.NETWORK_PEER_ADDRESS)
_PEER_PORT = Attribute(semconv.NETWORK_PEER_PORT)
_LOCAL_ADDRESS = Attribute(semconv.NETWORK_LOCAL_ADDRESS)
_LOCAL_PORT = Attribute(semconv.NETWORK_LOCAL_PORT)


def process_resource(host_id: str, host_name: str, process: raw_pb2.Process) -> bytes:
    """The encoded Resource of a process."""
    name = PurePosixPath(process.exe).name or process.comm
    texts = {
        semconv.SERVICE_NAME: process.service_name or name or "unknown_service",
        semconv.HOST_ID: host_id,
        semconv.HOST_NAME: host_name,
        semconv.OS_TYPE: "linux",
        semconv.CONTAINER_ID: process.container_id,
        semconv.PROCESS_EXECUTABLE_NAME: name,
        semconv.PROCESS_EXECUTABLE_PATH: process.exe,
        semconv.PROCESS_COMMAND_LINE: process.command_line,
        semconv.PROCESS_LINUX_CGROUP: process.cgroup,
        semconv.TELEMETRY_SDK_NAME: "ebbflow",
        semconv.TELEMETRY_SDK_LANGUAGE: "python",
        semconv.TELEMETRY_SDK_VERSION: __version__,
    }
    attributes = [Attribute(key, RESOURCE_ATTRIBUTES).text(value) for key, value in texts.items() if value]
    attributes.append(Attribute(semconv.PROCESS_PID, RESOURCE_ATTRIBUTES).number(process.pid))
    return resource(b"".join(attributes))


def endpoint(host_id: str, boot_id: bytes, connection: raw_pb2.Connection, *, is_server: bool) -> Endpoint:
    """What the spans of a connection share."""
    local = _address(connection.local_address) or connection.unix_path
    peer = _address(connection.remote_address)
    transport, network_type = _FAMILY_NAMES.get(connection.family, ("", ""))
    if transport == "unix" and not is_server:
        peer, local = connection.unix_path, ""
    pieces = [
        _PROTOCOL.text("http"),
        _TRANSPORT.text(transport) if transport else b"",
        _TYPE.text(network_type) if network_type else b"",
        _PEER_ADDRESS.text(peer) if peer else b"",
        _PEER_PORT.number(connection.remote_port) if connection.remote_port else b"",
        _LOCAL_ADDRESS.text(local) if local else b"",
        _LOCAL_PORT.number(connection.local_port) if connection.local_port else b"",
    ]
    return Endpoint(
        SERVER if is_server else CLIENT,
        identity=host_id.encode() + b"\0" + boot_id + _IDENTITY.pack(connection.generation),
        network=b"".join(pieces),
        server=(local, connection.local_port) if is_server else (peer, connection.remote_port),
        client=peer if is_server else "",
    )


def _address(packed: bytes) -> str:
    return str(ip_address(packed)) if len(packed) in {4, 16} else ""
