"""What one check of `ebbflow doctor` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    OK = "ok"
    # Worth knowing; nothing to mend, or not now.
    NOTE = "note"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding.

    Attributes:
        name: stable, for scripts: `kafka`, `program.uprobe`.
        value: what was found, for people.
        needed: whether the main job (capture, publish, process, export) depends on it on this machine.
        hint: for a failure the command that mends it; for a note what could be done, or nothing.
        details: the finding for scripts, JSON types only.
    """

    name: str
    status: Status
    value: str
    needed: bool = False
    hint: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def blocks(self) -> bool:
        """Whether the main job cannot run because of this."""
        return self.needed and self.status is Status.FAIL


def ok(name: str, value: str, *, needed: bool = False, **details: Any) -> Check:
    return Check(name=name, status=Status.OK, value=value, needed=needed, details=details)


def note(name: str, value: str, *, needed: bool = False, hint: str = "", **details: Any) -> Check:
    return Check(name=name, status=Status.NOTE, value=value, needed=needed, hint=hint, details=details)


def fail(name: str, value: str, *, hint: str, needed: bool = False, **details: Any) -> Check:
    return Check(name=name, status=Status.FAIL, value=value, needed=needed, hint=hint, details=details)
