import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from ebbflow.errors import ValidationError
from ebbflow.otlp.signals import TRACES
from ebbflow.testing.spans import make_traces, span_numbers


@pytest.mark.parametrize(("spans", "resources", "scopes"), [(1, 1, 1), (7, 1, 1), (12, 3, 2), (3, 5, 1)])
def test_count_is_the_number_of_spans(spans, resources, scopes):
    assert TRACES.count(make_traces(range(spans), resources=resources, scopes=scopes)) == spans


def test_count_of_nothing_is_zero():
    assert TRACES.count(b"") == 0


@pytest.mark.parametrize(
    "value",
    [
        b"garbage",
        b"\xff" * 100,
        make_traces(range(3))[:-1],
        b"\x12\x03abc",
        TracesData(resource_spans=[{}]).SerializeToString(),
    ],
    ids=["text", "ones", "cut", "another message", "no spans"],
)
def test_count_of_what_is_no_traces_data_raises(value):
    with pytest.raises(ValidationError, match="not TracesData"):
        TRACES.count(value)


@pytest.mark.parametrize(("trace_id", "span_id"), [(b"x" * 15, b"y" * 8), (b"x" * 16, b""), (b"", b"y" * 8)])
def test_count_of_a_span_with_a_short_id_raises(trace_id, span_id):
    data = TracesData.FromString(make_traces(range(2)))
    data.resource_spans[0].scope_spans[0].spans.add(trace_id=trace_id, span_id=span_id)
    with pytest.raises(ValidationError, match="id that is not 16 or 8 bytes"):
        TRACES.count(data.SerializeToString())


def test_values_joined_as_bytes_are_one_message_with_both():
    assert span_numbers(make_traces(range(5)) + make_traces(range(5, 9), resources=2)) == [0, 1, 2, 3, 4, 6, 8, 5, 7]


@pytest.mark.parametrize(
    ("resources", "scopes", "left", "right"),
    [(2, 1, [0, 2], [1, 3]), (1, 2, [0, 2], [1, 3]), (1, 1, [0, 1], [2, 3]), (3, 1, [0, 3], [1, 2])],
    ids=["between resources", "between scopes", "between spans", "odd number"],
)
def test_halve_splits_at_the_highest_level_that_has_two(resources, scopes, left, right):
    halves = TRACES.halve(make_traces(range(4), resources=resources, scopes=scopes))
    assert [span_numbers(half) for half in halves] == [left, right]


def test_halve_between_spans_keeps_resource_and_scope():
    data = TracesData.FromString(make_traces(range(2)))
    data.resource_spans[0].schema_url = "r"
    data.resource_spans[0].scope_spans[0].scope.name = "s"
    for half in TRACES.halve(data.SerializeToString()):
        (resource,) = TracesData.FromString(half).resource_spans
        assert (resource.schema_url, resource.scope_spans[0].scope.name) == ("r", "s")
        assert resource.resource.attributes[0].value.string_value == "service-0"


@pytest.mark.parametrize("value", [make_traces([7]), b"", TracesData(resource_spans=[{}]).SerializeToString()])
def test_halve_of_one_span_or_none_is_none(value):
    assert TRACES.halve(value) is None


def test_halve_of_garbage_raises():
    with pytest.raises(ValidationError):
        TRACES.halve(b"garbage")


@given(spans=st.integers(2, 40), resources=st.integers(1, 4), scopes=st.integers(1, 3))
def test_halve_loses_and_repeats_nothing(spans, resources, scopes):
    value = make_traces(range(spans), resources=resources, scopes=scopes)
    halves = TRACES.halve(value)
    assert sorted(number for half in halves for number in span_numbers(half)) == list(range(spans))
    assert all(len(half) < len(value) for half in halves)
