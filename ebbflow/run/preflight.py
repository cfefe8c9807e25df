"""What is looked at before and while a run starts, so that it fails early and with the command that mends it."""

from __future__ import annotations

import os

from ebbflow.broker import HOST
from ebbflow.config import Config
from ebbflow.doctor import examine, machine, services
from ebbflow.errors import DependencyError, PermissionDenied
from ebbflow.run.parts import Plan

_OWN_HINT = "stop that run with `ebbflow down` (--data-dir where it has its own), or use other ports"


def require_rights_and_ports(plan: Plan) -> None:
    """What is cheap to know before anything starts.

    Raises:
        PermissionDenied: not root.
        DependencyError: a port that we need is taken.
    """
    if os.geteuid() != 0:
        raise PermissionDenied("loading BPF programs needs root", hint="run it with sudo; see `ebbflow doctor`")
    config = plan.config
    wanted = []
    if plan.runs_kafka and (port := services.first_port(config.kafka.bootstrap)):
        wanted += [("kafka", HOST, port, "kafka.bootstrap"), ("kafka", HOST, port + 1, "kafka.bootstrap")]
    if plan.runs_store:
        wanted.append(("store", config.store.host, config.store.port, "store.port"))
    for check in (machine.port(*which) for which in wanted):
        if check.status != "ok" or "held" in check.value:
            name = check.name.removeprefix("port.")
            raise DependencyError(f"{name} cannot start: port {check.value}", hint=check.hint or _OWN_HINT)


def require_machine(config: Config) -> None:
    """All that doctor knows and that does not take long.

    Raises:
        DependencyError: the first thing that is in the way.
    """
    failures = [check for check in examine(config, programs=tuple) if check.blocks]
    failures = [check for check in failures if not check.name.startswith("port.")]
    if failures:
        more = f" (and {len(failures) - 1} more: `ebbflow doctor`)" if len(failures) > 1 else ""
        raise DependencyError(f"{failures[0].name}: {failures[0].value}{more}", hint=failures[0].hint)
