"""What all features of one producer process share: what is watched, who processes are, where rows come from."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from urllib.parse import urlsplit

from ebbflow.component import Producer
from ebbflow.config import Config
from ebbflow.errors import ConfigError
from ebbflow.identity import Processes, read_host
from ebbflow.kernel.btf import Btf
from ebbflow.kernel.loader import tracepoint_has
from ebbflow.kernel.offsets import Members, offset_flags
from ebbflow.kernel.targets import parse_targets
from ebbflow.kernel.watch import Watch
from ebbflow.producing.batching import Origin
from ebbflow.producing.process_dictionary import ProcessDictionary


class Shared:
    """One per producer process.

    The order matters: `load`, then every feature loads and attaches its program, then `start`; in the end every
    feature closes, then `close`.

    Raises:
        ConfigError: nothing to watch, or a target that does not exist.
    """

    def __init__(self, config: Config) -> None:
        self.targets = parse_targets(config.capture.targets)
        if not self.targets:
            raise ConfigError(
                "nothing to watch", hint="set capture.targets, or pass --pid, --exe, --cgroup, --port or --all"
            )
        self.host = read_host()
        self.run_id = time.time_ns()
        self._excluded_ports = excluded_ports(config)
        self._proc = Processes()
        self.processes = ProcessDictionary(self._proc, self.exclude)
        self.source = f"{self.host.host_id}/{self.run_id}"
        self.btf = Btf.load()

    def origin(self, feature: str) -> Origin:
        """What the batches of a feature say of where they come from."""
        return Origin(feature, self.host.host_id, self.host.host_name, self.host.boot_id, self.run_id)

    def definitions(self, offsets: Members | None = None) -> dict[str, int]:
        """The -D flags that every program gets, with a feature's own struct offsets.

        Args:
            offsets: flag to (struct, member), as in ebbflow/kernel/offsets.py.
        """
        return {
            "WATCH_ALL": int(self.targets.everything),
            "WATCH_PORTS": int(bool(self.targets.ports)),
            "HAS_GROUP_DEAD": int(tracepoint_has("sched", "sched_process_exit", "group_dead")),
            **offset_flags(self.btf, offsets or {}),
        }

    def load(self) -> None:
        """Load what keeps the watched processes up to date; nothing is watched yet."""
        self.watch = Watch(self.targets, self.definitions())

    def start(self) -> None:
        """Watch, from now on. Processes of ebbflow itself are left out."""
        ours = [os.getpid()]
        if self.targets.everything or self.targets.ports:
            ours += self._ours()
        self.watch.start(ours, self._excluded_ports)

    def _ours(self) -> Iterable[int]:
        for pid in self._proc.pids():
            info = self._proc.read_process(pid)
            if info is not None and info.is_ours:
                yield pid

    def exclude(self, pid: int) -> None:
        self.watch.exclude(pid)

    def housekeeping(self) -> None:
        """Once a second."""
        self.watch.refresh()

    def detach(self) -> None:
        self.watch.detach()

    def close(self) -> None:
        if hasattr(self, "watch"):
            self.watch.close()


def attach(producers: Sequence[Producer], shared: Shared, stack: ExitStack) -> None:
    """Attach every feature and begin to watch; whatever happens later, `stack` takes all of it off again."""
    shared.load()
    for producer in producers:
        stack.callback(producer.close)
        producer.attach()
    shared.start()
    for producer in producers:
        producer.started()


def excluded_ports(config: Config) -> frozenset[int]:
    """Ports of what the pipeline itself talks to, and those of the configuration: it would observe itself for ever."""
    ports = set(config.capture.exclude_ports) | {config.store.port}
    for address in config.kafka.bootstrap.split(","):
        _, _, port = address.strip().rpartition(":")
        if port.isdecimal():
            ports.add(int(port))
    for url in (config.otlp.endpoint, config.otlp.traces_endpoint):
        port_of_url = urlsplit(url).port if "//" in url else None
        if port_of_url:
            ports.add(port_of_url)
    return frozenset(ports)
