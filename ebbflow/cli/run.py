"""`ebbflow run` and `ebbflow down`: everything at once, on this machine."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ebbflow.cli.common import Globals, load_config
from ebbflow.errors import ConfigError, EbbflowError

if TYPE_CHECKING:
    from ebbflow.run.board import Board
    from ebbflow.run.conductor import Conductor
    from ebbflow.run.parts import Plan
    from ebbflow.run.supervision import Supervisor

EXIT_FAILED, EXIT_MISUSED = 1, 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WINDOW_S, _INTERVAL_S, _LINE_S = 10.0, 1.0, 5.0

DataDir = Annotated[Path, typer.Option(help="Logs, topics, spans and sockets are kept here.")]


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(down)


def run(
    ctx: typer.Context,
    targets: Annotated[
        str | None, typer.Option(help='Watch these, with no demo: "port:8080,exe:nginx,pid:1,cgroup:PATH" or all.')
    ] = None,
    data_dir: DataDir = Path(".run"),
    detach: Annotated[bool, typer.Option("--detach", help="In the background; `ebbflow down` stops it.")] = False,
    own_kafka: Annotated[
        bool, typer.Option("--kafka/--no-kafka", help="Start a Kafka, where kafka.bootstrap is on loopback.")
    ] = True,
    status: Annotated[bool, typer.Option("--status", help="Only show what runs.")] = False,
) -> None:
    """Start everything, show what is seen, stop everything at Ctrl-C."""
    if status:
        raise typer.Exit(show_status(data_dir))
    mark_as_ours()
    try:
        plan = make_plan(ctx, {"capture.targets": targets}, data_dir.absolute(), own_kafka=own_kafka)
        conduct(plan, detach=detach)
    except EbbflowError as error:
        typer.echo(f"error: {error}", err=True)
        if error.hint:
            typer.echo(f"hint: {error.hint}", err=True)
        raise typer.Exit(EXIT_MISUSED if isinstance(error, ConfigError) else EXIT_FAILED) from None


def down(data_dir: DataDir = Path(".run")) -> None:
    """Stop what `ebbflow run` started in this data directory."""
    from ebbflow.run.stopping import stop
    from ebbflow.run.supervision import Supervisor

    supervisor = Supervisor(data_dir.absolute())
    if not supervisor.answers:
        typer.echo(f"nothing runs in {data_dir}")
        return
    with stop_signals(signal.SIG_IGN):
        stop(supervisor)
    typer.echo("stopped")


def mark_as_ours() -> None:
    """Start this process again with the mark by which the producer knows its own; it is read where a process begins."""
    from ebbflow.identity import OURS

    if OURS not in os.environ:
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, OURS: "run"})  # noqa: S606 - none is needed


def make_plan(ctx: typer.Context, flags: dict[str, str | None], data_dir: Path, *, own_kafka: bool) -> Plan:
    """All decisions of this run.

    Raises:
        ConfigError: a setting or a target is wrong.
    """
    from ebbflow.broker import free_port
    from ebbflow.doctor.services import is_local
    from ebbflow.kernel.targets import parse_targets
    from ebbflow.run.parts import Demo, Plan, as_environment, derived_settings

    given = ctx.obj if isinstance(ctx.obj, Globals) else Globals()
    derived = derived_settings(load_config(ctx, flags), data_dir, free_port)
    config = load_config(ctx, {**flags, **derived}).config
    wanted = parse_targets(config.capture.targets)
    demo = Demo(directory=data_dir / "demo", nginx_port=free_port(), shop_port=free_port())
    settings = {**given.flags(), **{key: value for key, value in flags.items() if value is not None}, **derived}
    return Plan(
        data_dir=data_dir,
        config=config,
        environment=as_environment(settings, given.config),
        runs_kafka=own_kafka and is_local(config.kafka.bootstrap),
        runs_store=not (config.otlp.endpoint or config.otlp.traces_endpoint),
        demo=None if wanted else demo,
    )


def conduct(plan: Plan, *, detach: bool) -> None:
    """Run a plan to its end; in the background, until it is up.

    Raises:
        EbbflowError: it cannot be started or kept running; everything is stopped then.
    """
    from ebbflow.run.board import Board
    from ebbflow.run.conductor import Conductor
    from ebbflow.run.data_directory import already_running, claimed
    from ebbflow.run.orphans import take_orphans
    from ebbflow.run.preflight import require_machine, require_rights_and_ports
    from ebbflow.run.probes import RealProbes
    from ebbflow.run.supervision import Supervisor

    supervisor = Supervisor(plan.data_dir)
    with stop_signals(signal.default_int_handler), claimed(plan.data_dir):
        if supervisor.answers:
            raise already_running(plan.data_dir, str(supervisor.pid))
        require_rights_and_ports(plan)
        if not detach:
            take_orphans()
        board = Board(typer.echo)
        conductor = Conductor(plan, supervisor, RealProbes(), board.say, lambda: require_machine(plan.config))
        with stopped_in_the_end(supervisor, keeps=detach):
            conductor.start(outlives_us=detach)
            if detach:
                say_where(plan.data_dir)
            else:
                show(conductor, plan, board)


@contextmanager
def stopped_in_the_end(supervisor: Supervisor, *, keeps: bool) -> Iterator[None]:
    """Stop everything, however this ends; `keeps` leaves a run alone that came up without an error."""
    from ebbflow.run.conductor import StoppedElsewhere

    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopping")
    except StoppedElsewhere:
        typer.echo("stopped by another command")
    except BaseException:
        stop_everything(supervisor)
        raise
    else:
        if keeps:
            return
    stop_everything(supervisor)


def stop_everything(supervisor: Supervisor) -> None:
    """Whoever is impatient meanwhile need not wait longer than five seconds."""
    from ebbflow.run.stopping import stop

    begun_s = time.monotonic()
    with stop_signals(signal.SIG_IGN):
        stop(supervisor)
    typer.echo(f"stopped everything in {time.monotonic() - begun_s:.1f} s")


def say_where(data_dir: Path) -> None:
    where = "" if data_dir == Path(".run").absolute() else f" --data-dir {data_dir}"
    typer.echo(f"runs in the background: `ebbflow top` shows it, `ebbflow down{where}` stops it")


def show(conductor: Conductor, plan: Plan, board: Board) -> None:
    """`ebbflow top` on a terminal, else lines; until interrupted."""
    from ebbflow.cli import top

    if plan.runs_store and sys.stdout.isatty():
        watch = top.Watch(plan.config.store, _WINDOW_S, losses=conductor.totals.losses, notices=board.recent)
        with board.screen():
            top.show_live(watch, _INTERVAL_S, sleep=conductor.watch)
    else:
        print_lines(conductor)


def print_lines(conductor: Conductor) -> None:
    from ebbflow.run.totals import plain_line

    spans, then_s = 0, time.monotonic()
    while True:
        conductor.watch(_LINE_S)
        now_s = time.monotonic()
        typer.echo(plain_line(time.strftime("%H:%M:%S"), conductor.totals, spans, now_s - then_s))
        spans, then_s = conductor.totals.spans, now_s


def show_status(data_dir: Path) -> int:
    """One line a part; the exit status is 0 when all are up."""
    from ebbflow.run.supervision import Supervisor

    supervisor: Supervisor = Supervisor(data_dir.absolute())
    if not supervisor.answers:
        typer.echo(f"nothing runs in {data_dir}")
        return EXIT_FAILED
    states = supervisor.states().values()
    for state in states:
        typer.echo(f"{state.name:<10} {state.state.lower():<9} {state.pid or ''}")
    return 0 if all(state.is_up for state in states) else EXIT_FAILED


@contextmanager
def stop_signals(handler: object) -> Iterator[None]:
    """What Ctrl-C, SIGTERM and a closed terminal do, for a while."""
    before = {number: signal.signal(number, handler) for number in _SIGNALS}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
