"""Reads what the parts' logs say, as they say it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ebbflow.run.words import Notice, last_words, read_lines

# The same words of the same part are told once within this time.
REPEAT_S = 30.0
_TAIL_BYTES = 16 << 10


def read_last_words(log_file: Path) -> Notice:
    """Why a part ended, as far as its log says."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, log_file.stat().st_size - _TAIL_BYTES))
            return last_words(file.read().decode("utf-8", "replace"))
    except OSError:
        return Notice("error", "")


@dataclass(slots=True)
class Tail:
    """The end of one growing log; a log that was rotated is read from its new beginning."""

    path: Path
    _offset: int = 0
    _begun: bytes = b""

    def read(self) -> list[str]:
        """Whole lines since the last call."""
        try:
            with self.path.open("rb") as file:
                if self.path.stat().st_size < self._offset:
                    self._offset, self._begun = 0, b""
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        self._offset += len(data)
        *lines, self._begun = (self._begun + data).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]


@dataclass(slots=True)
class Reader:
    """All parts' logs, name to file."""

    files: dict[str, Path]
    _tails: dict[str, Tail] = field(default_factory=dict)
    _told_s: dict[tuple[str, str], float] = field(default_factory=dict)

    def notices(self, now_s: float) -> Iterator[tuple[str, Notice]]:
        """What was written since the last call and is worth telling, with the part's name."""
        for name, path in self.files.items():
            tail = self._tails.setdefault(name, Tail(path))
            yield from ((name, notice) for notice in self._new(name, read_lines(tail.read()), now_s))

    def _new(self, name: str, notices: Iterable[Notice], now_s: float) -> Iterator[Notice]:
        self._told_s = {key: told_s for key, told_s in self._told_s.items() if now_s - told_s < REPEAT_S}
        for notice in notices:
            if (name, notice.text) not in self._told_s:
                self._told_s[name, notice.text] = now_s
                yield notice
