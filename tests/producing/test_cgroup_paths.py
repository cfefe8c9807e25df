from types import SimpleNamespace

import pytest

from ebbflow.producing.cgroup_paths import CgroupPaths, Hierarchies, Hierarchy, parse_mounts

A = "a1" * 32
HYBRID = """\
22 1 0:20 / /proc rw - proc proc rw
30 22 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
31 22 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 22 0:28 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
33 22 0:29 /docker/b /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


def test_parse_mounts_hybrid_has_both_and_prefers_memory():
    found = parse_mounts(HYBRID)
    assert (str(found.unified.mount), found.unified.root) == ("/sys/fs/cgroup/unified", "/docker/b")
    assert (str(found.legacy.mount), found.legacy.controller) == ("/sys/fs/cgroup/memory", "memory")


def test_parse_mounts_version_2_only():
    found = parse_mounts("33 22 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    assert (str(found.unified.mount), found.legacy) == ("/sys/fs/cgroup", None)


def test_parse_mounts_version_1_without_memory_takes_the_next():
    assert parse_mounts("30 22 0:26 / /c/cpu rw - cgroup cgroup rw,cpu\n").legacy.controller == "cpu"


@pytest.mark.parametrize("text", ["", "nonsense\n", "1 2 0:1 / /x rw - cgroup\n", "1 2 0:1 / / rw - ext4 /dev/a rw\n"])
def test_parse_mounts_without_cgroups_is_empty(text):
    assert parse_mounts(text) == Hierarchies()


@pytest.fixture
def clock():
    return SimpleNamespace(now=0.0)


@pytest.fixture
def trees(tmp_path):
    """Both versions: the container is in version 1, the unit in version 2."""
    for path in ("v2/system.slice/web.service", f"v1/docker/{A}"):
        (tmp_path / path).mkdir(parents=True)
    return tmp_path


def paths(trees, clock):
    both = Hierarchies(Hierarchy("", trees / "v2"), Hierarchy("memory", trees / "v1"))
    return CgroupPaths(both, lambda: clock.now)


def number(path):
    return path.stat().st_ino


def test_find_in_both_trees(trees, clock):
    found = paths(trees, clock).find(number(trees / "v2/system.slice/web.service"), number(trees / f"v1/docker/{A}"))
    assert (found.path, found.container_id) == ("/system.slice/web.service", A)
    assert found.paths == ("/system.slice/web.service", f"/docker/{A}")


def test_find_root_in_one_tree_gives_way_to_the_other(trees, clock):
    found = paths(trees, clock).find(number(trees / "v2"), number(trees / f"v1/docker/{A}"))
    assert (found.path, found.container_id) == (f"/docker/{A}", A)


def test_find_a_cgroup_that_is_gone_is_remembered(trees, clock):
    known, directory = paths(trees, clock), trees / f"v1/docker/{A}"
    wanted = number(directory)
    assert known.find(0, wanted).container_id == A
    directory.rmdir()
    clock.now = 60.0
    assert known.find(0, wanted).container_id == A


def test_find_a_cgroup_made_since_is_looked_for_when_due(trees, clock):
    known = paths(trees, clock)
    known.find(0, number(trees / "v1"))
    made = trees / f"v1/docker/{'b' * 64}"
    made.mkdir()
    assert known.find(0, number(made)).path == ""
    clock.now = 1.0
    assert known.find(0, number(made)).container_id == "b" * 64


def test_find_unknown_number_is_empty_and_zero_is_not_looked_for(trees, clock):
    known = paths(trees, clock)
    assert (known.find(0, 0).path, len(known)) == ("", 0)
    assert known.find(1 << 60, 0).path == ""
    assert len(known) > 0


def test_find_below_a_mounted_part_of_the_tree(trees, clock):
    known = CgroupPaths(Hierarchies(Hierarchy("", trees / "v2", "/docker/x"), None), lambda: clock.now)
    assert known.find(number(trees / "v2/system.slice"), 0).path == "/docker/x/system.slice"
    assert known.find(number(trees / "v2"), 0).path == "/docker/x"


def test_find_without_hierarchies_is_empty(clock):
    assert CgroupPaths(Hierarchies(), lambda: clock.now).find(1, 2).path == ""
