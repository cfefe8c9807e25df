"""A process manager and a world that do as they are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ebbflow.config import KafkaConfig, StoreConfig, load
from ebbflow.errors import NetworkError
from ebbflow.run.history import State
from ebbflow.run.parts import Demo, Plan


def make_plan(data_dir: Path, *, demo: bool = True, **changes) -> Plan:
    ports = {"health.producer_port": 1, "health.processor_port": 2, "health.sink_port": 3}
    config = load(environ={}, flags=ports | changes.pop("flags", {})).config
    watched = Demo(directory=data_dir / "demo", nginx_port=4, shop_port=5) if demo else None
    decided = {"environment": {"EBBFLOW_LOG__LEVEL": "info"}, "runs_kafka": True, "runs_store": True} | changes
    return Plan(data_dir=data_dir, config=config, demo=watched, **decided)


class FakeSupervisor:
    """Remembers what it was asked; parts run as soon as they are started and stop as soon as they are asked to."""

    pid = 4_000_000  # larger than any

    def __init__(self, directory: Path, *, stubborn: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.calls: list[tuple[str, ...]] = []
        self.current: dict[str, State] = {}
        self.stubborn = stubborn
        self.on_states: Callable[[], object] = lambda: None

    def log_file(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def launch(self, parts, environment, *, outlives_us: bool) -> None:
        self.calls.append(("launch", "background" if outlives_us else "foreground"))
        self.current = {part.name: State(name=part.name, state="STOPPED") for part in parts}

    def set(self, name: str, state: str, **values) -> None:
        self.current[name] = State(name=name, state=state, **values)

    def start(self, name: str) -> None:
        self.calls.append(("start", name))
        self.set(name, "RUNNING", pid=100 + len(self.calls))

    def ask_to_stop(self, name: str) -> None:
        self.calls.append(("stop", name))
        if name not in self.stubborn:
            self.set(name, "STOPPED")

    def ask_to_end(self, name: str) -> None:
        self.calls.append(("end", name))

    def kill(self, name: str) -> None:
        self.calls.append(("kill", name))
        self.set(name, "STOPPED")

    def states(self) -> dict[str, State]:
        self.on_states()
        return dict(self.current)

    def shutdown(self, timeout_s: float) -> None:
        self.calls.append(("shutdown",))

    def named(self, call: str) -> list[str]:
        return [arguments[0] for name, *arguments in self.calls if name == call]


class FakeProbes:
    """A world in which everything is ready, or not."""

    def __init__(self, *, ready: bool = True, spans: bool = True, kafka: bool = True) -> None:
        self.ready, self.spans, self.kafka = ready, spans, kafka
        self.asked: list[str] = []

    def answers(self, url: str) -> bool:
        self.asked.append(url)
        return self.ready

    def accepts(self, kafka: KafkaConfig) -> bool:
        self.asked.append("accepts")
        return self.ready

    def require_kafka(self, kafka: KafkaConfig, timeout_s: float) -> None:
        self.asked.append("kafka")
        if not self.kafka:
            raise NetworkError("Kafka: no broker answers", hint="start it")

    def create_topics(self, kafka: KafkaConfig) -> list[bool]:
        self.asked.append("topics")
        return [True, False]

    def has_spans(self, store: StoreConfig) -> bool:
        return self.spans
