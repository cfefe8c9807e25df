"""Tables that fit: numbers keep their width, long texts give way.

rich shrinks every column in proportion, so that one long name cuts all numbers off. Here the widest of the flexible
columns gives way first, one character at a time, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

GAP = 2
MIN_FLEXIBLE = 6


@dataclass(frozen=True, slots=True)
class Column:
    """Attributes:
    flexible: may be cut with an ellipsis.
    from_columns: narrowest terminal that shows it.
    """

    heading: str
    right: bool = False
    flexible: bool = False
    style: str = ""
    from_columns: int = 0


def fitted_table(
    columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int, *, show_header: bool = True
) -> Table:
    """A table of at most `width` columns, as far as its flexible columns can give way."""
    headings = [column.heading if show_header else "" for column in columns]
    natural = [
        max([Text(heading).cell_len, *(row[index].cell_len for row in rows)]) for index, heading in enumerate(headings)
    ]
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", show_header=show_header)
    for column, size in zip(columns, shrink(columns, natural, width), strict=True):
        table.add_column(
            column.heading,
            width=size,
            justify="right" if column.right else "left",
            style=column.style,
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        table.add_row(*row)
    return table


def shrink(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int]:
    """Widths of columns whose natural ones may be too much for `width`."""
    sizes = list(natural)
    flexible = [index for index, column in enumerate(columns) if column.flexible]
    excess = sum(sizes) + GAP * (len(sizes) - 1) - width
    while excess > 0 and flexible:
        widest = max(flexible, key=lambda index: sizes[index])
        if sizes[widest] <= MIN_FLEXIBLE:
            break
        sizes[widest] -= 1
        excess -= 1
    return sizes
