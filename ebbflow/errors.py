"""Every error that ebbflow raises on purpose.

    EbbflowError
     +- ConfigError        an unknown key, a bad value, flags that exclude each other
     +- PermissionDenied   root, a capability or a file right is missing
     +- KernelError        the kernel cannot do what is asked, or refuses a program
     |   +- ProgramRefused     the verifier or the compiler said no
     |   +- LayoutMismatch     kernel structs are not where BTF says
     |   +- ProbeNotFound      no such tracepoint, symbol, library or function to attach
     |   +- MapMismatch        keys or values are not what the map holds
     |   +- MapFull            no room in a map for what is written
     +- NetworkError       a peer cannot be reached, or broke off
     +- DependencyError    a program, package or server that must be there is not
     |   +- StoreError         the embedded store's database cannot be used
     |       +- StoreLocked        another process has it open
     |       +- StoreCorrupt       the file is damaged, or no store at all
     |       +- StoreNewer         a newer release wrote it
     |       +- StoreFull          no space left on its disk
     +- RateLimited        a peer asks us to slow down (`retry_after_s` says how long)
     +- ValidationError    data that does not keep to its contract
     |   +- BatchInvalid       a whole RawBatch cannot be used (scope: record)
     |   +- RowInvalid         single rows of a batch cannot be used (scope: row)
     |   +- StreamInvalid      most of what arrives on a topic cannot be used (scope: process)
     +- ProtocolError      bytes that are not the protocol they claim to be
     +- Rejected           a backend refuses data for good
     |   +- TooLarge           it would take less of it at once
     +- InternalError      a broken invariant: a bug in ebbflow

Whoever catches one decides on its attributes, never on its text: `code` is stable and goes to logs, metrics and
dead letters; `retriable` says whether the same call may succeed later; `scope` says how much is lost with it: one
row, one record, or the process; `hint` is the next thing to do, as a command where there is one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Category(StrEnum):
    CONFIG = "config"
    PERMISSION = "permission"
    KERNEL = "kernel"
    NETWORK = "network"
    DEPENDENCY = "dependency"
    RATE_LIMIT = "rate_limit"
    VALIDATION = "validation"
    BUSINESS = "business"
    PROCESSING = "processing"
    INTERNAL = "internal"


class Severity(StrEnum):
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class Scope(StrEnum):
    ROW = "row"
    RECORD = "record"
    PROCESS = "process"


class EbbflowError(Exception):
    """Base of the tree. `str()` is one line for people, without the hint."""

    code: ClassVar[str] = "EBB000"
    category: ClassVar[Category] = Category.INTERNAL
    severity: ClassVar[Severity] = Severity.ERROR
    retriable: ClassVar[bool] = False
    scope: ClassVar[Scope] = Scope.PROCESS

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(EbbflowError):
    code = "EBB100"
    category = Category.CONFIG


class PermissionDenied(EbbflowError):
    code = "EBB200"
    category = Category.PERMISSION


class KernelError(EbbflowError):
    code = "EBB300"
    category = Category.KERNEL


class ProgramRefused(KernelError):
    code = "EBB301"


class LayoutMismatch(KernelError):
    code = "EBB302"


class ProbeNotFound(KernelError):
    code = "EBB303"


class MapMismatch(KernelError):
    code = "EBB304"


class MapFull(KernelError):
    code = "EBB305"


class NetworkError(EbbflowError):
    code = "EBB400"
    category = Category.NETWORK
    retriable = True


class DependencyError(EbbflowError):
    code = "EBB500"
    category = Category.DEPENDENCY


class StoreError(DependencyError):
    code = "EBB510"


class StoreLocked(StoreError):
    code = "EBB511"


class StoreCorrupt(StoreError):
    code = "EBB512"


class StoreNewer(StoreError):
    code = "EBB513"


class StoreFull(StoreError):
    code = "EBB514"
    retriable = True


class RateLimited(EbbflowError):
    code = "EBB410"
    category = Category.RATE_LIMIT
    severity = Severity.WARNING
    retriable = True

    def __init__(self, message: str, *, retry_after_s: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class ValidationError(EbbflowError):
    code = "EBB600"
    category = Category.VALIDATION
    scope = Scope.RECORD


class BatchInvalid(ValidationError):
    code = "EBB601"


class RowInvalid(ValidationError):
    code = "EBB602"
    scope = Scope.ROW


class StreamInvalid(ValidationError):
    code = "EBB603"
    scope = Scope.PROCESS


class ProtocolError(EbbflowError):
    code = "EBB700"
    category = Category.PROCESSING
    severity = Severity.WARNING
    scope = Scope.ROW


class Rejected(EbbflowError):
    code = "EBB710"
    category = Category.BUSINESS
    scope = Scope.RECORD


class TooLarge(Rejected):
    code = "EBB711"


class InternalError(EbbflowError):
    code = "EBB900"
    severity = Severity.CRITICAL
