"""Paths of control groups by the number that the kernel program gives: the inode number of their directory.

A process that ended before /proc could be read has left only that number. Version 2 has one tree; of version 1, where
it is mounted, one hierarchy serves: container engines and systemd give every one the same path. Hosts with both
(hybrid) usually have the containers in version 1 and `/` in version 2, or the other way round, so both are asked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ebbflow.containers import Cgroups, parse_cgroups

# Of version 1, the first of these that is mounted: every engine uses them.
_CONTROLLERS = ("memory", "pids", "cpu", "cpuacct", "devices", "freezer", "cpuset", "blkio")
_MOST = 65_536
# Looking through the trees is repeated when so many times the time it took have passed, and never sooner than this.
_REST = 50
_LEAST_S = 0.05


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted tree of cgroups.

    Attributes:
        controller: of version 1, the one that was chosen; empty for version 2.
        mount: its directory.
        root: the path of the cgroup that is mounted there; `/` but inside of containers.
    """

    controller: str
    mount: Path
    root: str = "/"


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """The two trees that are looked into; either may be missing."""

    unified: Hierarchy | None = None
    legacy: Hierarchy | None = None


def parse_mounts(text: str) -> Hierarchies:
    """Read the text of /proc/self/mountinfo; see proc(5)."""
    unified: Hierarchy | None = None
    legacy: dict[str, Hierarchy] = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), [*after.split(), "", "", ""][:3]
        if kind == "cgroup2" and unified is None:
            unified = Hierarchy("", Path(fields[4]), fields[3])
        elif kind == "cgroup":
            for controller in options.split(","):
                legacy.setdefault(controller, Hierarchy(controller, Path(fields[4]), fields[3]))
    chosen = next((legacy[controller] for controller in _CONTROLLERS if controller in legacy), None)
    return Hierarchies(unified, chosen)


class CgroupPaths:
    """Finds paths by number. What is not known yet is looked for, but not without end: see `_REST`.

    Numbers are kept when their cgroup is gone, up to 65,536 of each tree; the first met is forgotten first.
    """

    def __init__(self, hierarchies: Hierarchies, now_s: Callable[[], float] = time.monotonic) -> None:
        self.hierarchies = hierarchies
        self._now_s = now_s
        self._known: dict[tuple[str, int], str] = {}
        self._next_s = now_s()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, unified_id: int, legacy_id: int) -> Cgroups:
        """What the two numbers mean; empty for those that nobody knows."""
        unified, legacy = self.hierarchies.unified, self.hierarchies.legacy
        lines = []
        if unified is not None and (path := self._path(unified, unified_id)):
            lines.append(f"0::{path}")
        if legacy is not None and (path := self._path(legacy, legacy_id)):
            lines.append(f"1:{legacy.controller}:{path}")
        return parse_cgroups("\n".join(lines))

    def _path(self, tree: Hierarchy, number: int) -> str:
        key = (tree.controller, number)
        if number and key not in self._known and self._now_s() >= self._next_s:
            self._look()
        return self._known.get(key, "")

    def _look(self) -> None:
        begin_s = self._now_s()
        for tree in (self.hierarchies.unified, self.hierarchies.legacy):
            if tree is not None:
                for number, path in _directories(tree):
                    self._known[tree.controller, number] = path
        while len(self._known) > 2 * _MOST:
            del self._known[next(iter(self._known))]
        end_s = self._now_s()
        self._next_s = end_s + max(_LEAST_S, _REST * (end_s - begin_s))


def _directories(tree: Hierarchy) -> Iterator[tuple[int, str]]:
    """Number and path of every cgroup of a tree; those that vanish meanwhile are passed over."""
    root = "" if tree.root == "/" or tree.root.startswith("/..") else tree.root
    waiting = [(os.fspath(tree.mount), root)]
    while waiting:
        directory, path = waiting.pop()
        try:
            yield os.stat(directory).st_ino, path or "/"  # noqa: PTH116 - thousands of them, without an object each
            with os.scandir(directory) as entries:
                waiting += [(entry.path, f"{path}/{entry.name}") for entry in entries if entry.is_dir()]
        except OSError:
            continue
