from types import SimpleNamespace

from ebbflow.kernel.btf import Kind
from ebbflow.kernel.cgroup_members import NO_SUBSYSTEM, subsystem_number


def types_with(*enums):
    """As much of BTF as is looked at: enums with their members."""
    words, starts, strings = [], [0], b"\0"

    def text(name):
        nonlocal strings
        strings += name.encode() + b"\0"
        return len(strings) - len(name) - 1

    for name, members in enums:
        starts.append(len(words))
        words += [text(name), Kind.ENUM << 24 | len(members), 4]
        for member, value in members.items():
            words += [text(member), value]
    return SimpleNamespace(words=words, starts=starts, strings=strings)


BTF = types_with(
    ("other", {"memory_cgrp_id": 99}), ("cgroup_subsys_id", {"cpu_cgrp_id": 1, "io_cgrp_id": 3, "memory_cgrp_id": 4})
)


def test_subsystem_number_is_that_of_the_kernels_enum():
    assert [subsystem_number(BTF, name) for name in ("memory", "cpu", "blkio")] == [4, 1, 3]


def test_subsystem_number_of_a_controller_that_is_not_built_in_is_none():
    assert subsystem_number(BTF, "freezer") == NO_SUBSYSTEM
    assert subsystem_number(types_with(), "memory") == NO_SUBSYSTEM
