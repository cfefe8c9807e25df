import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from ebbflow.store.views.layout import GAP, MIN_FLEXIBLE, Column, fitted_table, shrink

COLUMNS = (Column("name", flexible=True), Column("took", right=True), Column("target", flexible=True))


def drawn(table, width: int) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width).print(table)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("width", "sizes"),
    [(100, [10, 5, 20]), (30, [10, 5, 11]), (25, [8, 5, 8]), (10, [MIN_FLEXIBLE, 5, MIN_FLEXIBLE])],
)
def test_shrink_widest_flexible_column_gives_way_first(width, sizes):
    assert shrink(COLUMNS, [10, 5, 20], width) == sizes


def test_shrink_columns_that_are_not_flexible_keep_their_width():
    assert shrink((Column("a"),), [50], 10) == [50]


@given(st.lists(st.integers(0, 60), min_size=3, max_size=3), st.integers(1, 200))
def test_shrink_fits_whenever_the_flexible_columns_can_give_way(natural, width):
    sizes = shrink(COLUMNS, natural, width)
    fits = sum(sizes) + 2 * GAP <= width
    exhausted = all(sizes[index] <= max(MIN_FLEXIBLE, 0) for index in (0, 2))
    assert fits or exhausted
    assert sizes[1] == natural[1]
    assert all(size <= wanted for size, wanted in zip(sizes, natural, strict=True))


def test_fitted_table_numbers_stay_whole_on_a_narrow_terminal():
    rows = [[Text("a" * 40), Text("12.3 ms"), Text("b" * 5)]]
    assert drawn(fitted_table(COLUMNS, rows, 30), 30) == [
        "name              took  target",
        "aaaaaaaaaaaa…  12.3 ms  bbbbb",
    ]


def test_fitted_table_without_header_has_rows_only():
    rows = [[Text("a"), Text("1"), Text("b")]]
    assert drawn(fitted_table(COLUMNS, rows, 30, show_header=False), 30) == ["a  1  b"]
