"""`ebbflow kafka`: a Kafka node of one's own in the foreground, for a machine that has none."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ebbflow.cli.common import load_config
from ebbflow.errors import ConfigError

if TYPE_CHECKING:
    from ebbflow.broker import LocalKafka

_POLL_S = 0.2


def register(app: typer.Typer) -> None:
    app.command()(kafka)


def kafka(
    ctx: typer.Context,
    data_dir: Annotated[Path, typer.Option(help="Where topics are kept.")] = Path(".run/kafka"),
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="As in kafka.bootstrap by default.")] = None,
    controller_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="One above the port by default.")
    ] = None,
) -> None:
    """Run one Kafka node on loopback until Ctrl-C."""
    from ebbflow.broker import LocalKafka

    port = port or local_port(load_config(ctx).config.kafka.bootstrap)
    serve(LocalKafka(data_dir, port, controller_port or port + 1))


def local_port(bootstrap: str) -> int:
    """The port of the first broker in `kafka.bootstrap`.

    Raises:
        ConfigError: that broker is not on this machine's loopback.
    """
    host, _, port = bootstrap.split(",", maxsplit=1)[0].strip().rpartition(":")
    if host not in {"127.0.0.1", "localhost"}:
        raise ConfigError(
            f"kafka.bootstrap is {bootstrap}, which is not this machine's loopback",
            hint="that Kafka is run by somebody else; give --port to start one here all the same",
        )
    return int(port)


def serve(broker: LocalKafka) -> None:
    """Run the broker until SIGTERM or SIGINT.

    Raises:
        EbbflowError: it cannot start, or it ends by itself.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        broker.start()
        broker.wait_ready()
        typer.echo(f"Kafka is ready at {broker.bootstrap} (pid {broker.pid}, log {broker.log_file})")
        while not stop.wait(_POLL_S):
            broker.check_alive()
    finally:
        broker.stop()
