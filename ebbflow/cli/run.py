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
from ebbflow.errors import ConfigError, DependencyError, EbbflowError, PermissionDenied

if TYPE_CHECKING:
    from ebbflow.config import Config
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
    from ebbflow.run.conductor import stop  # noqa: PLC0415 - `--help` needs none of these
    from ebbflow.run.supervision import Supervisor  # noqa: PLC0415

    supervisor = Supervisor(data_dir.absolute())
    if not supervisor.answers:
        typer.echo(f"nothing runs in {data_dir}")
        return
    with stop_signals(signal.SIG_IGN):
        stop(supervisor)
    typer.echo("stopped")


def mark_as_ours() -> None:
    """Start this process again with the mark by which the producer knows its own; it is read where a process begins."""
    from ebbflow.identity import OURS  # noqa: PLC0415

    if OURS not in os.environ:
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, OURS: "run"})  # noqa: S606 - none is needed


def make_plan(ctx: typer.Context, flags: dict[str, str | None], data_dir: Path, *, own_kafka: bool) -> Plan:
    """All decisions of this run.

    Raises:
        ConfigError: a setting or a target is wrong.
    """
    from ebbflow.broker import free_port  # noqa: PLC0415
    from ebbflow.doctor.services import is_local  # noqa: PLC0415
    from ebbflow.kernel.targets import parse_targets  # noqa: PLC0415
    from ebbflow.run.parts import Demo, Plan, as_environment, derived_settings  # noqa: PLC0415

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
    from ebbflow.run.board import Board  # noqa: PLC0415
    from ebbflow.run.conductor import Conductor  # noqa: PLC0415
    from ebbflow.run.data_directory import already_running, claimed  # noqa: PLC0415
    from ebbflow.run.supervision import Supervisor, adopt_orphans  # noqa: PLC0415

    supervisor = Supervisor(plan.data_dir)
    with stop_signals(signal.default_int_handler), claimed(plan.data_dir):
        if supervisor.answers:
            raise already_running(plan.data_dir, str(supervisor.pid))
        require_rights_and_ports(plan)
        if not detach:
            adopt_orphans()
        board = Board(typer.echo)
        conductor = Conductor(plan, supervisor, board.say, lambda: require_machine(plan.config))
        if detach:
            start_in_background(conductor, plan)
        else:
            run_in_foreground(conductor, plan, board)


def start_in_background(conductor: Conductor, plan: Plan) -> None:
    try:
        conductor.start(outlives_us=True)
    except BaseException:
        stop_quietly(conductor)
        raise
    where = "" if plan.data_dir == Path(".run").absolute() else f" --data-dir {plan.data_dir}"
    typer.echo(
        f"runs in the background; see `ebbflow top`, logs in {plan.data_dir / 'logs'}, stop: `ebbflow down{where}`"
    )


def run_in_foreground(conductor: Conductor, plan: Plan, board: Board) -> None:
    from ebbflow.run.conductor import StoppedElsewhere  # noqa: PLC0415

    try:
        conductor.start()
        show(conductor, plan, board)
    except KeyboardInterrupt:
        typer.echo("stopping")
    except StoppedElsewhere:
        typer.echo("stopped by another command")
    finally:
        stop_quietly(conductor)


def stop_quietly(conductor: Conductor) -> None:
    """Stop everything; who is impatient meanwhile need not wait longer than five seconds."""
    begun_s = time.monotonic()
    with stop_signals(signal.SIG_IGN):
        conductor.stop()
    typer.echo(f"stopped everything in {time.monotonic() - begun_s:.1f} s")


def show(conductor: Conductor, plan: Plan, board: Board) -> None:
    """`ebbflow top` on a terminal, else lines; until interrupted."""
    from ebbflow.cli import top  # noqa: PLC0415

    if plan.runs_store and sys.stdout.isatty():
        watch = top.Watch(plan.config.store, _WINDOW_S, losses=conductor.totals.losses, notices=board.recent)
        with board.screen():
            top.show_live(watch, _INTERVAL_S, sleep=conductor.watch)
    else:
        print_lines(conductor)


def print_lines(conductor: Conductor) -> None:
    from ebbflow.run.totals import plain_line  # noqa: PLC0415

    spans, then_s = 0, time.monotonic()
    while True:
        conductor.watch(_LINE_S)
        now_s = time.monotonic()
        typer.echo(plain_line(time.strftime("%H:%M:%S"), conductor.totals, spans, now_s - then_s))
        spans, then_s = conductor.totals.spans, now_s


def show_status(data_dir: Path) -> int:
    """One line a part; the exit status is 0 when all are up."""
    from ebbflow.run.supervision import Supervisor  # noqa: PLC0415

    supervisor: Supervisor = Supervisor(data_dir.absolute())
    if not supervisor.answers:
        typer.echo(f"nothing runs in {data_dir}")
        return EXIT_FAILED
    states = supervisor.states().values()
    for state in states:
        typer.echo(f"{state.name:<10} {state.state.lower():<9} {state.pid or ''}")
    return 0 if all(state.is_up for state in states) else EXIT_FAILED


def require_rights_and_ports(plan: Plan) -> None:
    """What is cheap to know before anything starts.

    Raises:
        PermissionDenied: not root.
        DependencyError: a port that we need is taken.
    """
    from ebbflow.doctor import machine, services  # noqa: PLC0415

    if os.geteuid() != 0:
        raise PermissionDenied("loading BPF programs needs root", hint="run it with sudo; see `ebbflow doctor`")
    config = plan.config
    wanted = []
    if plan.runs_kafka and (port := services.first_port(config.kafka.bootstrap)):
        wanted += [("kafka", "127.0.0.1", port, "kafka.bootstrap"), ("kafka", "127.0.0.1", port + 1, "kafka.bootstrap")]
    if plan.runs_store:
        wanted.append(("store", config.store.host, config.store.port, "store.port"))
    for check in (machine.port(*which) for which in wanted):
        if check.status != "ok" or "held" in check.value:
            raise DependencyError(
                f"{check.name.removeprefix('port.')} cannot start: port {check.value}", hint=check.hint
            )


def require_machine(config: Config) -> None:
    """All that doctor knows and that does not take long.

    Raises:
        DependencyError: the first thing that is in the way.
    """
    from ebbflow.doctor import examine  # noqa: PLC0415

    failures = [check for check in examine(config, programs=tuple) if check.blocks]
    failures = [check for check in failures if not check.name.startswith("port.")]
    if failures:
        more = f" (and {len(failures) - 1} more: `ebbflow doctor`)" if len(failures) > 1 else ""
        raise DependencyError(f"{failures[0].name}: {failures[0].value}{more}", hint=failures[0].hint)


@contextmanager
def stop_signals(handler: object) -> Iterator[None]:
    """What Ctrl-C, SIGTERM and a closed terminal do, for a while."""
    before = {number: signal.signal(number, handler) for number in _SIGNALS}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
