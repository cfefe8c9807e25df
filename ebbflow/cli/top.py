"""`ebbflow top`: rates, errors and latencies by service and route, live."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from ebbflow.cli.common import load_config

if TYPE_CHECKING:
    from ebbflow.config import StoreConfig
    from ebbflow.store.queries import Top

Losses = Callable[[], Mapping[str, int]]
Sleep = Callable[[float], None]


def register(app: typer.Typer) -> None:
    app.command()(top)


def top(
    ctx: typer.Context,
    window: Annotated[str, typer.Option(metavar="DURATION", help="How far back rates look.")] = "10s",
    interval: Annotated[str, typer.Option(metavar="DURATION", help="Time between two looks.")] = "1s",
    once: Annotated[bool, typer.Option("--once", help="One look, then end.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Lines, as without a terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One object a line for every look.")] = False,
) -> None:
    """Show rates, errors and latencies by service and route, until Ctrl-C."""
    from ebbflow.durations import parse_duration_ns
    from ebbflow.errors import ConfigError

    seconds = {name: parse_duration_ns(text) / 1e9 for name, text in (("window", window), ("interval", interval))}
    for name, value in seconds.items():
        if value <= 0:
            raise ConfigError(f"--{name} must be longer than nothing", hint="for example 10s")
    watch = Watch(load_config(ctx).config.store, seconds["window"])
    if not once and not plain and not as_json and is_terminal():
        show_live(watch, seconds["interval"])
    else:
        write = write_json if as_json else write_lines
        print_looks(watch, seconds["interval"], write, looks=1 if once else None)


def is_terminal() -> bool:
    return sys.stdout.isatty()


class Watch:
    """Looks at the store again and again; after the first look, trouble is a notice and not the end.

    Args:
        config: where the store is.
        window_s: how far back rates look.
        losses: what was lost before the store, by place; shown with the store's own losses.
        notices: lines that others want shown.
    """

    def __init__(
        self, config: StoreConfig, window_s: float, losses: Losses = dict, notices: Callable[[], list[str]] = list
    ) -> None:
        self._config = config
        self._window_s = window_s
        self._losses = losses
        self._notices = notices
        self._last: Top | None = None
        self.notice = ""

    def look(self) -> Top:
        """Now, or the last that could be had.

        Raises:
            EbbflowError: nothing could be had yet.
        """
        from ebbflow.errors import EbbflowError

        try:
            self._last = self._ask()
            trouble = ""
        except EbbflowError as error:
            if self._last is None:
                raise
            trouble = str(error)
        self.notice = "\n".join(filter(None, [*self._notices(), trouble]))
        return self._last

    def _ask(self) -> Top:
        from dataclasses import replace

        from ebbflow.store.client import connect

        with connect(self._config) as reader:
            found = reader.top(self._window_s)
        return replace(found, losses={**self._losses(), **found.losses})


def print_looks(
    watch: Watch, interval_s: float, write: Callable[[Top], None], *, looks: int | None, sleep: Sleep = time.sleep
) -> None:
    """Write one look each interval; `looks` None goes on until interrupted."""
    while True:
        write(watch.look())
        if watch.notice:
            typer.echo(f"store: {watch.notice}", err=True)
        if looks is not None:
            looks -= 1
            if not looks:
                return
        sleep(interval_s)


def write_lines(found: Top) -> None:
    from ebbflow.store.views.top import losses_line, top_lines

    lines = [*top_lines(found), *filter(None, [losses_line(found.losses)])]
    typer.echo("\n".join(lines))


def write_json(found: Top) -> None:
    import orjson

    typer.echo(orjson.dumps(found.as_json()))


def show_live(watch: Watch, interval_s: float, *, looks: int | None = None, sleep: Sleep = time.sleep) -> None:
    """Draw the screen again each interval, until interrupted."""
    from rich.live import Live

    from ebbflow.store.views.text import make_console
    from ebbflow.store.views.top import top_view

    first = watch.look()
    console = make_console()
    with Live(console=console, auto_refresh=False, screen=False, vertical_overflow="crop") as live:
        found: Top = first
        while True:
            live.update(top_view(found, console.width, console.height, notice=watch.notice), refresh=True)
            if looks is not None:
                looks -= 1
                if not looks:
                    return
            sleep(interval_s)
            found = watch.look()
