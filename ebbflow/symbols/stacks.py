"""Whether a stack is complete: what frame pointers can and cannot reach."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ebbflow.symbols.frames import Frame, FrameKind

# Functions that no function called: where threads begin, by C library, language and linker.
_STARTS = frozenset({
    "_start", "__libc_start_main", "__libc_start_call_main", "__libc_start_main_impl", "generic_start_main",
    "start_thread", "clone", "__clone", "clone3", "__clone3", "thread_start", "_dl_start_user", "_dl_start",
    "__libc_start_main_stage2", "libc_start_main_stage2",  # musl; there `start` begins a thread, too common a name
    "runtime.goexit", "runtime.mstart", "runtime.mstart0", "runtime.rt0_go", "_rt0_amd64", "_rt0_amd64_linux",
    "runtime.rt0_go.abi0", "runtime.goexit.abi0", "runtime.mstart.abi0",
})  # fmt: skip
_VARIANT = re.compile(r"\.(?:constprop|isra|part|cold|lto_priv)\b.*")


def ends_early(frames: Sequence[Frame]) -> bool:
    """Whether the outermost user frame of a stack is not where a thread starts: callers are missing.

    `frames` are leaf first; kernel frames among them do not count. The rule is by name alone: complete means that the
    last user frame is `_start`, glibc's or musl's caller of main or of a thread's function, or a Go stack's bottom.
    A stack without user frames ends early, as does one in a file whose start function has no name.

    What it gets wrong:

    - A frame lost in the middle is not seen. Code without frame pointers that leaves %rbp alone (memcpy in Debian 12's
      libc) hides only its own caller: the rest is right and the stack counts as complete.
      `Symbolizer.skips_callers` tells of those.
    - Stale words on the stack can look like a chain to a start function: complete, though frames in between are wrong.
    - A start function that is not in the list (another C library, a hand-made stack of coroutines, a 32-bit program) or
      that has no name: marked, though nothing is missing. glibc's two are found in a stripped x86-64 libc, too.
    - A stack of 127 frames, the kernel's limit, is marked: it does end early, but not for want of frame pointers.
    """
    outermost = next((frame for frame in reversed(frames) if frame.kind is not FrameKind.KERNEL), None)
    return outermost is None or not is_start(outermost)


def is_start(frame: Frame) -> bool:
    """Whether a frame is where a thread starts."""
    return _VARIANT.sub("", frame.function) in _STARTS
