"""A producer that says what it is told to: for tests of what is done with its figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

from ebbflow.component import Batch, Producer
from ebbflow.config import Config
from ebbflow.producing.shared import Shared


@dataclass
class ToldProducer(Producer):
    """Watches nothing. `spent_ns` is the CPU time of its programs, None when that is not measured."""

    name: ClassVar[str] = "told"
    source: str = "host/1"
    by_cpu: dict[tuple[str, int], int] = field(default_factory=lambda: {("ring", 0): 0, ("ring", 1): 5})
    unseen: dict[str, int] = field(default_factory=lambda: {"map_lost": 11})
    usage: dict[str, float] = field(default_factory=lambda: {"events": 0.25})
    spent_ns: int | None = None

    @classmethod
    def from_config(cls, config: Config, shared: Shared) -> Self:
        del config, shared
        return cls()

    def attach(self) -> None:
        """Nothing."""

    def drain(self) -> float:
        return 0.0

    def batches(self, *, everything: bool = False, pressure: float = 0.0) -> list[Batch]:
        del everything, pressure
        return []

    def housekeeping(self) -> None:
        """Nothing."""

    def give_back(self, batch: Batch, *, refused: bool) -> None:
        """Nothing."""

    def captured(self) -> int:
        return 0

    def lost(self) -> int:
        return sum(self.by_cpu.values())

    def held(self) -> int:
        return 0

    def losses_by_cpu(self) -> dict[tuple[str, int], int]:
        return self.by_cpu

    def blind_spots(self) -> dict[str, int]:
        return self.unseen

    def map_usage(self) -> dict[str, float]:
        return self.usage

    def program_time_ns(self) -> int | None:
        return self.spent_ns

    def detach(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
