import pytest

from ebbflow.kernel.libraries import MappedFile
from ebbflow.producing.allocators import HOOKS, candidates, hooks_of


def mapped(path: str) -> MappedFile:
    return MappedFile("400000-500000", 1, 2, path, deleted=False)


@pytest.mark.parametrize(
    "path",
    [
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/libc-2.31.so",
        "/lib/ld-musl-x86_64.so.1",
        "/usr/lib/libjemalloc.so.2",
        "/usr/lib/libtcmalloc_minimal.so.4",
        "/opt/libmimalloc.so.2.1",
        "/app/server",
    ],
)
def test_candidates_allocators_and_the_program_itself(path):
    assert [file.path for file in candidates([mapped(path)], "/app/server")] == [path]


@pytest.mark.parametrize("path", ["/lib/libcrypt.so.1", "/lib/libm.so.6", "/lib64/ld-linux-x86-64.so.2", "/app/other"])
def test_candidates_nothing_else(path):
    assert candidates([mapped(path)], "/app/server") == []


def test_hooks_of_an_allocator_are_those_it_defines():
    hooks = hooks_of(["malloc", "free", "mmap", "printf"])
    assert [hook.symbol for hook in hooks] == ["malloc", "mmap", "free"]


@pytest.mark.parametrize("functions", [[], ["malloc"], ["free", "calloc"]])
def test_hooks_of_what_is_no_allocator(functions):
    assert hooks_of(functions) == []


def test_hooks_what_gives_memory_back_is_seen_at_its_entry_alone():
    assert {hook.symbol for hook in HOOKS if not hook.leave} == {"free", "munmap"}
