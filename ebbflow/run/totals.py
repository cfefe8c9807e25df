"""Spans and losses since the start of a run, from the parts' own /metrics.

A part that was started again counts from zero: what it had counted before is kept here.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

_TIMEOUT_S = 0.5
# No proxy, whatever the environment says: the parts are on this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Series:
    """A counter of one part: all samples of that name, or of some stages."""

    part: str
    sample: str
    stages: tuple[str, ...] = ()


SPANS = Series("sink", "ebbflow_sink_exported_total")
LOSSES: Mapping[str, Series] = {
    "kernel": Series("producer", "ebpf_events_lost_total", ("ring", "kernel")),
    "buffer": Series("producer", "ebpf_events_lost_total", ("buffer",)),
    "unreadable": Series("processor", "ebbflow_processor_dead_letters_total"),
    "backend": Series("sink", "ebbflow_sink_rejected_total"),
}


def fetch(url: str) -> str:
    """The body of a GET.

    Raises:
        OSError: no answer, or no good one.
    """
    with _OPENER.open(url, timeout=_TIMEOUT_S) as response:
        body: bytes = response.read()
        return body.decode()


def read_samples(text: str, wanted: Iterable[Series]) -> dict[Series, float]:
    """Sums of the wanted series in Prometheus' text format; those that are not in it are left out."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found: dict[Series, float] = {}
    for series in wanted:
        values = [sample.value for sample in samples if _belongs(sample, series)]
        if values:
            found[series] = sum(values)
    return found


def _belongs(sample: Any, series: Series) -> bool:
    return sample.name == series.sample and (not series.stages or sample.labels["stage"] in series.stages)


@dataclass(slots=True)
class Total:
    """A counter that survives restarts of who counts."""

    before: float = 0.0
    last: float = 0.0

    def observe(self, value: float) -> None:
        if value < self.last:
            self.before += self.last
        self.last = value

    @property
    def value(self) -> int:
        return int(self.before + self.last)


@dataclass(slots=True)
class Totals:
    """What all parts have counted.

    Args:
        urls: /metrics of each part.
        get: fetches one.
    """

    urls: Mapping[str, str]
    get: Callable[[str], str] = fetch
    _totals: dict[Series, Total] = field(default_factory=dict)

    def refresh(self) -> None:
        """Ask every part; one that does not answer keeps what it had."""
        for part, url in self.urls.items():
            wanted = [series for series in (SPANS, *LOSSES.values()) if series.part == part]
            try:
                found = read_samples(self.get(url), wanted)
            except (OSError, ValueError):
                continue
            for series, value in found.items():
                self._totals.setdefault(series, Total()).observe(value)

    @property
    def spans(self) -> int:
        return self._of(SPANS)

    def losses(self) -> dict[str, int]:
        """Events, records and spans lost, by where."""
        return {where: self._of(series) for where, series in LOSSES.items()}

    def _of(self, series: Series) -> int:
        return self._totals[series].value if series in self._totals else 0


def plain_line(clock: str, totals: Totals, spans_before: int, elapsed_s: float) -> str:
    """One line for a log: spans so far, their rate since the last line, losses.

    Args:
        clock: the time of day to show.
        totals: refreshed just now.
        spans_before: spans at the last line.
        elapsed_s: seconds since then.
    """
    rate = (totals.spans - spans_before) / elapsed_s if elapsed_s else 0.0
    lost = ", ".join(f"{where} {count}" for where, count in totals.losses().items() if count)
    return f"{clock}  {totals.spans} spans  {rate:.1f}/s  lost: {lost or 'nothing'}"
