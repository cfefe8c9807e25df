"""What `ebbflow run` runs: every part's command, its rank in the order of stopping, and the settings that all share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ebbflow.broker import HOST
from ebbflow.config import ENV_PREFIX, Config, Loaded
from ebbflow.identity import OURS

DEMO = Path(__file__).parents[2] / "demo"
# What feeds stops before what is fed: the highest rank first, equal ranks together.
RANKS = {"kafka": 1, "store": 1, "processor": 2, "sink": 2, "producer": 3, "shop": 4, "nginx": 4, "load": 5}
_HEALTH = ("health.producer_port", "health.processor_port", "health.sink_port")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process under supervision.

    Attributes:
        name: also of its log.
        command: argv; must stay in the foreground.
        ours: belongs to the pipeline, which never watches itself; the demo does not.
    """

    name: str
    command: tuple[str, ...]
    ours: bool = True

    @property
    def argv(self) -> list[str]:
        """The command as it is executed: marked as ours or not, and ending with the process manager."""
        mark = [f"{OURS}={self.name}"] if self.ours else ["-u", OURS, "-u", "SUPERVISOR_ENABLED"]
        return ["setpriv", "--pdeathsig", "TERM", "env", *mark, *self.command]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """An nginx in front of a small service, and who asks them."""

    directory: Path
    nginx_port: int
    shop_port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.nginx_port}"

    @property
    def pid_files(self) -> tuple[Path, Path]:
        return self.directory / "nginx.pid", self.directory / "shop.pid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run, decided.

    Attributes:
        data_dir: absolute; everything that is kept is in it.
        config: as every part sees it.
        environment: settings for all parts, beyond our own environment.
        runs_kafka: whether a Kafka of our own is part of it.
        runs_store: whether the embedded store is.
        demo: None where the user's own targets are watched.
    """

    data_dir: Path
    config: Config
    environment: Mapping[str, str]
    runs_kafka: bool
    runs_store: bool
    demo: Demo | None


def derived_settings(loaded: Loaded, data_dir: Path, free_port: Callable[[], int]) -> dict[str, Any]:
    """Settings that a run makes for itself where the user has none: dotted key to value.

    Readiness and losses are read from the parts' health ports, so every part gets one, which is never captured.
    """
    origins, config = loaded.origins, loaded.config
    made: dict[str, Any] = {}
    if "store.path" not in origins:
        made["store.path"] = str(data_dir / "store.duckdb")
    ports = {key: getattr(config.health, key.partition(".")[2]) or free_port() for key in _HEALTH}
    made |= {key: port for key, port in ports.items() if not getattr(config.health, key.partition(".")[2])}
    made["capture.exclude_ports"] = [*config.capture.exclude_ports, *ports.values()]
    return made


def as_environment(settings: Mapping[str, Any], config_file: Path | None = None) -> dict[str, str]:
    """Settings as the variables that `ebbflow/config.py` reads; a secret is not shown by `ps` there."""
    names = {key: ENV_PREFIX + key.upper().replace(".", "__", 1) for key in settings}
    texts = {
        names[key]: value if isinstance(value, str) else orjson.dumps(value).decode() for key, value in settings.items()
    }
    if config_file is not None:
        texts["EBBFLOW_CONFIG"] = str(config_file.absolute())
    return texts


def make_parts(plan: Plan) -> list[Part]:
    """All parts, in the order in which they are shown."""
    parts = [
        Part(name="kafka", command=_ebbflow("kafka", "--data-dir", str(plan.data_dir / "kafka"))),
        Part(name="store", command=_ebbflow("store")),
        Part(name="processor", command=_ebbflow("processor", "requests")),
        Part(name="sink", command=_ebbflow("sink", "traces")),
    ]
    wanted = {"kafka": plan.runs_kafka, "store": plan.runs_store}
    parts = [part for part in parts if wanted.get(part.name, True)]
    if plan.demo is None:
        return [*parts, Part(name="producer", command=_ebbflow("produce", *plan.config.producer.features))]
    return [*parts, _demo_producer(plan.demo, plan.config.producer.features), *_demo_parts(plan.demo)]


def stop_phases(names: Iterable[str]) -> list[list[str]]:
    """Names of parts by what stops together, first phase first."""
    names = list(names)
    ranks = sorted({RANKS[name] for name in names}, reverse=True)
    return [[name for name in names if RANKS[name] == rank] for rank in ranks]


def _ebbflow(*arguments: str) -> tuple[str, ...]:
    return sys.executable, "-m", "ebbflow.cli", *arguments


def _demo_producer(demo: Demo, features: Iterable[str]) -> Part:
    """Reads the demo's process ids each time it starts: a part that was started again has another."""
    script = 'python=$0 shop=$1 nginx=$2; shift 2; exec "$python" -m ebbflow.cli produce "$@"'
    script += ' --pid "$(cat "$shop")" --pid "$(cat "$nginx")"'
    command = ("sh", "-c", script, sys.executable, *map(str, demo.pid_files), *features)
    return Part(name="producer", command=command)


def _demo_parts(demo: Demo) -> list[Part]:
    _, shop_pid = demo.pid_files
    return [
        Part(
            name="shop",
            command=("env", "OTEL_SERVICE_NAME=shop", *_script("shop.py", demo.shop_port, shop_pid)),
            ours=False,
        ),
        Part(
            name="nginx",
            command=("nginx", "-e", "stderr", "-p", str(demo.directory), "-c", str(demo.directory / "nginx.conf")),
            ours=False,
        ),
        Part(name="load", command=_script("load.py", demo.url), ours=False),
    ]


def _script(name: str, *arguments: object) -> tuple[str, ...]:
    return sys.executable, str(DEMO / name), *map(str, arguments)
