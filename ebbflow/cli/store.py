"""`ebbflow store`: the embedded OTLP backend in the foreground."""

from __future__ import annotations

import typer

from ebbflow.cli.common import load_config


def register(app: typer.Typer) -> None:
    app.command()(store)


def store(ctx: typer.Context) -> None:
    """Receive OTLP over HTTP on loopback and keep spans in a DuckDB file, until Ctrl-C."""
    import structlog

    from ebbflow.store.server import serve
    from ebbflow.telemetry import setup_logging

    config = load_config(ctx).config
    setup_logging(config.log, "store")
    serve(config.store, structlog.get_logger())
