"""The `ebbflow` command: every module of this package adds its own commands through `register(app)`.

Modules import nothing heavy at the top, only inside their commands, so that `ebbflow --help` is immediate.

Exit status: 0 done, 2 an error that was told with a hint, 130 interrupted; commands that answer a question by their
status (doctor) use 1 for no.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated

import typer

from ebbflow import __version__
from ebbflow.cli.common import Globals
from ebbflow.errors import EbbflowError

EXIT_ERROR = 2


def make_app() -> typer.Typer:
    """The command with all that the package's modules register."""
    app = typer.Typer(
        name="ebbflow",
        help="Kernel events in, OTLP out, Kafka in between. Nothing in the watched applications changes.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_remember_globals)
    names = sorted(module.name for module in iter_modules(__path__) if module.name != "__main__")
    for name in names:
        register = getattr(import_module(f"{__name__}.{name}"), "register", None)
        if register is not None:
            register(app)
    return app


def main() -> None:
    """Entry point: an error on purpose becomes one line and a hint, never a traceback."""
    try:
        make_app()()
    except EbbflowError as error:
        _explain(str(error), error.hint)
        sys.exit(EXIT_ERROR)
    except OSError as error:
        if error.filename is None:
            raise
        _explain(f"{error.filename}: {error.strerror}", "check that the path exists, its rights, and the disk's space")
        sys.exit(EXIT_ERROR)


def _explain(message: str, hint: str) -> None:
    typer.echo(f"error: {message}", err=True)
    if hint:
        typer.echo(f"hint: {hint}", err=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ebbflow {__version__}")
        raise typer.Exit


def _remember_globals(
    ctx: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Settings file; ebbflow.toml where there is one.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, before all else; repeatable.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version
    ctx.obj = Globals(config, tuple(set_ or ()))
