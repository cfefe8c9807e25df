"""What keeps a process from its work, told once when it begins and once when it ends.

Many tasks meet the same trouble at the same time (every partition's task when Kafka goes away), again and again; the
log gets one line for all of them, and readiness lists what lasts.
"""

from __future__ import annotations

from collections.abc import Callable

from ebbflow.errors import EbbflowError

# (event, fields): a structlog logger's `warning` and `info`.
Log = Callable[..., object]


class Troubles:
    """Troubles by subject ("kafka", "backend") and by who has them."""

    def __init__(self, *, warn: Log, inform: Log) -> None:
        self._warn = warn
        self._inform = inform
        self._current: dict[str, dict[str, EbbflowError]] = {}

    def report(self, subject: str, who: str, error: EbbflowError | None) -> None:
        """`who` has this trouble with the subject, or has it no more (None)."""
        having = self._current.setdefault(subject, {})
        before = bool(having)
        if error is None:
            having.pop(who, None)
        else:
            having[who] = error
        if error is not None and not before:
            self._warn(_text(subject, error), code=error.code, hint=error.hint)
        elif before and not having:
            self._inform(f"{subject}: works again")

    def forget(self, who: str) -> None:
        """`who` is no more; nothing is told."""
        for having in self._current.values():
            having.pop(who, None)

    def problems(self) -> list[str]:
        """For readiness: one line a subject."""
        found = ((subject, next(iter(having.values()), None)) for subject, having in list(self._current.items()))
        return [_text(subject, error) for subject, error in found if error is not None]


def _text(subject: str, error: EbbflowError) -> str:
    """The error with its subject in front, unless it begins with that itself."""
    text = str(error)
    return text if text.lower().startswith(subject) else f"{subject}: {text}"
