import io

import pytest
from rich.console import Console

from ebbflow.store.queries import Top, TopRow
from ebbflow.store.views.top import losses_line, top_lines, top_view


def row(number=0, **fields) -> TopRow:
    values = {
        "service": "shop",
        "kind": "server",
        "route": f"/route/{number}",
        "count": 10,
        "rate_per_s": 1.0,
        "errors": 0,
        "errors_percent": 0.0,
        "p50_ms": 1.5,
        "p95_ms": 20.0,
        "p99_ms": 1500.0,
    }
    return TopRow(**(values | fields))


def make_top(*rows: TopRow, end=1_700_000_000_000_000_000, **losses: int) -> Top:
    return Top(
        window_s=10.0, end_unix_nano=end, newest_unix_nano=end, arrived_unix_nano=end, rows=list(rows), losses=losses
    )


def drawn(top, width=100, height=20, **how) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width).print(top_view(top, width, height, **how))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_top_view_heading_sums_all_rows():
    top = make_top(row(0), row(1, errors=5, errors_percent=50.0))
    assert drawn(top)[0].endswith("last 10 s  2.0 spans/s  25.0 % errors")


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (100, ["service", "kind", "route", "rate/s", "errors", "p50", "p95", "p99"]),
        (80, ["service", "route", "rate/s", "errors", "p50", "p95", "p99"]),
        (65, ["service", "route", "rate/s", "errors", "p50", "p99"]),
        (45, ["service", "route", "rate/s", "errors", "p99"]),
    ],
)
def test_top_view_narrow_terminals_have_fewer_columns(width, headings):
    lines = drawn(make_top(row(service="s" * 99, route="/r" * 99)), width)
    assert lines[1].split() == headings
    assert lines[2].endswith("1.50 s")
    assert max(map(len, lines)) <= width


def test_top_view_rows_beyond_the_screen_are_counted():
    lines = drawn(make_top(*(row(n) for n in range(30))), height=10)
    assert len(lines) <= 10
    assert lines[-1] == "and 24 more"


def test_top_view_nothing_seen_says_so():
    lines = drawn(make_top(end=0))
    assert "--:--:--" in lines[0]
    assert lines[1] == "no spans in the last 10 s"


def test_top_view_losses_and_notice_come_last():
    lines = drawn(make_top(row(), refused=3, failed=0, deleted_size=4), notice="the store is gone")
    assert lines[-2:] == ["lost: refused 3, deleted size 4", "the store is gone"]


def test_losses_line_nothing_lost_is_empty():
    assert losses_line({"refused": 0}) == ""


def test_top_lines_one_a_service_and_route():
    first, second = top_lines(make_top(row(0), row(1, route="a\x1b[31m")))
    assert first.endswith("shop server '/route/0' 1.0/s errors 0.0% p50 1.50 ms p95 20.0 ms p99 1.50 s")
    assert "\x1b" not in second


def test_top_lines_nothing_seen_says_so():
    assert top_lines(make_top(end=0)) == ["--:--:-- no spans in the last 10 s"]
