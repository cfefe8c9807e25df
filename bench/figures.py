"""One measured figure, with its spread and what it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Figure:
    """`values` are one a round; the median is the figure, lowest and highest its spread.

    Args:
        at_least: the target, where more is better.
        at_most: the target, where less is better.
        baseline: values of the same rounds without the thing measured, or of the peer.
    """

    name: str
    values: Sequence[float]
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    baseline: Sequence[float] | None = None

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def met(self) -> bool | None:
        if self.at_least is not None:
            return self.value >= self.at_least
        if self.at_most is not None:
            return self.value <= self.at_most
        return None

    def to_json(self) -> dict[str, Any]:
        baseline = median(self.baseline) if self.baseline else None
        ratios = [a / b for a, b in zip(self.values, self.baseline, strict=True) if b] if self.baseline else []
        return {
            "name": self.name,
            "value": round(self.value, 4),
            "unit": self.unit,
            "spread": [round(min(self.values), 4), round(max(self.values), 4)],
            "target": self.at_least if self.at_least is not None else self.at_most,
            "met": self.met,
            "baseline": round(baseline, 4) if baseline is not None else None,
            "ratio": round(median(ratios), 4) if ratios else None,
        }

    def line(self) -> str:
        """For people."""
        data = self.to_json()
        low, high = data["spread"]
        text = f"{self.name:36} {data['value']:>14,.2f} {self.unit:14} [{low:,.2f} .. {high:,.2f}]"
        if data["ratio"] is not None:
            text += f"  {data['ratio']:.2f} of {data['baseline']:,.2f}"
        if self.met is not None:
            bound = ">=" if self.at_least is not None else "<="
            text += f"  target {bound} {data['target']:g}: {'met' if self.met else 'MISSED'}"
        return text
