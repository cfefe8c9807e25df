"""`ebbflow produce`, `ebbflow processor`, `ebbflow sink`: one part of the pipeline in the foreground."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ebbflow.cli.common import load_config

if TYPE_CHECKING:
    from ebbflow.config import Config


def register(app: typer.Typer) -> None:
    app.command()(produce)
    app.command("producer", hidden=True)(produce)  # its name until several features ran in one process
    app.command()(processor)
    app.command()(sink)


def produce(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As sockets, tcp, process.")],
    pid: Annotated[list[int] | None, typer.Option(help="Watch this process; repeatable, as all of these.")] = None,
    port: Annotated[list[int] | None, typer.Option(help="Watch connections of this port.")] = None,
    exe: Annotated[list[str] | None, typer.Option(help="Watch processes of this binary.")] = None,
    cgroup: Annotated[list[str] | None, typer.Option(help="Watch processes of this cgroup.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Watch every process.")] = False,
) -> None:
    """Watch the kernel and publish what it sees, until interrupted; several features share one process."""
    chosen = {"pid": pid, "port": port, "exe": exe, "cgroup": cgroup}
    targets = [f"{kind}:{value}" for kind, values in chosen.items() for value in values or ()]
    targets += ["all"] if everything else []
    config = load_config(ctx, {"capture.targets": targets or None}).config
    # Before numpy is imported: its threads would keep the capabilities that are dropped later.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    parts = _find("producers", list(dict.fromkeys(names)))

    from ebbflow.producing.runner import run_producers

    _begin(config, "producer")
    raise typer.Exit(run_producers(parts, config))


def processor(
    ctx: typer.Context, names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As requests.")]
) -> None:
    """Run processors in one process, until interrupted."""
    config = load_config(ctx).config
    parts = _find("processors", list(dict.fromkeys(names)))

    from ebbflow.stream.worker import run_processors

    _begin(config, ",".join(names))
    raise typer.Exit(run_processors(parts, config))


def sink(ctx: typer.Context, name: Annotated[str, typer.Argument(help="As traces.")]) -> None:
    """Deliver to a backend, until interrupted."""
    config = load_config(ctx).config
    (part,) = _find("sinks", [name])

    import asyncio

    from ebbflow.sink import run_sink

    _begin(config, f"sink.{name}")
    asyncio.run(run_sink(part, config))


def _find(group: Any, names: list[str]) -> list[Any]:
    from ebbflow.discovery import get

    return [get(group, name) for name in names]


def _begin(config: Config, component: str) -> None:
    from ebbflow.telemetry import setup_logging

    setup_logging(config.log, component)
