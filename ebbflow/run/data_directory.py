"""The directory of a run: one run at a time, and the demo's files."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

from ebbflow.errors import ConfigError, PermissionDenied
from ebbflow.run.parts import DEMO, Demo


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Hold the directory against another run; it is made where it is missing.

    Raises:
        ConfigError: another run has it.
        PermissionDenied: it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise PermissionDenied(
            f"the data directory {directory}: {error.strerror}", hint="give one that can be written with --data-dir"
        ) from None
    try:
        _lock(lock, directory)
        yield
    finally:
        os.close(lock)


def _lock(lock: int, directory: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise already_running(directory, os.read(lock, 20).decode("ascii", "replace").strip()) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())


def already_running(directory: Path, holder: str) -> ConfigError:
    who = f" (pid {holder})" if holder else ""
    return ConfigError(
        f"an ebbflow run has {directory} already{who}",
        hint=f"stop it with `ebbflow down --data-dir {directory}`, or give another --data-dir and other ports",
    )


def prepare_demo(demo: Demo) -> None:
    """Write nginx's configuration, and forget process ids of a run before."""
    (demo.directory / "tmp").mkdir(parents=True, exist_ok=True)
    for file in demo.pid_files:
        file.unlink(missing_ok=True)
    text = Template((DEMO / "nginx.conf").read_text("utf-8")).substitute(
        directory=demo.directory, nginx_port=demo.nginx_port, shop_port=demo.shop_port
    )
    (demo.directory / "nginx.conf").write_text(text, "utf-8")
