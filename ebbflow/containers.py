"""Control groups of a process, and the container they name.

Runtimes put the container's id into the cgroup path, each in its own way:

    docker       /docker/ID                              /system.slice/docker-ID.scope
    containerd   /kubepods/…/podUID/ID                   …/cri-containerd-ID.scope    …slice:cri-containerd:ID
    cri-o        /kubepods.slice/…/crio-ID.scope         (crio-conmon-ID.scope is the monitor, not the container)
    podman       /machine.slice/libpod-ID.scope          /libpod_parent/libpod-ID     (likewise libpod-conmon-ID)
    ECS, Fargate /ecs/CLUSTER/TASK/ID                    /ecs/TASK/32 hex digits-NUMBER
    lxc          /lxc/NAME    /lxc.payload.NAME          systemd-nspawn: machine-NAME.scope, systemd-nspawn@NAME.service

ID is 64 hex digits. Containers nest: the innermost one counts. Rootless engines put the same names below
user.slice/user-UID.slice/user@UID.service.

Beside the container, a path can name the pod (Kubernetes writes its uid into the parent of its containers, with `_` for
`-` where systemd makes the cgroups) and systemd's unit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

# In one component of a path: everything a runtime writes before an id ends in one of - : . or is empty.
_HEX_ID = re.compile(r"(?P<prefix>|.*[-:.])(?P<id>[0-9a-f]{64})(?:\.scope)?")
_FARGATE_ID = re.compile(r"[0-9a-f]{32}-\d+")
_LXC_NAME = re.compile(r"lxc\.payload\.(?P<name>.+)")
_NSPAWN_NAME = re.compile(r"(?:systemd-nspawn@(?P<service>.+)\.service|machine-(?P<scope>.+)\.scope)")
_POD = re.compile(
    r"(?:.*-)?pod(?P<uid>[0-9a-f]{8}([-_])[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{12}|[0-9a-f]{32})"
    r"(?:\.slice)?(?::.*)?"
)
# systemd.unit(5); names of its own cgroups below a unit (init.scope of a user's manager) are units, too.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(?:service|scope|socket|mount|swap)")
_SLICE = re.compile(r"[A-Za-z0-9:_.\\@-]+\.slice")
_USER_MANAGER = re.compile(r"user@\d+\.service")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
# What runtimes write before an id, or above it, and who they are.
_RUNTIMES = {
    "docker": "docker", "cri-containerd": "containerd", "nerdctl": "containerd", "containerd": "containerd",
    "k8s.io": "containerd", "crio": "cri-o", "libpod": "podman", "libpod_parent": "podman", "buildkit": "buildkit",
    "ecs": "ecs", "lxc": "lxc", "lxc.payload": "lxc",
}  # fmt: skip
_LXC_PARENTS = frozenset({"lxc", "lxc.payload"})
SHORT_ID_LENGTH = 12
# Processes are many, cgroups few.
_REMEMBERED = 4096


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


@lru_cache(_REMEMBERED)
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


@lru_cache(_REMEMBERED)
def container_runtime(path: str) -> str:
    """Who made the innermost container, as far as the path says so.

    One of docker, containerd, cri-o, podman, buildkit, ecs, lxc, systemd-nspawn; empty where it does not (a bare id
    below /kubepods) and where there is none.
    """
    parts = path.split("/")
    for parent, part in zip(reversed(["", *parts[:-1]]), reversed(parts), strict=True):
        if _component_id(parent, part):
            return _runtime_of(parent, part)
    return ""


def _runtime_of(parent: str, part: str) -> str:
    if _NSPAWN_NAME.fullmatch(part):
        return "systemd-nspawn"
    if _FARGATE_ID.fullmatch(part):
        return "ecs"
    match = _HEX_ID.fullmatch(part)
    if not match:
        return "lxc"
    before = match["prefix"].rstrip("-:.")
    return _RUNTIMES.get(re.split(r"[:/]", before)[-1] or parent, "")


@lru_cache(_REMEMBERED)
def pod_uid(path: str) -> str:
    """Uid of the Kubernetes pod, as its API writes it; of a static pod the 32 hex digits of its hash; else empty."""
    found = (match["uid"] for part in reversed(path.split("/")) if (match := _POD.fullmatch(part)))
    return next(found, "").replace("_", "-")


@lru_cache(_REMEMBERED)
def systemd_unit(path: str) -> str:
    """The systemd unit that a path is in, escapes resolved.

    Of a user's own manager its units (`app-firefox-1.scope`), not user@1000.service; where there are slices only, the
    innermost slice; empty outside of systemd's tree.
    """
    parts = [part for part in path.split("/") if part]
    manager = next((index for index, part in enumerate(parts) if _USER_MANAGER.fullmatch(part)), -1)
    below = _first_unit(parts[manager + 1 :])
    unit = below or (parts[manager] if manager >= 0 else _last_slice(parts))
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), unit)


def _first_unit(parts: list[str]) -> str:
    """Slices come first, then the unit; what is below it is the unit's own affair."""
    for part in parts:
        if _UNIT.fullmatch(part):
            return part
        if not _SLICE.fullmatch(part):
            return ""
    return ""


def _last_slice(parts: list[str]) -> str:
    slices = ""
    for part in parts:
        if not _SLICE.fullmatch(part):
            break
        slices = part
    return slices


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
