"""`ebbflow doctor`: what this machine has and lacks, and what mends it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ebbflow.cli.common import load_config
from ebbflow.errors import EbbflowError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, RenderableType

    from ebbflow.doctor import Check

EXIT_CANNOT_RUN = 1
_STYLES = {"ok": "green", "note": "yellow", "fail": "bold red"}
_SIGNS = {"ok": "✓", "note": "•", "fail": "✗"}


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One object; its shape is in docs/doctor.md.")] = False,
) -> None:
    """Check kernel, rights, programs and services. Exit status 1 when the main job cannot run here."""
    from ebbflow.doctor import examine

    try:
        checks = examine(load_config(ctx).config)
    except EbbflowError as error:
        typer.echo(f"error: {error}\nhint: {error.hint}", err=True)
        raise typer.Exit(EXIT_CANNOT_RUN) from None
    if as_json:
        _print_json(checks)
    else:
        show(checks, _console())
    if any(check.blocks for check in checks):
        raise typer.Exit(EXIT_CANNOT_RUN)


def as_object(checks: Sequence[Check]) -> dict[str, Any]:
    """The stable shape of `--json`."""
    return {
        "can_run": not any(check.blocks for check in checks),
        "checks": [
            {
                "name": check.name,
                "status": str(check.status),
                "value": check.value,
                "needed": check.needed,
                "hint": check.hint,
                "details": dict(check.details),
            }
            for check in checks
        ],
    }


def show(checks: Sequence[Check], console: Console) -> None:
    """A table, then the hints unwrapped so that commands can be copied, then the verdict."""
    console.print(_table(checks, signs=console.encoding.startswith("utf")))
    for status, title in (("fail", "To mend"), ("note", "Could be better")):
        hints = _names_by_hint(check for check in checks if check.status == status)
        if hints:
            console.print(f"\n[bold]{title}[/]")
        for hint, names in hints.items():
            console.print(f"  {hint}", highlight=False, markup=False, soft_wrap=True)
            console.print(f"      for {', '.join(names)}", style="dim", highlight=False)
    console.print(_verdict(checks))


def _names_by_hint(checks: Iterable[Check]) -> dict[str, list[str]]:
    """Many findings can have one cure."""
    names: dict[str, list[str]] = {}
    for check in checks:
        if check.hint:
            names.setdefault(check.hint, []).append(check.name)
    return names


def _table(checks: Sequence[Check], *, signs: bool) -> RenderableType:
    """`signs` is False where the terminal cannot show them: then the status is written out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("", "check", "needed"):
        table.add_column(heading, no_wrap=True)
    table.add_column("found", overflow="fold")
    for check in checks:
        sign = Text(_SIGNS[check.status] if signs else str(check.status), _STYLES[check.status])
        value = Text(check.value, "red" if check.status == "fail" else "")
        table.add_row(sign, check.name, "yes" if check.needed else "", value)
    return table


def _verdict(checks: Sequence[Check]) -> str:
    count = sum(check.blocks for check in checks)
    if count:
        return (
            f"\n[bold red]The main job cannot run here:[/] {count} needed check{'s fail' if count > 1 else ' fails'}."
        )
    return "\n[bold green]The main job can run here.[/]"


def _console() -> Console:
    from rich.console import Console

    # What was found may hold letters that the terminal cannot show: a replacement, not a traceback.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    return Console()


def _print_json(checks: Sequence[Check]) -> None:
    import orjson

    typer.echo(orjson.dumps(as_object(checks), option=orjson.OPT_INDENT_2))
