"""How many elements of kernel maps a core reads, writes, deletes and takes, by type of map and size of the batch.

    python -m bench.maps [ROUNDS]

Maps of 16,384 elements, keys of 8 bytes, values of 16 (a per-CPU map's on every CPU). The batch is the number of keys
given to one call of Map; `read` looks keys up one by one, since the kernel has no call for several, `items` and `take`
give the whole map. Baseline of the first figures: the same through BCC's table object.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson

from bench.figures import Figure
from ebbflow.kernel.map_calls import possible_cpus
from ebbflow.kernel.maps import Map
from ebbflow.testing.kernel_maps import kernel_map

ELEMENTS = 16_384
BATCHES = (1, 16, 256, 4096, ELEMENTS)
KINDS = ("hash", "percpu_hash", "lru_hash", "array")
VALUE = np.dtype([("calls", "<u8"), ("total_ns", "<u8")])
# A batch of one is slow enough to be measured on fewer.
_MOST_CALLS = 2048
_UNIT = "elements/s"


def per_second(work: Callable[[], int]) -> float:
    """Elements per second of processor time."""
    started = time.process_time()
    done = work()
    return done / max(time.process_time() - started, 1e-9)


def parts(keys: Any, batch: int) -> list[Any]:
    return [keys[at : at + batch] for at in range(0, min(len(keys), batch * _MOST_CALLS), batch)]


def values_for(one: Map, count: int) -> Any:
    return np.ones((count, possible_cpus()) if one.is_per_cpu else count, VALUE)


def of_batches(one: Map, keys: Any, batch: int) -> Iterator[tuple[str, float]]:
    """Writes, reads and deletes of keys in batches; the map is full before and after."""
    chosen = parts(keys, batch)
    values = values_for(one, batch)
    count = sum(map(len, chosen))

    def all_of(call: Callable[[Any], object]) -> Callable[[], int]:
        def work() -> int:
            for part in chosen:
                call(part)
            return count

        return work

    yield "write", per_second(all_of(lambda part: one.write(part, values[: len(part)])))
    yield "read", per_second(all_of(one.read))
    if one.kind != "array":
        yield "delete", per_second(all_of(one.delete))
        one.write(keys, values_for(one, len(keys)))


def of_whole(one: Map, keys: Any) -> Iterator[tuple[str, float]]:
    yield "items", per_second(lambda: len(one.items()[0]))
    yield "take", per_second(lambda: len(one.take()[0]))
    one.write(keys, values_for(one, len(keys)))


def measure(kind: str) -> dict[str, float]:
    """Every figure of one type, once."""
    # An LRU map evicts before it is full.
    entries = ELEMENTS * 2 if kind == "lru_hash" else ELEMENTS
    with kernel_map(kind, "<u4" if kind == "array" else "<u8", VALUE, entries) as one:
        keys = np.arange(ELEMENTS, dtype=one.key)
        one.write(keys, values_for(one, ELEMENTS))
        found = {f"map {kind}, {what} all": rate for what, rate in of_whole(one, keys)}
        for batch in BATCHES:
            found |= {f"map {kind}, {what} by {batch}": rate for what, rate in of_batches(one, keys, batch)}
    return found


def bcc_items() -> float:
    """The whole of such a hash through BCC's table object."""
    from bcc import BPF  # noqa: PLC0415 - Debian's package

    text = f"struct value {{ u64 calls, total_ns; }}; BPF_HASH(table, u64, struct value, {ELEMENTS});"
    bpf = BPF(text=text.encode())
    table = bpf[b"table"]
    one = Map(table.map_fd, np.dtype("<u8"), VALUE)
    one.write(np.arange(ELEMENTS), values_for(one, ELEMENTS))
    rate = per_second(lambda: sum(1 for _ in table.items()))
    bpf.cleanup()
    return rate


def figures(rounds: int = 3) -> list[Figure]:
    """Types take turns within each round."""
    rates: dict[str, list[float]] = {}
    bcc: list[float] = []
    for _ in range(rounds):
        bcc.append(bcc_items())
        for kind in KINDS:
            for name, rate in measure(kind).items():
                rates.setdefault(name, []).append(rate)
    baselines = {"map hash, items all": bcc}
    return [Figure(name, values, _UNIT, baseline=baselines.get(name)) for name, values in rates.items()]


if __name__ == "__main__":
    made = figures(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    print(orjson.dumps([figure.to_json() for figure in made], option=orjson.OPT_INDENT_2).decode())
