"""Finds producers, processors and sinks by name.

Two sources: the entry-point group `ebbflow.<group>` of every installed package, and every module of the package of
that name in this checkout, so that a new file is found without being installed again. Where both know a name, the
checkout's own wins. A part of another package that cannot be imported is told in a warning and left out.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Literal

from ebbflow.errors import ConfigError
from ebbflow.telemetry import logger

Group = Literal["producers", "processors", "sinks"]

log = logger(__name__)


def find(group: Group) -> dict[str, type]:
    """Every part of a group by its name, sorted."""
    found = dict(_from_entry_points(group)) | dict(_from_package(group))
    return dict(sorted(found.items()))


def get(group: Group, name: str) -> type:
    """One part.

    Raises:
        ConfigError: nobody has that name; the hint lists those that exist.
    """
    found = find(group)
    if name not in found:
        known = ", ".join(found) or "none is installed"
        raise ConfigError(f"there is no {group.removesuffix('s')} named {name!r}", hint=f"known {group}: {known}")
    return found[name]


def _from_entry_points(group: Group) -> Iterator[tuple[str, type]]:
    for entry in entry_points(group=f"ebbflow.{group}"):
        part = _load(group, entry)
        if part is not None:
            yield entry.name, part


def _load(group: Group, entry: EntryPoint) -> type | None:
    """The class, or None with a warning: another package's fault must not stop ours."""
    try:
        part = entry.load()
    except Exception as error:  # noqa: BLE001 - importing foreign code may raise anything
        package = entry.dist.name if entry.dist is not None else entry.value
        log.warning("part cannot be loaded", group=group, name=entry.name, package=package, error=repr(error))
        return None
    if not inspect.isclass(part):
        log.warning("part is not a class", group=group, name=entry.name, value=entry.value)
        return None
    return part


def _from_package(group: Group) -> Iterator[tuple[str, type]]:
    for module in _modules(group):
        try:
            members = vars(importlib.import_module(module))
        except ImportError as error:
            # Ours, but it may need what is not installed here: bcc for producers.
            log.warning("part cannot be loaded", group=group, name=module, error=repr(error))
            continue
        yield from _parts(module, members.values())


def _modules(group: Group) -> Iterator[str]:
    try:
        package = importlib.import_module(group)
    except ImportError:
        return
    for info in pkgutil.iter_modules(package.__path__):
        if not info.name.startswith("_"):
            yield f"{group}.{info.name}"


def _parts(module: str, members: Iterable[object]) -> Iterator[tuple[str, type]]:
    """Concrete classes defined in this very module that carry a name and can be made from the configuration."""
    for member in members:
        if not inspect.isclass(member) or member.__module__ != module or inspect.isabstract(member):
            continue
        name = getattr(member, "name", None)
        if isinstance(name, str) and hasattr(member, "from_config"):
            yield name, member
