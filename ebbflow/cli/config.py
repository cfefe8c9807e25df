"""`ebbflow config`: every setting with its value, where that came from, and what it means."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ebbflow.cli.common import load_config

if TYPE_CHECKING:
    from ebbflow.config import Setting

# Wide enough that no row is folded when the output goes to grep.
_PIPE_COLUMNS = 240


_LONGEST_CELL = 60


def register(app: typer.Typer) -> None:
    app.command()(config)


def config(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One object: key to value, origin, description.")] = False,
) -> None:
    """Print every setting, its value and where it came from. Secrets are masked."""
    settings = list(load_config(ctx).settings())
    if as_json:
        _print_json(settings)
    else:
        _print_table(settings)


def _print_json(settings: list[Setting]) -> None:
    import orjson

    rows = {row.key: {"value": row.shown, "origin": row.origin, "description": row.description} for row in settings}
    typer.echo(orjson.dumps(rows, default=str, option=orjson.OPT_INDENT_2))


def _print_table(settings: list[Setting]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("setting", "value", "from", "meaning"):
        table.add_column(heading, overflow="fold")
    for row in settings:
        style = "" if row.origin == "default" else "bold"
        table.add_row(*(Text(cell, style) for cell in (row.key, _short(_text(row.shown)), row.origin, row.description)))
    Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS).print(table)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(item) for item in value) or "-"
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items()) or "-"
    return "-" if value is None or value == "" else str(value)


def _short(text: str) -> str:
    """A long list takes no whole screen; --json has all of it."""
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"
