from __future__ import annotations

import platform

import pytest

from ebbflow.symbols import Frame, FrameKind, Symbolizer, ends_early

# Walks its own stack by frame pointers as the kernel does (arch/x86/events/core.c: perf_callchain_user), and prints it.
WALKER = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

__attribute__((noinline, optimize("no-omit-frame-pointer"))) void walk(void) {
	unsigned long frame[2], at = (unsigned long)__builtin_frame_address(0);
	printf("%lx", (unsigned long)walk + 4);
	for (int i = 0; i < 126; i++) {
		struct iovec to = {frame, sizeof frame}, from = {(void *)at, sizeof frame};
		if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != sizeof frame || !frame[1])
			break;
		printf(" %lx", frame[1]);
		at = frame[0];
	}
	puts("");
	fflush(stdout);
}
static volatile int sink;
__attribute__((noinline)) void inner(void) { walk(); sink++; }
__attribute__((noinline)) void outer(void) { inner(); sink++; }
static void *thread(void *arg) { outer(); pause(); return arg; }
static int compare(const void *a, const void *b) { (void)a, (void)b; walk(); pause(); return 0; }

int main(int argc, char **argv) {
	(void)argc;
	pthread_t id;
	int two[2] = {2, 1};
	if (!strcmp(argv[1], "thread")) pthread_create(&id, 0, thread, 0);
	else if (!strcmp(argv[1], "sort")) qsort(two, 2, sizeof *two, compare);
	else outer();
	pause();
	return sink;
}
"""

needs_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64 frame pointers")


def frame(function, kind=FrameKind.NATIVE):
    return Frame(kind, function, 0x1000)


@pytest.mark.parametrize(
    "root", ["_start", "__libc_start_call_main", "start_thread", "__clone3", "runtime.goexit.abi0", "clone3.cold"]
)
def test_a_stack_down_to_where_a_thread_starts_is_complete(root):
    assert not ends_early([frame("leaf"), frame("main"), frame(root)])


@pytest.mark.parametrize(
    "frames", [[], [frame("main")], [frame("start_thread"), frame("main")], [frame("_start"), frame("")]]
)
def test_other_stacks_end_early(frames):
    assert ends_early(frames)


def test_kernel_frames_do_not_count():
    assert not ends_early([frame("do_syscall_64", FrameKind.KERNEL), frame("_start"), frame("entry", FrameKind.KERNEL)])
    assert ends_early([frame("_start", FrameKind.KERNEL)])


@pytest.fixture
def stack_of(compiled, started):
    def walk(flag, how):
        program = compiled("walker" + flag, WALKER, "-O1", flag, "-pthread")
        process = started(program, how)
        addresses = [int(word, 16) for word in process.first_line.split()]
        symbolizer = Symbolizer()
        frames = symbolizer.user(process.pid, 0, addresses)
        return [frame.function for frame in frames], ends_early(frames), symbolizer.skips_callers(frames)

    return walk


@needs_x86_64
@pytest.mark.parametrize(
    ("how", "root"), [("main", ["main", "__libc_start_call_main"]), ("thread", ["thread", "start_thread"])]
)
def test_with_frame_pointers_a_stack_is_complete(stack_of, how, root):
    functions, early, skips = stack_of("-fno-omit-frame-pointer", how)
    assert (functions[:5], early, skips) == (["walk", "inner", "outer", *root], False, False)


@needs_x86_64
@pytest.mark.parametrize("how", ["main", "thread"])
def test_without_frame_pointers_a_stack_ends_early(stack_of, how):
    functions, early, _ = stack_of("-fomit-frame-pointer", how)
    assert functions[:2] == ["walk", "inner"]
    assert "outer" not in functions
    assert early


@needs_x86_64
def test_a_stack_through_libc_is_told(stack_of):
    functions, early, skips = stack_of("-fno-omit-frame-pointer", "sort")
    assert functions[:2] == ["walk", "compare"]
    assert skips
    assert early or functions[-1] == "__libc_start_call_main"
