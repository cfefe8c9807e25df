"""`ebbflow ledger`: whether everything that was captured is accounted for, and which stage leaks if not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ebbflow.cli.common import load_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ebbflow.ledger import Ledger, Line

EXIT_LEAK = 1


def register(app: typer.Typer) -> None:
    app.command()(ledger)


def ledger(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One object: stages, balances, losses.")] = False,
) -> None:
    """Sum up every stage's entries and balance them. Exit status 1: they do not, and nothing moves any more."""
    import asyncio

    from ebbflow.ledger_reader import read_ledger

    found = asyncio.run(read_ledger(load_config(ctx).config.kafka))
    report = to_report(found, time.time_ns())
    if as_json:
        import orjson

        typer.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    else:
        for text in to_text(report):
            typer.echo(text)
    if report["leaks"]:
        raise typer.Exit(EXIT_LEAK)


def to_report(found: Ledger, now_unix_ns: int) -> dict[str, Any]:
    """The ledger for people and scripts; `leaks` names stages only when nothing moves."""
    lines = found.lines()
    idle = found.is_idle(now_unix_ns)
    return {
        "stages": found.totals(),
        "balances": [_balance(line) for line in lines],
        "idle": idle,
        "leaks": [line.balance.stage for line in lines if line.difference and idle],
        "losses": found.losses(),
        "invalid_entries": found.invalid,
    }


def _balance(line: Line) -> dict[str, Any]:
    return {
        "name": line.balance.name,
        "stage": line.balance.stage,
        "total": line.total,
        "parts": dict(line.parts),
        "difference": line.difference,
        "balanced": not line.difference,
    }


def to_text(report: dict[str, Any]) -> Iterator[str]:
    """Lines for a terminal or a log."""
    if not report["stages"]:
        yield "nothing has been written to the ledger yet"
    for stage, counters in report["stages"].items():
        yield f"{stage:<18} {'  '.join(f'{name} {number}' for name, number in counters.items() if number)}"
    for balance in report["balances"]:
        yield _balance_text(balance, idle=report["idle"])
    for text, number in report["losses"].items():
        yield f"{number} {text}"
    if report["invalid_entries"]:
        yield f"{report['invalid_entries']} records that are no ledger entries"


def _balance_text(balance: dict[str, Any], *, idle: bool) -> str:
    sums = f"{balance['total']} = {' + '.join(str(number) for number in balance['parts'].values())}"
    if balance["balanced"]:
        return f"balanced  {balance['name']}: {sums}"
    gap = balance["difference"]
    what = f"{gap} missing" if gap > 0 else f"{-gap} too many"
    if idle:
        return f"LEAK      {balance['name']}: {sums}: {what} at {balance['stage']}"
    return f"moving    {balance['name']}: {sums}: {what} so far"
