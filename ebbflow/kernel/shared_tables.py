"""Tables that several programs of this process use: one program owns a table, the others name it as "extern".

A table of another program is put in place of the own one by dup2(2): the descriptor keeps its number, which is what
the instructions hold until they are loaded, and from then on it is the owner's map. The map lives while anyone has it.
See ebbflow/kernel/source.py for why BCC's own way is not used.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from ebbflow.errors import KernelError
from ebbflow.kernel.source import EXTERN_TYPE

# enum bpf_map_type, and how BPF_TABLE names it.
_TYPES = {
    1: "hash", 2: "array", 3: "prog", 5: "percpu_hash", 6: "percpu_array", 7: "stacktrace", 9: "lru_hash",
    10: "lru_percpu_hash", 11: "lpm_trie",
}  # fmt: skip
_SHAPE = ("map_type", "key_size", "value_size", "max_entries", "map_flags")
# Owner (by its identity) -> table -> descriptor.
_owners: dict[int, dict[str, int]] = {}


def shape(fd: int) -> dict[str, int]:
    """Type, sizes and flags of a map, from /proc/self/fdinfo."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{fd}").read_text("ascii").splitlines())
    return {name: int(fields[name], 0) for name in _SHAPE}


def publish(owner: object, tables: Mapping[str, int]) -> None:
    """Let other programs have these tables, by name, until the owner withdraws."""
    _owners[id(owner)] = dict(tables)


def withdraw(owner: object) -> None:
    _owners.pop(id(owner), None)


def type_flags() -> list[str]:
    """-D flags that tell a program the types of the tables that it may name as extern."""
    types: dict[str, str] = {}
    for tables in _owners.values():
        for name, fd in tables.items():
            number = shape(fd)["map_type"]
            if number in _TYPES:
                types[name] = _TYPES[number]
    return [f'-D{EXTERN_TYPE}{name}="{kind}"' for name, kind in sorted(types.items())]


def join(tables: Mapping[str, int], externs: Collection[str]) -> None:
    """Put the owners' maps in place of these; before any function is loaded.

    Args:
        tables: names and descriptors of the program.
        externs: which of them are another program's.

    Raises:
        KernelError: no program, or several, own a table of that name; or it has another shape.
    """
    for name in externs:
        owned = [held[name] for held in _owners.values() if name in held]
        if len(owned) != 1:
            raise KernelError(
                f"table {name} is owned by {len(owned)} programs of this process",
                hint="load the one program that owns the table first, and close it last",
            )
        ours, theirs = shape(tables[name]), shape(owned[0])
        if ours != theirs:
            raise KernelError(f"table {name} is declared as {ours}, but its owner made it as {theirs}")
        os.dup2(owned[0], tables[name], inheritable=False)
