# Generated from proto/ by `make proto`; do not edit.
# mypy: disable-error-code="type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FrameKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAME_KIND_UNSPECIFIED: _ClassVar[FrameKind]
    FRAME_KIND_NATIVE: _ClassVar[FrameKind]
    FRAME_KIND_KERNEL: _ClassVar[FrameKind]
    FRAME_KIND_JIT: _ClassVar[FrameKind]
    FRAME_KIND_INTERPRETED: _ClassVar[FrameKind]

class ServiceNameSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SERVICE_NAME_SOURCE_UNSPECIFIED: _ClassVar[ServiceNameSource]
    SERVICE_NAME_SOURCE_OTEL_ENV: _ClassVar[ServiceNameSource]
    SERVICE_NAME_SOURCE_CONTAINER: _ClassVar[ServiceNameSource]
    SERVICE_NAME_SOURCE_EXE: _ClassVar[ServiceNameSource]
    SERVICE_NAME_SOURCE_COMM: _ClassVar[ServiceNameSource]

class Family(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAMILY_UNSPECIFIED: _ClassVar[Family]
    FAMILY_INET: _ClassVar[Family]
    FAMILY_INET6: _ClassVar[Family]
    FAMILY_UNIX: _ClassVar[Family]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNKNOWN: _ClassVar[Role]
    ROLE_CLIENT: _ClassVar[Role]
    ROLE_SERVER: _ClassVar[Role]

class Origin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORIGIN_UNSPECIFIED: _ClassVar[Origin]
    ORIGIN_SEEN: _ClassVar[Origin]
    ORIGIN_BEFORE: _ClassVar[Origin]
FRAME_KIND_UNSPECIFIED: FrameKind
FRAME_KIND_NATIVE: FrameKind
FRAME_KIND_KERNEL: FrameKind
FRAME_KIND_JIT: FrameKind
FRAME_KIND_INTERPRETED: FrameKind
SERVICE_NAME_SOURCE_UNSPECIFIED: ServiceNameSource
SERVICE_NAME_SOURCE_OTEL_ENV: ServiceNameSource
SERVICE_NAME_SOURCE_CONTAINER: ServiceNameSource
SERVICE_NAME_SOURCE_EXE: ServiceNameSource
SERVICE_NAME_SOURCE_COMM: ServiceNameSource
FAMILY_UNSPECIFIED: Family
FAMILY_INET: Family
FAMILY_INET6: Family
FAMILY_UNIX: Family
ROLE_UNKNOWN: Role
ROLE_CLIENT: Role
ROLE_SERVER: Role
ORIGIN_UNSPECIFIED: Origin
ORIGIN_SEEN: Origin
ORIGIN_BEFORE: Origin

class RawBatch(_message.Message):
    __slots__ = ("schema_version", "feature", "layout_hash", "host_id", "host_name", "boot_id", "run_id", "bucket", "sequence", "clock", "cpus", "losses", "processes", "connections", "row_count", "rows", "heap_ends", "heap", "frames", "mappings")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_HASH_FIELD_NUMBER: _ClassVar[int]
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_NAME_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    HEAP_ENDS_FIELD_NUMBER: _ClassVar[int]
    HEAP_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    MAPPINGS_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    feature: str
    layout_hash: int
    host_id: str
    host_name: str
    boot_id: bytes
    run_id: int
    bucket: int
    sequence: int
    clock: ClockPoint
    cpus: _containers.RepeatedCompositeFieldContainer[CpuRange]
    losses: _containers.RepeatedCompositeFieldContainer[Loss]
    processes: _containers.RepeatedCompositeFieldContainer[Process]
    connections: _containers.RepeatedCompositeFieldContainer[Connection]
    row_count: int
    rows: bytes
    heap_ends: bytes
    heap: bytes
    frames: _containers.RepeatedCompositeFieldContainer[Frame]
    mappings: _containers.RepeatedCompositeFieldContainer[Mapping]
    def __init__(self, schema_version: _Optional[int] = ..., feature: _Optional[str] = ..., layout_hash: _Optional[int] = ..., host_id: _Optional[str] = ..., host_name: _Optional[str] = ..., boot_id: _Optional[bytes] = ..., run_id: _Optional[int] = ..., bucket: _Optional[int] = ..., sequence: _Optional[int] = ..., clock: _Optional[_Union[ClockPoint, _Mapping]] = ..., cpus: _Optional[_Iterable[_Union[CpuRange, _Mapping]]] = ..., losses: _Optional[_Iterable[_Union[Loss, _Mapping]]] = ..., processes: _Optional[_Iterable[_Union[Process, _Mapping]]] = ..., connections: _Optional[_Iterable[_Union[Connection, _Mapping]]] = ..., row_count: _Optional[int] = ..., rows: _Optional[bytes] = ..., heap_ends: _Optional[bytes] = ..., heap: _Optional[bytes] = ..., frames: _Optional[_Iterable[_Union[Frame, _Mapping]]] = ..., mappings: _Optional[_Iterable[_Union[Mapping, _Mapping]]] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("address", "process", "kind", "function", "mapping", "file_address", "file", "line")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    MAPPING_FIELD_NUMBER: _ClassVar[int]
    FILE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    address: int
    process: int
    kind: FrameKind
    function: str
    mapping: int
    file_address: int
    file: str
    line: int
    def __init__(self, address: _Optional[int] = ..., process: _Optional[int] = ..., kind: _Optional[_Union[FrameKind, str]] = ..., function: _Optional[str] = ..., mapping: _Optional[int] = ..., file_address: _Optional[int] = ..., file: _Optional[str] = ..., line: _Optional[int] = ...) -> None: ...

class Mapping(_message.Message):
    __slots__ = ("path", "build_id", "start", "limit", "file_offset")
    PATH_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    FILE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    path: str
    build_id: str
    start: int
    limit: int
    file_offset: int
    def __init__(self, path: _Optional[str] = ..., build_id: _Optional[str] = ..., start: _Optional[int] = ..., limit: _Optional[int] = ..., file_offset: _Optional[int] = ...) -> None: ...

class ClockPoint(_message.Message):
    __slots__ = ("monotonic_ns", "unix_ns", "uncertainty_ns")
    MONOTONIC_NS_FIELD_NUMBER: _ClassVar[int]
    UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    UNCERTAINTY_NS_FIELD_NUMBER: _ClassVar[int]
    monotonic_ns: int
    unix_ns: int
    uncertainty_ns: int
    def __init__(self, monotonic_ns: _Optional[int] = ..., unix_ns: _Optional[int] = ..., uncertainty_ns: _Optional[int] = ...) -> None: ...

class CpuRange(_message.Message):
    __slots__ = ("cpu", "first", "last", "count")
    CPU_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    cpu: int
    first: int
    last: int
    count: int
    def __init__(self, cpu: _Optional[int] = ..., first: _Optional[int] = ..., last: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Loss(_message.Message):
    __slots__ = ("stage", "cpu", "events")
    class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STAGE_UNSPECIFIED: _ClassVar[Loss.Stage]
        STAGE_RING: _ClassVar[Loss.Stage]
        STAGE_MAP: _ClassVar[Loss.Stage]
        STAGE_BUFFER: _ClassVar[Loss.Stage]
        STAGE_PUBLISH: _ClassVar[Loss.Stage]
        STAGE_INVALID: _ClassVar[Loss.Stage]
        STAGE_RECURSION: _ClassVar[Loss.Stage]
    STAGE_UNSPECIFIED: Loss.Stage
    STAGE_RING: Loss.Stage
    STAGE_MAP: Loss.Stage
    STAGE_BUFFER: Loss.Stage
    STAGE_PUBLISH: Loss.Stage
    STAGE_INVALID: Loss.Stage
    STAGE_RECURSION: Loss.Stage
    STAGE_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    stage: Loss.Stage
    cpu: int
    events: int
    def __init__(self, stage: _Optional[_Union[Loss.Stage, str]] = ..., cpu: _Optional[int] = ..., events: _Optional[int] = ...) -> None: ...

class Process(_message.Message):
    __slots__ = ("pid", "start_boottime_ns", "comm", "exe", "cgroup", "container_id", "service_name", "service_name_source", "command_line", "container_runtime", "pod_uid", "systemd_unit")
    PID_FIELD_NUMBER: _ClassVar[int]
    START_BOOTTIME_NS_FIELD_NUMBER: _ClassVar[int]
    COMM_FIELD_NUMBER: _ClassVar[int]
    EXE_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    SERVICE_NAME_SOURCE_FIELD_NUMBER: _ClassVar[int]
    COMMAND_LINE_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_RUNTIME_FIELD_NUMBER: _ClassVar[int]
    POD_UID_FIELD_NUMBER: _ClassVar[int]
    SYSTEMD_UNIT_FIELD_NUMBER: _ClassVar[int]
    pid: int
    start_boottime_ns: int
    comm: str
    exe: str
    cgroup: str
    container_id: str
    service_name: str
    service_name_source: ServiceNameSource
    command_line: str
    container_runtime: str
    pod_uid: str
    systemd_unit: str
    def __init__(self, pid: _Optional[int] = ..., start_boottime_ns: _Optional[int] = ..., comm: _Optional[str] = ..., exe: _Optional[str] = ..., cgroup: _Optional[str] = ..., container_id: _Optional[str] = ..., service_name: _Optional[str] = ..., service_name_source: _Optional[_Union[ServiceNameSource, str]] = ..., command_line: _Optional[str] = ..., container_runtime: _Optional[str] = ..., pod_uid: _Optional[str] = ..., systemd_unit: _Optional[str] = ...) -> None: ...

class Connection(_message.Message):
    __slots__ = ("generation", "process", "fd", "family", "socket_type", "local_address", "local_port", "remote_address", "remote_port", "unix_path", "role", "origin", "inode")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    FD_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    SOCKET_TYPE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_PORT_FIELD_NUMBER: _ClassVar[int]
    REMOTE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    REMOTE_PORT_FIELD_NUMBER: _ClassVar[int]
    UNIX_PATH_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    INODE_FIELD_NUMBER: _ClassVar[int]
    generation: int
    process: int
    fd: int
    family: Family
    socket_type: int
    local_address: bytes
    local_port: int
    remote_address: bytes
    remote_port: int
    unix_path: str
    role: Role
    origin: Origin
    inode: int
    def __init__(self, generation: _Optional[int] = ..., process: _Optional[int] = ..., fd: _Optional[int] = ..., family: _Optional[_Union[Family, str]] = ..., socket_type: _Optional[int] = ..., local_address: _Optional[bytes] = ..., local_port: _Optional[int] = ..., remote_address: _Optional[bytes] = ..., remote_port: _Optional[int] = ..., unix_path: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., origin: _Optional[_Union[Origin, str]] = ..., inode: _Optional[int] = ...) -> None: ...
