"""`ebbflow dlq`: what could not be used or delivered, where it came from and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ebbflow.cli.common import load_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ebbflow.config import KafkaConfig

_PREFIX = "ebbflow-"
_NUMBERS = frozenset({"partition", "offset", "timestamp-ms", "time-unix-ns", "count"})


def register(app: typer.Typer) -> None:
    app.command()(dlq)


def dlq(
    ctx: typer.Context,
    stage: Annotated[str, typer.Option(help="Of this stage only, as requests or sink.traces.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="The newest so many; 0: all.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One dead letter a line.")] = False,
) -> None:
    """List dead letters, oldest first, and count them by stage and error code."""
    import asyncio

    letters = asyncio.run(_collect(load_config(ctx).config.kafka, stage))
    shown = letters[-limit:] if limit else letters
    if as_json:
        import orjson

        for letter in shown:
            typer.echo(orjson.dumps(letter))
        return
    for letter in shown:
        typer.echo(to_line(letter))
    for (name, code), number in sorted(Counter((letter["stage"], letter["code"]) for letter in letters).items()):
        typer.echo(f"{number} of {name} with {code}")
    if not letters:
        typer.echo("no dead letters")


async def _collect(config: KafkaConfig, stage: str) -> list[dict[str, Any]]:
    return [letter async for letter in _read(config) if stage in {"", letter["stage"]}]


async def _read(config: KafkaConfig) -> AsyncIterator[dict[str, Any]]:
    """Dead letters in the order they were written.

    Raises:
        NetworkError: Kafka cannot be reached.
        DependencyError: there is no such topic yet.
    """
    from functools import partial

    from ebbflow.errors import DependencyError
    from ebbflow.kafka import check_reachable, make_consumer
    from ebbflow.log_reader import read_topic
    from ebbflow.topics import DEAD_LETTERS

    if DEAD_LETTERS not in (await check_reachable(config)).topics:
        raise DependencyError(f"Kafka has no topic {DEAD_LETTERS}", hint="start the pipeline, or run `ebbflow topics`")
    async for record in read_topic(partial(make_consumer, config), DEAD_LETTERS):
        yield to_letter(record.partition, record.offset, record.headers, record.value)


def to_letter(partition: int, offset: int, headers: Iterable[tuple[str, bytes]], value: bytes | None) -> dict[str, Any]:
    """One record of the topic: where it stands, its provenance, and how large the original is.

    Records that somebody else wrote there have empty provenance.
    """
    given = {name.removeprefix(_PREFIX): text.decode("utf-8", "replace") for name, text in headers}
    names: Sequence[str] = ("stage", "code", "reason", "topic", "partition", "offset", "timestamp-ms")
    found: Mapping[str, Any] = {
        name.replace("-", "_"): _value(name, given.get(name, "")) for name in (*names, "time-unix-ns", "count")
    }
    return {"dlq_partition": partition, "dlq_offset": offset, **found, "bytes": len(value or b"")}


def _value(name: str, text: str) -> str | int | None:
    if name not in _NUMBERS:
        return text
    return int(text) if text.removeprefix("-").isdigit() else None


def to_line(letter: dict[str, Any]) -> str:
    when_ns = letter["time_unix_ns"]
    when = datetime.fromtimestamp(when_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S") if when_ns else "-"
    source = f"{letter['topic']}/{letter['partition']}/{letter['offset']}"
    return f"{when}  {letter['stage']}  {letter['code']}  {source}  {letter['bytes']} bytes  {letter['reason']}"
