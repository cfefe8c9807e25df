from __future__ import annotations

import pytest

from ebbflow.protocols.trace_context import TraceContext, read_trace_context

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{PARENT}-01".encode()
CONTEXT = TraceContext(bytes.fromhex(TRACE), bytes.fromhex(PARENT), 1)


def test_read_trace_context_valid_version_00() -> None:
    assert read_trace_context(VALID) == CONTEXT


def test_read_trace_context_later_version_with_more_is_read_as_known() -> None:
    assert read_trace_context(b"01" + VALID[2:] + b"-what-the-future-brings") == CONTEXT


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        VALID.upper(),
        VALID[:-1],
        VALID + b"-00",
        VALID + b"\n",
        b" " + VALID,
        b"ff" + VALID[2:],
        b"01" + VALID[2:] + b"x",
        VALID + b", " + VALID,
        VALID.replace(TRACE.encode(), b"0" * 32),
        VALID.replace(PARENT.encode(), b"0" * 16),
        VALID.replace(b"-", b"_"),
        VALID.replace(b"a", b"g"),
    ],
)
def test_read_trace_context_anything_else_is_none(header: bytes | None) -> None:
    assert read_trace_context(header, b"a=1") is None


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (b"a=1", b"a=1"),
        (b"a=1 , b@c=x y,\t", b"a=1,b@c=x y"),
        (b"0tenant@vendor=1", b"0tenant@vendor=1"),
        (b"a=1,a=2", b""),
        (b"A=1", b""),
        (b"a", b""),
        (b"a=", b""),
        (b"a=b=c", b""),
        (b",".join(b"k%d=v" % number for number in range(33)), b""),
        (b"a=" + b"x" * 256, b"a=" + b"x" * 256),
        (b"a=" + b"x" * 257, b""),
    ],
)
def test_read_trace_context_state_is_all_or_nothing(state: bytes, expected: bytes) -> None:
    context = read_trace_context(VALID, state)
    assert context is not None
    assert context.state == expected
