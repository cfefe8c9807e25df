"""`ebbflow probes`: what is attached to this kernel by ebbflow, how often it ran, and how long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from ebbflow.kernel.attached import Owner
    from ebbflow.kernel.objects import LoadedProgram

_MIB = 1 << 20


def register(app: typer.Typer) -> None:
    app.command()(probes)


def probes(
    stats: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Let the kernel count for so long, and show that time alone.")
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="What any process has attached.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One object; its shape is in docs/probes.md.")] = False,
) -> None:
    """List attached probes with their owners, hits and time."""
    from ebbflow.kernel.attached import owners, require_rights
    from ebbflow.kernel.objects import always_counting

    require_rights()
    if stats is None:
        (found, unseen), seconds = owners(everyone=everyone), None
        counting = always_counting()
    else:
        seconds, counting = _seconds(stats), True
        found, unseen = watch(seconds, everyone=everyone)
    shown = {**as_object(found, counting=counting, seconds=seconds), "unseen_processes": unseen}
    if as_json:
        _print_json(shown)
    else:
        show(shown)


def _seconds(text: str) -> float:
    from ebbflow.durations import parse_duration_ns
    from ebbflow.errors import ConfigError

    seconds = parse_duration_ns(text) / 1e9
    if seconds <= 0:
        raise ConfigError("--stats must be longer than nothing", hint="for example --stats 5s")
    return seconds


def watch(seconds: float, *, everyone: bool) -> tuple[list[Owner], int]:
    """What is there at the end of a time, with the runs and run time of that time alone."""
    from ebbflow.kernel.attached import owners
    from ebbflow.kernel.objects import statistics

    with statistics():
        before = {program.id: program for owner in owners(everyone=everyone)[0] for program in owner.programs}
        time.sleep(seconds)
        after, unseen = owners(everyone=everyone)
    return [since(before, owner) for owner in after], unseen


def since(before: Mapping[int, LoadedProgram], owner: Owner) -> Owner:
    """With runs and time less what there were before; a program that is new counts from nothing."""
    from dataclasses import replace

    programs = []
    for program in owner.programs:
        old = before.get(program.id)
        runs, run_time_ns = (old.runs, old.run_time_ns) if old else (0, 0)
        programs.append(replace(program, runs=program.runs - runs, run_time_ns=program.run_time_ns - run_time_ns))
    return replace(owner, programs=programs)


def as_object(found: Sequence[Owner], *, counting: bool, seconds: float | None) -> dict[str, Any]:
    """The stable shape of `--json`."""
    return {
        "counting": counting,
        "seconds": seconds,
        "processes": [_process(owner, counting=counting, seconds=seconds) for owner in found],
    }


def _process(owner: Owner, *, counting: bool, seconds: float | None) -> dict[str, Any]:
    from dataclasses import asdict

    programs = {program.id: program for program in owner.programs}
    return {
        "pid": owner.pid,
        "command": owner.command,
        "probes": [
            {
                "kind": probe.kind,
                "target": probe.target,
                "times": probe.times,
                "program_id": probe.program_id,
                "function": programs[probe.program_id].name if probe.program_id in programs else "",
            }
            for probe in owner.attachments
        ],
        "programs": [
            {**asdict(program), **_cost(program.runs, program.run_time_ns, counting=counting, seconds=seconds)}
            for program in owner.programs
        ],
        "maps": [asdict(one) for one in owner.maps],
    }


def _cost(runs: int, run_time_ns: int, *, counting: bool, seconds: float | None) -> dict[str, Any]:
    return {
        "runs": runs if counting else None,
        "run_time_ns": run_time_ns if counting else None,
        "core_percent": 100 * run_time_ns / 1e9 / seconds if seconds else None,
    }


def show(shown: dict[str, Any]) -> None:
    """A table, a line for each process with what it holds, and how to have counts when there are none."""
    from ebbflow.store.views.text import make_console

    console = make_console()
    console.print(_table(shown) if shown["processes"] else "Nothing is attached.")
    for process in shown["processes"]:
        console.print(_holdings(process), style="dim", markup=False)
    if shown["unseen_processes"]:
        console.print(f"{shown['unseen_processes']} processes could not be looked at: CAP_SYS_PTRACE is missing")
    if shown["processes"] and not shown["counting"]:
        console.print("Runs are not counted: `ebbflow probes --stats 5s`, or sysctl -w kernel.bpf_stats_enabled=1")


def _table(shown: dict[str, Any]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("kind", "target", "function"):
        table.add_column(heading, no_wrap=heading != "target", overflow="fold")
    for heading in ("pid", "prog", "runs", "ns/run", "% of a core"):
        table.add_column(heading, justify="right", no_wrap=True)
    for process in shown["processes"]:
        programs = {program["id"]: program for program in process["programs"]}
        seen: set[int] = set()
        for probe in process["probes"]:
            table.add_row(*_row(process["pid"], probe, programs.get(probe["program_id"]), seen))
        for number in programs.keys() - {probe["program_id"] for probe in process["probes"]}:
            place = {"kind": "-", "target": "by tail call, or not attached", "times": 1, "program_id": number}
            table.add_row(
                *_row(process["pid"], {**place, "function": programs[number]["name"]}, programs[number], seen)
            )
    return table


def _row(pid: int, probe: dict[str, Any], program: dict[str, Any] | None, seen: set[int]) -> list[str]:
    """Counts are the function's: they stand at the first of its probes."""
    from ebbflow.store.views.text import clean

    target = probe["target"] + (f" x{probe['times']}" if probe["times"] > 1 else "")
    cells = [probe["kind"], target, probe["function"], str(pid), str(probe["program_id"])]
    first = probe["program_id"] not in seen
    seen.add(probe["program_id"])
    counts = _counts(program) if program and first else ['"', '"', '"'] if not first else ["", "", ""]
    return [clean(cell) for cell in (*cells, *counts)]


def _counts(program: dict[str, Any]) -> list[str]:
    if program["runs"] is None:
        return ["-", "-", "-"]
    each = f"{program['run_time_ns'] / program['runs']:,.0f}" if program["runs"] else "-"
    share = "-" if program["core_percent"] is None else f"{program['core_percent']:.2f}"
    return [f"{program['runs']:,}", each, share]


def _holdings(process: dict[str, Any]) -> str:
    from ebbflow.store.views.text import clean

    held = [*process["programs"], *process["maps"]]
    memory = sum(one["memory_bytes"] for one in held) / _MIB
    counts = f"{len(process['programs'])} programs, {len(process['maps'])} maps, {memory:.1f} MiB"
    return clean(f"{process['pid']}  {process['command']}: {counts}")


def _print_json(shown: dict[str, Any]) -> None:
    import orjson

    typer.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2))
