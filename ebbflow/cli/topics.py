"""`ebbflow topics`: creates what is missing of the catalogue, and prints it with what stands in Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ebbflow.cli.common import load_config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebbflow.kafka import TopicState
    from ebbflow.topics import Topic

_HOUR_MS = 3_600_000
# Wide enough that no row is folded when the output goes to grep.
_PIPE_COLUMNS = 240


def register(app: typer.Typer) -> None:
    app.command()(topics)


def topics(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects, one a topic.")] = False,
    create: Annotated[bool, typer.Option(help="Create what is missing; without it Kafka is not asked at all.")] = True,
) -> None:
    """Create the topics that are missing and print them all. What exists already is never changed, only compared."""
    import asyncio

    from ebbflow.kafka import create_topics
    from ebbflow.topics import CATALOGUE

    kafka = load_config(ctx).config.kafka
    states = {state.name: state for state in asyncio.run(create_topics(kafka))} if create else {}
    rows = [to_row(topic, states.get(topic.name), kafka.partitions) for topic in CATALOGUE]
    if as_json:
        _print_json(rows)
    else:
        _print_table(rows)


def to_row(topic: Topic, state: TopicState | None, default_partitions: int) -> dict[str, Any]:
    """One topic for people and scripts; `state` is None where Kafka was not asked."""
    return {
        "name": topic.name,
        "state": "" if state is None else _word(state),
        "partitions": (topic.partitions or default_partitions) if state is None else state.partitions,
        "cleanup": topic.cleanup,
        "retention_h": topic.retention_ms / _HOUR_MS if topic.cleanup == "delete" else None,
        "key": topic.key,
        "value": topic.value,
        "writer": topic.writer,
        "readers": topic.readers,
        "sensitivity": topic.sensitivity,
        "problems": list(state.problems) if state is not None else [],
    }


def _word(state: TopicState) -> str:
    if state.created:
        return "created"
    return "differs" if state.problems else "exists"


def _print_json(rows: list[dict[str, Any]]) -> None:
    import orjson

    typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("topic", "", "partitions", "kept", "value", "from", "to", "sensitivity"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in _cells(row)))
    console = Console()
    (console if console.is_terminal else Console(width=_PIPE_COLUMNS)).print(table)
    for row in rows:
        for problem in row["problems"]:
            typer.echo(f"warning: {row['name']}: {problem}", err=True)
    if any(row["problems"] for row in rows):
        typer.echo(
            "hint: topics that exist are not changed; use Kafka's own tools, or delete and create again", err=True
        )


def _cells(row: dict[str, Any]) -> Iterable[str]:
    kept = "last of a key" if row["retention_h"] is None else f"{row['retention_h']:g} h"
    columns = ("value", "writer", "readers", "sensitivity")
    return (row["name"], row["state"], str(row["partitions"]), kept, *(row[column] for column in columns))
