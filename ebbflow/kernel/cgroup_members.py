"""Which controller of version 1 of the cgroups a program looks at: its number in this kernel, from BTF."""

from __future__ import annotations

from ebbflow.kernel.btf import Btf, Kind

_ENUM = "cgroup_subsys_id"
NO_SUBSYSTEM = -1
# The kernel's names for two controllers are older than the names people know.
_NAMES = {"blkio": "io"}


def subsystem_number(btf: Btf, controller: str) -> int:
    """Index into `css_set.subsys`; NO_SUBSYSTEM when this kernel was built without the controller, or none is asked."""
    return _enumerators(btf, _ENUM).get(f"{_NAMES.get(controller, controller)}_cgrp_id", NO_SUBSYSTEM)


def _enumerators(btf: Btf, name: str) -> dict[str, int]:
    """Members of an enum (values are unsigned); empty when the kernel has none of that name."""
    wanted = name.encode()
    for start in btf.starts[1:]:
        info = btf.words[start + 1]
        if info >> 24 & 0x1F == Kind.ENUM and info & 0xFFFF and _text(btf, btf.words[start]) == wanted:
            places = range(start + 3, start + 3 + 2 * (info & 0xFFFF), 2)
            return {_text(btf, btf.words[place]).decode(): btf.words[place + 1] for place in places}
    return {}


def _text(btf: Btf, at: int) -> bytes:
    return btf.strings[at : btf.strings.index(b"\0", at)]
