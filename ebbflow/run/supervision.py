"""supervisord: its configuration, its process, and the calls it answers on a Unix socket in the data directory.

Reference: supervisord.org/configuration.html and /api.html. Times in its configuration are whole seconds.
"""

from __future__ import annotations

import http.client
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy  # our own child answers, on a socket that only we can reach

from supervisor.xmlrpc import SupervisorTransport

from ebbflow.errors import ConfigError, DependencyError
from ebbflow.run.history import State
from ebbflow.run.orphans import end_orphans, end_with_parent, take_orphans, wait_until_gone
from ebbflow.run.parts import RANKS, Part

# A part that lives shorter than this has failed to start, and is started again after 1, 2, 3, … seconds.
START_S = 2
START_RETRIES = 5
# Only where nobody orders the stop: supervisord was sent SIGTERM.
_STOP_S = 2
_UP_S = 10.0
_POLL_S = 0.02
# sockaddr_un has 108 bytes with the terminating zero; supervisord adds a suffix of its pid while it binds.
_SOCKET_PATH_BYTES = 96
_GONE = (OSError, http.client.HTTPException)


def configuration(parts: Iterable[Part], directory: Path) -> str:
    """The text of supervisord.conf. Nothing starts by itself; a percent sign is an expansion there."""
    lines = [
        "[unix_http_server]",
        f"file={_escaped(directory / 'supervisor.sock')}",
        "[supervisord]",
        "nodaemon=true",
        "silent=true",
        f"logfile={_escaped(directory / 'logs/supervisord.log')}",
        f"pidfile={_escaped(directory / 'supervisord.pid')}",
        f"childlogdir={_escaped(directory / 'logs')}",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]
    return "\n".join([*lines, *(line for part in parts for line in _program(part, directory)), ""])


def _program(part: Part, directory: Path) -> list[str]:
    return [
        f"[program:{part.name}]",
        f"command={_escaped(shlex.join(part.argv))}",
        f"priority={RANKS[part.name]}",
        "autostart=false",
        "autorestart=true",
        f"startsecs={START_S}",
        f"startretries={START_RETRIES}",
        f"stopwaitsecs={_STOP_S}",
        "redirect_stderr=true",
        f"stdout_logfile={_escaped(directory / 'logs' / part.name)}.log",
        "stdout_logfile_maxbytes=10MB",
        "stdout_logfile_backups=1",
    ]


def _escaped(value: object) -> str:
    return str(value).replace("%", "%%")


class Supervisor:
    """One supervisord in one data directory, started by us or met there.

    Raises:
        ConfigError: the path of the directory is too long for a socket.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._socket = directory / "supervisor.sock"
        if len(os.fsencode(self._socket)) > _SOCKET_PATH_BYTES:
            raise ConfigError(f"{directory}: too long for a socket's path", hint="give a shorter --data-dir")
        self._process: subprocess.Popen[bytes] | None = None

    def log_file(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    @property
    def answers(self) -> bool:
        try:
            self._call("getState")
        except (*_GONE, Fault):
            return False
        return True

    @property
    def pid(self) -> int:
        return int(self._call("getPID"))

    def launch(self, parts: Iterable[Part], environment: Mapping[str, str], *, outlives_us: bool) -> None:
        """Start supervisord with these parts, none of which runs yet; it ends with this thread unless it outlives us.

        Raises:
            DependencyError: it does not come up.
        """
        (self.directory / "logs").mkdir(parents=True, exist_ok=True)
        for log in (self.directory / "logs").glob("*.log*"):
            log.unlink()
        self._socket.unlink(missing_ok=True)
        config = self.directory / "supervisord.conf"
        config.write_text(configuration(parts, self.directory), "utf-8")
        with self.log_file("supervisord").open("ab") as log_file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
                stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file, start_new_session=True,
                env={**os.environ, **environment},
                preexec_fn=take_orphans if outlives_us else end_with_parent,  # noqa: PLW1509 - no thread has been started yet
            )  # fmt: skip
        self._wait_until_up()

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + _UP_S
        while not self.answers:
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise DependencyError("the process manager does not start", hint=f"see {self.log_file('supervisord')}")
            time.sleep(_POLL_S)

    def start(self, name: str) -> None:
        """Start one part, without waiting for it.

        Raises:
            DependencyError: its program cannot be executed.
        """
        try:
            self._call("startProcess", name, False)
        except Fault as fault:
            raise DependencyError(f"{name} cannot be started: {fault.faultString}") from None

    def ask_to_stop(self, name: str) -> None:
        """SIGTERM; nothing where it does not run."""
        with suppress(Fault):
            self._call("stopProcess", name, False)

    def kill(self, name: str) -> None:
        """SIGKILL; nothing where it does not run."""
        with suppress(Fault):
            self._call("signalProcess", name, "KILL")

    def ask_to_end(self, name: str) -> None:
        """SIGTERM as from anybody: it will be started again."""
        with suppress(Fault):
            self._call("signalProcess", name, "TERM")

    def states(self) -> dict[str, State]:
        """Every part's state.

        Raises:
            DependencyError: the process manager is gone.
        """
        try:
            found = self._call("getAllProcessInfo")
        except (*_GONE, Fault) as error:
            raise DependencyError(
                f"the process manager does not answer: {error}", hint=f"see {self.log_file('supervisord')}"
            ) from None
        return {info["name"]: _state(info) for info in found}

    def shutdown(self, timeout_s: float) -> None:
        """End supervisord, and processes whose own parent was killed."""
        with suppress(*_GONE, Fault):
            pid = self.pid
            end_orphans(pid)
            self._call("shutdown")
            wait_until_gone(pid, timeout_s)
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()

    def _call(self, method: str, *arguments: Any) -> Any:
        """One call of its API. A connection each, since supervisord may be another one by now."""
        transport = SupervisorTransport(None, None, serverurl=f"unix://{self._socket}")
        with ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)


def _state(info: Mapping[str, Any]) -> State:
    return State(
        name=info["name"],
        state=info["statename"],
        pid=info["pid"],
        exit_status=info["exitstatus"],
        spawn_error=info["spawnerr"],
    )
