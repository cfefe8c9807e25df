"""The base of producers whose rows carry stacks: cpu, memory. Their batches say what every address is.

A feature subclasses `StackProducer` instead of `EventProducer`, gives the kinds that have a stack a head with
`kernel_frames` and `user_frames` (or `frames`, all the user's), and puts the addresses behind it: that is all.

    class MemoryProducer(StackProducer): …
        yield Aggregate(kind=…, payload=heads, pids=…, starts=…, tails=[addresses.tobytes(), …])
"""

from __future__ import annotations

from typing import ClassVar

from ebbflow.component import Batch
from ebbflow.kernel.rows import Rows
from ebbflow.producing.batching import Dictionary
from ebbflow.producing.event_producer import EventProducer
from ebbflow.producing.frames import FrameDictionary, StackFormat
from ebbflow.producing.naming import Naming, Waiting
from ebbflow.symbols import Symbolizer

# What the thread that names frames counts.
STACK_COUNTS = (
    "stacks", "stacks_ended_early", "stacks_truncated", "stacks_lost", "frames", "frames_without_symbol",
)  # fmt: skip


class StackProducer(EventProducer):
    """See the module's docstring.

    Class attributes:
        replaced: the kind of rows which say that their process began another program; "" where there is none.
        traced: the function at which the stacks of `traced_kinds` were taken: kernel frames before it are the
            tracing's own, and are left out where kallsyms can be read.
    """

    # Reading kallsyms; files that were deleted since they were mapped.
    capabilities: ClassVar[frozenset[str]] = frozenset({"SYSLOG", "CHECKPOINT_RESTORE"})
    replaced: ClassVar[str] = ""
    traced: ClassVar[str] = ""
    traced_kinds: ClassVar[tuple[str, ...]] = ()

    def has_names(self) -> bool:
        """Whether addresses are turned into functions, or only into places in files."""
        return True

    def dictionary(self) -> Dictionary:
        stacks = StackFormat(self.layout)
        self._symbolizer = Symbolizer(names=self.has_names())
        dictionary = FrameDictionary(self.shared.processes, stacks, names=self.has_names())
        self.naming = Naming(
            self._symbolizer,
            dictionary,
            stacks,
            replaced_kind=self.layout.kind(self.replaced) if self.replaced else -1,
            traced=self.traced,
            traced_kinds=frozenset(self.layout.kind(name) for name in self.traced_kinds),
            names=self.has_names(),
        )
        self._waiting = Waiting(self.naming.resolve, stacks.kinds)
        return dictionary

    def publish(self, rows: Rows, payloads: list[bytes]) -> None:
        self._waiting.put(rows, payloads)

    def batches(self, *, everything: bool = False, pressure: float = 0.0) -> list[Batch]:
        for chunk in self._waiting.ready(everything=everything):
            self.buckets.add(chunk.rows, chunk.payloads)
        return super().batches(everything=everything, pressure=pressure)

    def held(self) -> int:
        return super().held() + self._waiting.held

    def stack_counts(self) -> dict[str, int]:
        """What was seen of stacks since the start, by STACK_COUNTS; and those that left before they were known."""
        counts = {name: self.naming.counts[name] for name in STACK_COUNTS}
        return counts | {"stacks_unresolved": self._waiting.unresolved}

    def blind_spots(self) -> dict[str, int]:
        return super().blind_spots() | self.stack_counts()

    def close(self) -> None:
        self._waiting.close()
        self._symbolizer.close()
        super().close()
