"""W3C Trace Context, levels 1 and 2: reading `traceparent` and `tracestate` strictly.

    traceparent = version "-" trace-id "-" parent-id "-" trace-flags        version 00
                  2HEXDIG     32HEXDIG     16HEXDIG      2HEXDIG            lower case only

A later version may have more behind a further dash; what is known is read the same way (section 3.2.4). All zeros are
invalid ids, version ff is invalid, and so are two headers, which arrive here joined by a comma. An invalid traceparent
makes the tracestate void (3.3.1).
"""

from __future__ import annotations

import re
from binascii import unhexlify
from typing import NamedTuple

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z", re.DOTALL)
_KEY = rb"(?:[a-z][_0-9a-z*/-]{0,255}|[a-z0-9][_0-9a-z*/-]{0,240}@[a-z][_0-9a-z*/-]{0,13})"
_MEMBER = _KEY + rb"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_TRACESTATE_MEMBER = re.compile(_MEMBER + rb"\Z")
_NO_TRACE, _NO_PARENT = bytes(16), bytes(8)
MAX_MEMBERS = 32
MAX_STATE_BYTES = 8192


class TraceContext(NamedTuple):
    trace_id: bytes
    parent_id: bytes
    flags: int
    state: bytes = b""


def read_trace_context(traceparent: bytes | None, tracestate: bytes | None = None) -> TraceContext | None:
    """None where there is no valid traceparent."""
    match = _TRACEPARENT.match(traceparent) if traceparent else None
    if match is None:
        return None
    version, trace_hex, parent_hex, flags, more = match.groups()
    trace_id, parent_id = unhexlify(trace_hex), unhexlify(parent_hex)
    if version == b"ff" or (version == b"00" and more) or trace_id == _NO_TRACE or parent_id == _NO_PARENT:
        return None
    return TraceContext(trace_id, parent_id, int(flags, 16), _valid_state(tracestate) if tracestate else b"")


def _valid_state(tracestate: bytes) -> bytes:
    """The list if all of it is valid, else nothing: it is never repaired (section 3.3.1)."""
    members = [member for part in tracestate.split(b",") if (member := part.strip(b" \t"))]
    if len(members) > MAX_MEMBERS or len(tracestate) > MAX_STATE_BYTES:
        return b""
    keys = {member.partition(b"=")[0] for member in members}
    if len(keys) < len(members) or not all(_TRACESTATE_MEMBER.match(member) for member in members):
        return b""
    return b",".join(members)
