"""Control groups of a process, and the container they name.

Runtimes put the container's id into the cgroup path, each in its own way:

    docker       /docker/ID                              /system.slice/docker-ID.scope
    containerd   /kubepods/…/podUID/ID                   …/cri-containerd-ID.scope    …slice:cri-containerd:ID
    cri-o        /kubepods.slice/…/crio-ID.scope         (crio-conmon-ID.scope is the monitor, not the container)
    podman       /machine.slice/libpod-ID.scope          /libpod_parent/libpod-ID     (likewise libpod-conmon-ID)
    ECS, Fargate /ecs/CLUSTER/TASK/ID                    /ecs/TASK/32 hex digits-NUMBER
    lxc          /lxc/NAME    /lxc.payload.NAME          systemd-nspawn: machine-NAME.scope, systemd-nspawn@NAME.service

ID is 64 hex digits. Containers nest: the innermost one counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# In one component of a path: everything a runtime writes before an id ends in one of - : . or is empty.
_HEX_ID = re.compile(r"(?P<prefix>|.*[-:.])(?P<id>[0-9a-f]{64})(?:\.scope)?")
_FARGATE_ID = re.compile(r"[0-9a-f]{32}-\d+")
_LXC_NAME = re.compile(r"lxc\.payload\.(?P<name>.+)")
_NSPAWN_NAME = re.compile(r"(?:systemd-nspawn@(?P<service>.+)\.service|machine-(?P<scope>.+)\.scope)")
_LXC_PARENTS = frozenset({"lxc", "lxc.payload"})
SHORT_ID_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The control groups of one process.

    Attributes:
        path: the one that says most: of cgroup v2 where it is used, else systemd's, else the first that is not `/`.
        paths: every distinct path, version 2 first.
        container_id: full id (64 hex digits) or name; empty outside of containers.
    """

    path: str = ""
    paths: tuple[str, ...] = ()
    container_id: str = ""


def parse_cgroups(text: str) -> Cgroups:
    """Read the text of /proc/PID/cgroup; see cgroups(7). Lines of another form are passed over."""
    rows = [parts for line in text.splitlines() if len(parts := line.split(":", 2)) == 3]  # noqa: PLR2004
    rows.sort(key=_rank)
    paths = tuple(dict.fromkeys(path for _, _, path in rows))
    main = next((path for path in paths if path.strip("/.")), paths[0] if paths else "")
    return Cgroups(main, paths, next((found for path in paths if (found := container_id(path))), ""))


def container_id(path: str) -> str:
    """Id or name of the innermost container in a cgroup path; empty when there is none."""
    parts = path.split("/")
    for parent, part in zip(reversed(["", *parts[:-1]]), reversed(parts), strict=True):
        if found := _component_id(parent, part):
            return found
    return ""


def short_id(container: str) -> str:
    """An id as people write it: 12 digits of 64; names stay whole."""
    return container[:SHORT_ID_LENGTH] if _HEX_ID.fullmatch(container) else container


def _rank(row: list[str]) -> int:
    hierarchy, controllers, _ = row
    return 0 if hierarchy == "0" else 1 if controllers == "name=systemd" else 2


def _component_id(parent: str, part: str) -> str:
    if match := _HEX_ID.fullmatch(part):
        return "" if match["prefix"].endswith("conmon-") else match["id"]
    if _FARGATE_ID.fullmatch(part):
        return part
    if match := _LXC_NAME.fullmatch(part):
        return match["name"]
    if match := _NSPAWN_NAME.fullmatch(part):
        return match["service"] or match["scope"]
    return part if parent in _LXC_PARENTS else ""
