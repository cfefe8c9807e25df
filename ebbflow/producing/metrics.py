"""What producers say of themselves on /metrics; the meaning of every name is in docs/self_metrics.md.

The totals are kept in the kernel, in librdkafka and in the producers, and only copied here, so this is a collector that
shows the latest copy, not a set of counters that count on their own. They are true counters all the same: they rise
until the process ends, and begin at 0 with the next one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ebbflow.component import Producer

# Stages that the ledger's counters know, and what they are called here.
_STAGES = {"lost": "kernel", "dropped": "buffer"}
_CLOCK_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PERCENT = 100.0
_SHORTEST_WINDOW_S = 0.2


class Share:
    """A CPU time that only rises, as percent of one core since the reading before."""

    def __init__(self) -> None:
        self._before: tuple[float, float] | None = None
        self.percent: float | None = None

    def update(self, cpu_s: float, now_s: float) -> None:
        """Take a reading. The share is known from the second one on; readings too close to each other are left out."""
        if self._before is None:
            self._before = (cpu_s, now_s)
            return
        elapsed_s = now_s - self._before[1]
        if elapsed_s >= _SHORTEST_WINDOW_S:
            self.percent = _PERCENT * max(cpu_s - self._before[0], 0.0) / elapsed_s
            self._before = (cpu_s, now_s)


class ProducerMetrics(Collector):
    """The producers of one process.

    Args:
        registry: to be registered with; none when the families are only read by `collect`.
    """

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._counters: dict[str, Mapping[str, int]] = {}
        self._losses: dict[str, Mapping[tuple[str, int], int]] = {}
        self._unseen: dict[str, Mapping[str, int]] = {}
        self._maps: dict[str, Mapping[str, float]] = {}
        self._kernel_share: dict[str, Share] = {}
        self._own_share = Share()
        if registry is not None:
            registry.register(self)

    def update(self, producer: Producer, counters: Mapping[str, int]) -> None:
        """Copy the latest totals of one feature.

        Args:
            producer: asked for what it alone knows.
            counters: captured, lost, dropped, published and buffered, in events since the start.
        """
        feature, now_s = producer.name, time.monotonic()
        self._counters[feature] = dict(counters)
        self._losses[feature] = dict(producer.losses_by_cpu())
        self._unseen[feature] = producer.blind_spots()
        self._maps[feature] = producer.map_usage()
        spent_ns = producer.program_time_ns()
        if spent_ns is None:
            self._kernel_share.pop(feature, None)
        else:
            self._kernel_share.setdefault(feature, Share()).update(spent_ns / 1e9, now_s)
        self._own_share.update(own_cpu_s(), now_s)

    def collect(self) -> Iterable[Metric]:
        """The families, by name."""
        yield self._counter("ebpf_events", "Events the kernel had for us", "captured")
        yield self._lost()
        yield self._map_usage()
        yield self._cpu_usage()
        yield self._unseen_family()
        yield self._counter("ebbflow_producer_published", "Events Kafka has acknowledged", "published")
        buffered = GaugeMetricFamily("ebbflow_producer_buffered_events", "Events held for Kafka", labels=["feature"])
        for feature, counters in self._counters.items():
            buffered.add_metric([feature], counters["buffered"])
        yield buffered
        yield GaugeMetricFamily(
            "ebbflow_producer_cpu_percent",
            "CPU time of the producer process, in percent of one core",
            value=self._own_share.percent or 0.0,
        )

    def _counter(self, name: str, meaning: str, counter: str) -> Metric:
        family = CounterMetricFamily(name, meaning, labels=["feature"])
        for feature, counters in self._counters.items():
            family.add_metric([feature], counters[counter])
        return family

    def _lost(self) -> Metric:
        family = CounterMetricFamily(
            "ebpf_events_lost", "Events lost, by stage; by CPU where it is known", labels=["feature", "stage", "cpu"]
        )
        for feature, counters in self._counters.items():
            for (stage, cpu), events in sorted(losses(counters, self._losses[feature]).items()):
                family.add_metric([feature, stage, "" if cpu < 0 else str(cpu)], events)
        return family

    def _unseen_family(self) -> Metric:
        family = CounterMetricFamily(
            "ebpf_unseen", "What went by unseen, or could not be counted, by cause", labels=["feature", "cause"]
        )
        for feature, causes in self._unseen.items():
            for cause, count in causes.items():
                family.add_metric([feature, cause], count)
        return family

    def _map_usage(self) -> Metric:
        family = GaugeMetricFamily(
            "ebpf_map_usage_percent", "How full a kernel map or ring is", labels=["feature", "map"]
        )
        for feature, maps in self._maps.items():
            for name, usage in maps.items():
                family.add_metric([feature, name], _PERCENT * usage)
        return family

    def _cpu_usage(self) -> Metric:
        family = GaugeMetricFamily(
            "ebpf_cpu_usage_percent",
            "CPU time of the kernel programs, in percent of one core; absent unless kernel.bpf_stats_enabled is 1",
            labels=["feature"],
        )
        for feature, share in self._kernel_share.items():
            if share.percent is not None:
                family.add_metric([feature], share.percent)
        return family


def losses(counters: Mapping[str, int], by_cpu: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
    """All that is lost, by stage and CPU; -1 for no CPU.

    What `counters` call lost and no CPU is known of is the stage "kernel".
    """
    told = {place: events for place, events in by_cpu.items() if events}
    totals = {(stage, -1): counters[name] for name, stage in _STAGES.items()}
    totals["kernel", -1] = max(totals["kernel", -1] - sum(told.values()), 0)
    return totals | told


def own_cpu_s(stat: Path = Path("/proc/self/stat")) -> float:
    """User and system time of a process: fields 14 and 15 of /proc/PID/stat, see proc(5)."""
    fields = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _CLOCK_TICK_S
