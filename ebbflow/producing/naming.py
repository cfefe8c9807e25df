"""Rows with stacks on their way: a thread of its own finds out what their addresses are, so that draining never waits.

    put ─ queue ─ resolve (thread) ─ ready ─ into the batches

Reading a program's symbols takes up to seconds, and a file system may hang. A chunk of rows that is not resolved after
`patience_s` leaves as it is, flagged STACK_UNRESOLVED. Chunks keep their order. What is resolved waits up to `gather_s`
for company: the dictionaries of few large batches cost less than those of many small ones.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ebbflow.kernel.rows import Rows
from ebbflow.producing.frames import ENDS_EARLY, KERNEL, LOST, TRUNCATED, UNRESOLVED, FrameDictionary, StackFormat, Upid
from ebbflow.symbols import Frame, Symbolizer, ends_early

_GATHERED_ROWS = 4096
# Of chunks that wait for the thread; beyond that they leave at once.
_MOST_WAITING = 4096
_JOIN_S = 2.0
# Frames of the kernel's own tracing that stand before the function that was traced.
_MOST_TRACING = 8


@dataclass(slots=True, eq=False)
class Chunk:
    """Rows, shape (n,), writable, and their n payloads."""

    rows: Rows
    payloads: list[bytes]
    put_s: float = 0.0
    resolved: bool = False


class Naming:
    """Says what the addresses in a chunk's stacks are, and marks its rows. Used by one thread.

    What is not of the stack is cut off: frames of the tracing, and what a broken chain of frame pointers led to.

    Args:
        symbolizer: knows processes and the kernel.
        dictionary: is told the frames.
        replaced_kind: rows of this kind say that their process began another program.
        traced: the function at which stacks of `traced_kinds` were taken: what stands before it is the tracing itself.
        names: False: frames may have no functions, and nothing is concluded from that.
    """

    def __init__(
        self,
        symbolizer: Symbolizer,
        dictionary: FrameDictionary,
        stacks: StackFormat,
        *,
        replaced_kind: int = -1,
        traced: str = "",
        traced_kinds: frozenset[int] = frozenset(),
        names: bool = True,
    ) -> None:
        self._symbolizer = symbolizer
        self._dictionary = dictionary
        self._stacks = stacks
        self._replaced_kind = replaced_kind
        self._traced, self._traced_kinds = traced, traced_kinds
        self._names = names
        self.counts: Counter[str] = Counter()

    def resolve(self, chunk: Chunk) -> tuple[list[int], list[bytes]]:
        """The rows' flags, and their payloads as they may leave."""
        flags, payloads = chunk.rows["flags"].tolist(), list(chunk.payloads)
        columns = (chunk.rows[name].tolist() for name in ("kind", "pid", "start_boottime_ns"))
        for index, (kind, pid, start_ns) in enumerate(zip(*columns, strict=True)):
            if kind == self._replaced_kind:
                self._symbolizer.refresh(pid)
            elif kind in self._stacks.kinds:
                flags[index], payloads[index] = self._resolve(kind, (pid, start_ns), flags[index], payloads[index])
        return flags, payloads

    def _resolve(self, kind: int, upid: Upid, flags: int, payload: bytes) -> tuple[int, bytes]:
        in_kernel, in_user = self._stacks.split(kind, payload)
        if not in_kernel and not in_user:
            self.counts["stacks_lost"] += bool(flags & LOST)
            return flags, payload
        kernel = self._symbolizer.kernel(in_kernel) if self._names else []
        tracing = self._tracing(kernel) if kind in self._traced_kinds else 0
        user = self._symbolizer.user(*upid, in_user, whole=False)
        self._dictionary.learn(KERNEL, kernel)
        self._dictionary.learn(upid, user)
        if is_broken := len(user) < len(in_user):
            flags &= ~TRUNCATED
        if tracing or is_broken:
            payload = self._stacks.cut(kind, payload, slice(tracing, None), slice(len(user)))
        return self._judge(flags, kernel[tracing:], user), payload

    def _tracing(self, kernel: Sequence[Frame]) -> int:
        functions = [frame.function for frame in kernel[:_MOST_TRACING]]
        return functions.index(self._traced) if self._traced in functions else 0

    def _judge(self, flags: int, kernel: Sequence[Frame], user: Sequence[Frame]) -> int:
        """What is to be said of one stack: counted, and as flags."""
        early = self._names and bool(user) and not flags & TRUNCATED and ends_early(user)
        self.counts["stacks"] += 1
        self.counts["stacks_truncated"] += bool(flags & TRUNCATED)
        self.counts["stacks_ended_early"] += early
        self.counts["frames"] += len(kernel) + len(user)
        if self._names:
            self.counts["frames_without_symbol"] += sum(not frame.function for frame in (*kernel, *user))
        return flags | (ENDS_EARLY if early else 0)


@dataclass(slots=True)
class Waiting:
    """Chunks between draining and batches; see the module's docstring.

    Args:
        resolve: run by the thread, which is started with the first chunk.
        stacks: kinds that leave flagged when they were not resolved in time.
    """

    resolve: Callable[[Chunk], tuple[list[int], list[bytes]]]
    stacks: frozenset[int]
    patience_s: float = 5.0
    gather_s: float = 1.0
    now_s: Callable[[], float] = time.monotonic
    unresolved: int = 0
    _chunks: deque[Chunk] = field(default_factory=deque)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _todo: deque[Chunk] = field(default_factory=deque)
    _thread: threading.Thread | None = None
    _failure: BaseException | None = None
    _stop: bool = False

    @property
    def held(self) -> int:
        return sum(len(chunk.rows) for chunk in self._chunks)

    def put(self, rows: Rows, payloads: list[bytes]) -> None:
        """Take rows, shape (n,), which are written to, and their payloads."""
        chunk = Chunk(rows, payloads, self.now_s())
        self._chunks.append(chunk)
        if not np.isin(rows["kind"], list(self.stacks)).any() and not self._todo:
            chunk.resolved = True
        elif len(self._todo) < _MOST_WAITING:
            self._hand_over(chunk)

    def _hand_over(self, chunk: Chunk) -> None:
        if self._thread is None:
            # Not before: threads have the capabilities that their maker has then.
            self._thread = threading.Thread(target=self._work, name="naming", daemon=True)
            self._thread.start()
        with self._changed:
            self._todo.append(chunk)
            self._changed.notify_all()

    def _work(self) -> None:
        while (chunk := self._next()) is not None:
            try:
                flags, payloads = self.resolve(chunk)
            except BaseException as error:  # noqa: BLE001 - raised again by `ready`, in the thread that can end it all
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                return
            with self._changed:
                if chunk in self._chunks:
                    chunk.rows["flags"] = flags
                    chunk.payloads, chunk.resolved = payloads, True
                    chunk.rows["captured"] = [len(payload) for payload in payloads]
                self._todo.popleft()
                self._changed.notify_all()

    def _next(self) -> Chunk | None:
        with self._changed:
            self._changed.wait_for(lambda: self._stop or bool(self._todo))
            return None if self._stop else self._todo[0]

    def ready(self, *, everything: bool = False) -> list[Chunk]:
        """Chunks that may leave; with `everything`, all, and then it waits for the thread as long as its patience."""
        if everything and self._chunks:
            with self._changed:
                self._changed.wait_for(self._is_idle, self.patience_s)
        if self._failure is not None:
            raise self._failure
        if not everything and not self._is_due():
            return []
        with self._changed:
            return [self._leave() for _ in range(self._may_leave(everything=everything))]

    def _is_idle(self) -> bool:
        return self._failure is not None or all(chunk.resolved for chunk in self._chunks)

    def _is_due(self) -> bool:
        if not self._chunks:
            return False
        return self.now_s() - self._chunks[0].put_s >= self.gather_s or self.held >= _GATHERED_ROWS

    def _may_leave(self, *, everything: bool) -> int:
        """How many of the oldest chunks: up to the first that is neither resolved nor too old."""
        if everything:
            return len(self._chunks)
        oldest_s = self.now_s() - self.patience_s
        stay = (at for at, chunk in enumerate(self._chunks) if not chunk.resolved and chunk.put_s > oldest_s)
        return next(stay, len(self._chunks))

    def _leave(self) -> Chunk:
        chunk = self._chunks.popleft()
        if not chunk.resolved:
            late = np.isin(chunk.rows["kind"], list(self.stacks))
            chunk.rows["flags"][late] |= UNRESOLVED
            self.unresolved += int(late.sum())
        return chunk

    def close(self) -> None:
        """Let the thread end; one that hangs in a read is left behind, and ends with the process."""
        with self._changed:
            self._stop = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
