"""Names of OpenTelemetry's semantic conventions, version 1.44.0, that ebbflow writes.

docs/http/http-spans.md, docs/registry/attributes/ and docs/resource/ of open-telemetry/semantic-conventions.
"""

from __future__ import annotations

SCHEMA_URL = b"https://opentelemetry.io/schemas/1.44.0"

HTTP_REQUEST_METHOD = "http.request.method"
HTTP_REQUEST_METHOD_ORIGINAL = "http.request.method_original"
HTTP_REQUEST_BODY_SIZE = "http.request.body.size"
HTTP_RESPONSE_BODY_SIZE = "http.response.body.size"
HTTP_RESPONSE_STATUS_CODE = "http.response.status_code"
HTTP_ROUTE = "http.route"
URL_FULL = "url.full"
URL_PATH = "url.path"
URL_QUERY = "url.query"
URL_SCHEME = "url.scheme"
URL_TEMPLATE = "url.template"
USER_AGENT_ORIGINAL = "user_agent.original"
ERROR_TYPE = "error.type"

CLIENT_ADDRESS = "client.address"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
NETWORK_LOCAL_ADDRESS = "network.local.address"
NETWORK_LOCAL_PORT = "network.local.port"
NETWORK_PEER_ADDRESS = "network.peer.address"
NETWORK_PEER_PORT = "network.peer.port"
NETWORK_PROTOCOL_NAME = "network.protocol.name"
NETWORK_PROTOCOL_VERSION = "network.protocol.version"
NETWORK_TRANSPORT = "network.transport"
NETWORK_TYPE = "network.type"

SERVICE_NAME = "service.name"
SERVICE_INSTANCE_ID = "service.instance.id"
HOST_ID = "host.id"
HOST_NAME = "host.name"
OS_TYPE = "os.type"
CONTAINER_ID = "container.id"
PROCESS_PID = "process.pid"
PROCESS_COMMAND_LINE = "process.command_line"
PROCESS_EXECUTABLE_NAME = "process.executable.name"
PROCESS_EXECUTABLE_PATH = "process.executable.path"
PROCESS_LINUX_CGROUP = "process.linux.cgroup"
TELEMETRY_SDK_LANGUAGE = "telemetry.sdk.language"
TELEMETRY_SDK_NAME = "telemetry.sdk.name"
TELEMETRY_SDK_VERSION = "telemetry.sdk.version"

# Ours: there is no convention for what a witness could not see.
EBBFLOW_INCOMPLETE = "ebbflow.incomplete"

# http.request.method: RFC 9110, RFC 5789 (PATCH) and the QUERY method; everything else is _OTHER.
KNOWN_METHODS = frozenset(
    {b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT", b"QUERY", b"TRACE"}
)
OTHER_METHOD = b"_OTHER"
# The span name's part for a method that is not known.
OTHER_METHOD_NAME = b"HTTP"
