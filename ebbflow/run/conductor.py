"""Starts the parts in order, looks after them, stops them in order.

A part that ends while all is being started fails the run at once, with its last words; later it is started again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from ebbflow.errors import DependencyError
from ebbflow.run.data_directory import prepare_demo
from ebbflow.run.history import History
from ebbflow.run.logs import Reader, read_last_words
from ebbflow.run.orphans import end_orphans
from ebbflow.run.parts import Plan, make_parts
from ebbflow.run.probes import Probes
from ebbflow.run.supervision import Supervisor
from ebbflow.run.totals import Totals

Say = Callable[[str], None]

_READY_S = 60.0
_FIRST_SPAN_S = 15.0
_POLL_S = 0.05
_LOOK_S = 0.5
_TOTALS_S = 2.0
_DEMO = frozenset({"shop", "nginx"})


class StoppedElsewhere(Exception):
    """Somebody else stops this run."""


class Conductor:
    """One run.

    Args:
        plan: what to run.
        supervisor: runs it.
        probes: tell what is ready.
        say: shows a line to people.
        check: looks whether this machine can run it; called while the first parts come up.
    """

    def __init__(self, plan: Plan, supervisor: Supervisor, probes: Probes, say: Say, check: Callable[[], None]) -> None:
        self._plan = plan
        self._supervisor = supervisor
        self._probes = probes
        self._say = say
        self._check = check
        self._parts = make_parts(plan)
        self._names = [part.name for part in self._parts]
        self._begun_s = time.monotonic()
        self._history = History()
        self._logs = Reader({name: supervisor.log_file(name) for name in self._names})
        health = plan.config.health
        self._ports = {
            "producer": health.producer_port, "processor": health.processor_port, "sink": health.sink_port,
        }  # fmt: skip
        self.totals = Totals({name: f"http://{health.host}:{port}/metrics" for name, port in self._ports.items()})
        self._totals_s = 0.0
        self._watches_gone = False

    def start(self, *, outlives_us: bool = False) -> None:
        """Everything, each part when what it needs is ready.

        Raises:
            EbbflowError: it cannot be done; what was started is for the caller to stop.
        """
        if self._plan.demo is not None:
            prepare_demo(self._plan.demo)
        self._supervisor.launch(self._parts, self._plan.environment, outlives_us=outlives_us)
        self._start("kafka", "store", "shop", "nginx")
        self._check()
        self._step("checks", "this machine can run it: see `ebbflow doctor`")
        self._start_producer()
        self._bring_up_kafka()
        self._create_topics()
        self._wait_for_rest()
        # What ends from here on is told, and not a failure to start.
        self._history.observe(self._supervisor.states(), time.monotonic())
        if self._plan.demo is not None:
            self._run_demo()

    def _start_producer(self) -> None:
        """Compiling its programs takes as long as Kafka's start; until that is up it keeps what it sees."""
        if (demo := self._plan.demo) is not None:
            self._wait_http("nginx", f"{demo.url}/items/1", f"at {demo.url}, in front of the service `shop`")
        self._start("producer")

    def _bring_up_kafka(self) -> None:
        kafka = self._plan.config.kafka
        if self._plan.runs_kafka:
            self._wait("kafka", lambda: self._probes.accepts(kafka))
        self._start("processor", "sink")
        self._probes.require_kafka(kafka, _READY_S)
        self._step("kafka", f"ready at {kafka.bootstrap}")
        # Whoever was up before Kafka has said that it is missing.
        list(self._logs.notices(time.monotonic()))

    def _create_topics(self) -> None:
        are_new = self._probes.create_topics(self._plan.config.kafka)
        self._step("topics", f"{len(are_new)}, {sum(are_new)} of them new")

    def _wait_for_rest(self) -> None:
        config = self._plan.config
        if self._plan.runs_store:
            address = f"{config.store.host}:{config.store.port}"
            self._wait_http("store", f"http://{address}/readyz", f"ready at {address}")
        for name, text in (("processor", "reads raw batches"), ("sink", self._destination())):
            self._wait_http(name, self._ready_url(name), text)
        watched = ", ".join(self._plan.config.capture.targets) or "the demo, and nothing else"
        self._wait_http("producer", self._ready_url("producer"), f"watches {watched}")

    def _run_demo(self) -> None:
        self._start("load")
        self._step("load", "about 20 requests a second")
        if self._plan.runs_store:
            with suppress(DependencyError):
                self._wait("spans", lambda: self._probes.has_spans(self._plan.config.store), _FIRST_SPAN_S)
                self._step("spans", "the first is stored")

    def _destination(self) -> str:
        otlp = self._plan.config.otlp
        return f"exports to {otlp.traces_endpoint or otlp.endpoint or 'the store'}"

    def _ready_url(self, name: str) -> str:
        return f"http://{self._plan.config.health.host}:{self._ports[name]}/readyz"

    def _start(self, *names: str) -> None:
        for name in names:
            if name in self._names:
                self._supervisor.start(name)

    def _wait_http(self, name: str, url: str, text: str) -> None:
        self._wait(name, lambda: self._probes.answers(url))
        self._step(name, text)

    def _wait(self, name: str, is_ready: Callable[[], bool], timeout_s: float | None = None) -> None:
        timeout_s = _READY_S if timeout_s is None else timeout_s
        deadline_s = time.monotonic() + timeout_s
        while not is_ready():
            self._require_all_up()
            if time.monotonic() > deadline_s:
                raise DependencyError(
                    f"{name} is not ready after {timeout_s:g} s", hint=f"see {self._supervisor.log_file(name)}"
                )
            time.sleep(_POLL_S)

    def _require_all_up(self) -> None:
        for state in self._supervisor.states().values():
            if not state.is_up and state.state != "STOPPED":
                raise self._failure(state.name, f"cannot start: it {state.end}")

    def _failure(self, name: str, text: str) -> DependencyError:
        """A part's end as an error, in its own last words."""
        log_file = self._supervisor.log_file(name)
        words = read_last_words(log_file)
        return DependencyError(f"{name} {text}: {words.text}", hint=words.hint or f"its log is {log_file}")

    def _step(self, name: str, text: str) -> None:
        self._say(f"{time.monotonic() - self._begun_s:5.1f} s  {name:<10} {text}")

    def watch(self, seconds: float) -> None:
        """Look after the parts for that long.

        Raises:
            DependencyError: a part cannot be kept running, or the process manager is gone.
            StoppedElsewhere: the run is being stopped by another command.
        """
        deadline_s = time.monotonic() + seconds
        while (left_s := deadline_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _LOOK_S))
            self._look(time.monotonic())

    def _look(self, now_s: float) -> None:
        states = self._supervisor.states()
        if any(state.state in {"STOPPED", "STOPPING"} for state in states.values()):
            raise StoppedElsewhere
        for event in self._history.observe(states, now_s):
            if event.gives_up:
                raise self._failure(event.name, event.text)
            self._say(f"{event.name} {event.text}")
            if event.ended and event.name in _DEMO:
                self._watches_gone = True
                # Workers outlive an nginx that was killed.
                end_orphans(self._supervisor.pid, keep=[state.pid for state in states.values()])
        for name, notice in self._logs.notices(now_s):
            self._say(f"{name}: {notice}")
        if self._watches_gone:
            self._watch_demo_again({name: state.pid for name, state in states.items()})
        if now_s - self._totals_s >= _TOTALS_S:
            self._totals_s = now_s
            self.totals.refresh()

    def _watch_demo_again(self, pids: dict[str, int]) -> None:
        """The producer reads the demo's process ids at its start."""
        if self._plan.demo is None:
            return
        texts = [file.read_text("ascii").strip() for file in self._plan.demo.pid_files if file.exists()]
        if texts == [str(pids["nginx"]), str(pids["shop"])]:
            self._watches_gone = False
            self._supervisor.ask_to_end("producer")
