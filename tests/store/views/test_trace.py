import io

import pytest
from rich.console import Console

from ebbflow.store.views.trace import MAX_INDENTS, bar, extent, summary, trace_table, tree

MS = 1_000_000


def span(identity, parent="", start_ms=0, took_ms=10, **fields):
    start = 1_700_000_000_000_000_000 + start_ms * MS
    return {
        "span_id": identity,
        "parent_span_id": parent,
        "name": identity,
        "status": "unset",
        "start_unix_nano": start,
        "end_unix_nano": start + took_ms * MS,
        "resource": {"service.name": "shop"},
        "attributes": {},
        **fields,
    }


def shown(spans) -> list[str]:
    return [node.branches + (node.span["name"] if node.span else f"missing {node.parent_id}") for node in tree(spans)]


def test_tree_children_hang_below_their_parents_by_start():
    spans = [span("d", "b", 5), span("c", "a", 4), span("b", "a", 1), span("a"), span("e", "b", 3)]
    assert shown(spans) == [
        "a",
        "├─ b",
        "│  ├─ e",
        "│  └─ d",
        "└─ c",
    ]


def test_tree_several_roots_stand_side_by_side():
    assert shown([span("b", start_ms=1), span("a"), span("c", "b")]) == ["a", "b", "└─ c"]


def test_tree_missing_parent_is_shown_once_with_its_children():
    spans = [span("a"), span("b", "x", 1), span("c", "x", 2), span("d", "b", 3)]
    assert shown(spans) == ["a", "missing x", "├─ b", "│  └─ d", "└─ c"]


@pytest.mark.parametrize("others", [[], [span("z", "a", 3)]])
def test_tree_parents_in_a_circle_are_all_shown_once(others):
    spans = [span("a", "c"), span("b", "a", 1), span("c", "b", 2), *others]
    assert sorted(node.span["name"] for node in tree(spans)) == sorted(s["name"] for s in spans)
    assert tree(spans)[0].span["name"] == "a"


def test_tree_span_that_is_its_own_parent_is_shown_once():
    assert shown([span("a", "a")]) == ["a"]


def test_tree_very_deep_trace_needs_no_stack_and_little_width():
    spans = [span("0")] + [span(str(n), str(n - 1), n) for n in range(1, 1500)]
    lines = shown(spans)
    assert len(lines) == 1500
    assert max(map(len, lines)) <= 3 * (MAX_INDENTS + 1) + 6
    assert lines[-1].startswith("… ")


def test_extent_is_from_first_start_to_last_end():
    spans = [span("a", start_ms=5, took_ms=1), span("b", start_ms=2, took_ms=10)]
    assert extent(spans) == (spans[1]["start_unix_nano"], 10 * MS)


@pytest.mark.parametrize(
    ("start_ms", "took_ms", "text"),
    [
        (0, 100, "━" * 10),
        (0, 50, "━" * 5),
        (50, 50, "     ━━━━━"),
        (90, 10, "         ━"),
        (50, 0, "     ━"),
        (100, 0, "         ━"),
    ],
)
def test_bar_lies_where_the_span_does(start_ms, took_ms, text):
    item = span("a", start_ms=start_ms, took_ms=took_ms)
    assert bar(item, span("a")["start_unix_nano"], 100 * MS, 10) == text


def test_bar_trace_that_took_no_time_has_a_dot():
    assert bar(span("a", took_ms=0), span("a")["start_unix_nano"], 0, 10) == "•"


def test_summary_counts_spans_services_and_errors():
    spans = [span("a", took_ms=20), span("b", "a", status="error", resource={"service.name": "x"})]
    assert summary(spans).startswith("2 spans, 2 services, 20.0 ms, 1 error, from 20")
    assert summary(spans[:1]).startswith("1 span, 1 service, 20.0 ms, from 20")


def lines(spans, width, **how):
    stream = io.StringIO()
    Console(file=stream, width=width).print(trace_table(spans, width, **how))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


SPANS = [
    span("a", took_ms=100, name="GET /a"),
    span("b", "a", 50, 50, name="n" * 200, status="error"),
    span("c", "x", 10, 10, name=""),
]


def test_trace_table_line_has_name_service_status_time_and_bar():
    assert lines(SPANS, 90)[0].split() == ["GET", "/a", "shop", "unset", "100", "ms", "━" * 30]


@pytest.mark.parametrize("width", [40, 55, 65, 80, 140])
def test_trace_table_fits_every_terminal(width):
    drawn = lines(SPANS, width)
    assert len(drawn) == 4
    assert max(map(len, drawn)) <= width
    assert all("ms" in line for line in (drawn[0], drawn[1], drawn[3]))
    assert drawn[2].startswith("missing")
    assert "(no name)"[:8] in drawn[3]


def test_trace_table_ascii_terminal_gets_ascii():
    assert "\n".join(lines([*SPANS[:1], span("b", "a", 50)], 80, ascii_only=True)).isascii()
