"""A processor whose every output depends on all records before: a running total, and pairs of halves.

Value of record number n: b"<n> <padding>". Records 2k and 2k+1 are halves of a pair; the event time is n seconds, and
a half whose other one has not come within 50 s is given up. Three values are special: b"bad ..." is refused, b"row ..."
has one bad row, b"boom ..." breaks the state and then the processor.
"""

from __future__ import annotations

from typing import Self

import orjson

from ebbflow.component import DeadLetter, Output, Processor, Record, Result
from ebbflow.config import Config
from ebbflow.errors import BatchInvalid

INPUT, OUTPUT = "test.in", "test.out"
SECOND_NS = 1_000_000_000
PATIENCE_S = 50


class Totals(Processor):
    name = "totals"
    inputs = (INPUT,)
    output = OUTPUT

    def __init__(self) -> None:
        self.place = ""
        self.total = 0
        self.count = 0
        self.halves: dict[int, int] = {}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls()

    def process(self, record: Record) -> Result:
        if record.value.startswith(b"bad"):
            raise BatchInvalid("it says so")
        if record.value.startswith(b"boom"):
            self.total = -1_000_000
            raise ZeroDivisionError("the processor's bug")
        if record.value.startswith(b"row"):
            return Result(dead_letters=[DeadLetter("EBB602", "one row", b"row")], counters={"events": 1, "invalid": 1})
        number = int(record.value.split()[0])
        self.place, offset = f"{record.topic}/{record.partition}", b"%d" % record.offset
        self.total += number
        self.count += 1
        outputs = [self._output(b"total", number, self.total, offset)]
        pair = number // 2
        if pair in self.halves:
            outputs.append(self._output(b"pair", pair, self.halves.pop(pair) + number, offset))
        else:
            self.halves[pair] = number
        return Result(outputs, counters={"events": 1, "spans": len(outputs)}, event_time_ns=number * SECOND_NS)

    def tick(self, event_time_ns: int) -> Result:
        late = [pair for pair in self.halves if event_time_ns > (2 * pair + PATIENCE_S) * SECOND_NS]
        return Result([self._output(b"late", pair, self.halves.pop(pair), b"late%d" % pair) for pair in late])

    def _output(self, kind: bytes, number: int, value: int, offset: bytes) -> Output:
        source = b"%s/%s" % (self.place.encode(), offset)
        return Output(self.output, kind, b"%s %d %d" % (kind, number, value), (("ebbflow-source", source),))

    def snapshot(self) -> bytes:
        return orjson.dumps([self.place, self.total, self.count, list(self.halves.items())])

    def restore(self, state: bytes) -> None:
        self.place, self.total, self.count, halves = orjson.loads(state)
        self.halves = dict(map(tuple, halves))

    def gauges(self) -> dict[str, float]:
        return {"halves": len(self.halves)}


def named(suffix: str) -> type[Totals]:
    """The same on topics of its own."""
    return type(
        "Totals", (Totals,), {"name": f"totals-{suffix}", "inputs": (f"in.{suffix}",), "output": f"out.{suffix}"}
    )


def expected(values: list[bytes]) -> list[bytes]:
    """Outputs of a run that nothing disturbed."""
    processor, outputs, newest_ns = Totals(), [], 0
    for offset, value in enumerate(values):
        if value.startswith((b"bad", b"boom", b"row")):
            continue
        result = processor.process(Record(INPUT, 0, offset, 0, None, value))
        newest_ns = max(newest_ns, result.event_time_ns)
        outputs += [output.value for output in result.outputs]
        outputs += [output.value for output in processor.tick(newest_ns).outputs]
    return outputs
