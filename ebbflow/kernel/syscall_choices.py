"""What the settings say of single system calls, as the bytes that bpf/syscalls.c reads: `choices`, one for each number.

Names become numbers here; a name that no kernel has is the user's mistake and is told as one.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ebbflow.errors import ConfigError
from ebbflow.kernel.attach_points import nearby
from ebbflow.kernel.layout import BPF_DIRECTORY, read_header
from ebbflow.kernel.syscall_names import NAMES, NUMBERS, STRINGS

CALLS = 512
_CHOICE = read_header(BPF_DIRECTORY / "syscalls.h").enums["syscalls_choice"]


def numbers_of(names: Iterable[str], setting: str) -> list[int]:
    """Numbers of calls by name.

    Raises:
        ConfigError: no call has that name.
    """
    wanted = list(names)
    for name in wanted:
        if name not in NUMBERS:
            raise ConfigError(f"{setting}: there is no system call {name!r}", hint=nearby(name, NUMBERS))
    return [NUMBERS[name] for name in wanted]


def choices(watch: Iterable[str], slow_except: Iterable[str]) -> npt.NDArray[np.uint8]:
    """What is to be done with each call, shape (CALLS,): bits of `enum syscalls_choice`.

    Args:
        watch: names of the calls that are always events.
        slow_except: names of the calls that are never slow.

    Raises:
        ConfigError: no call has one of these names.
    """
    chosen = np.zeros(CALLS, np.uint8)
    chosen[numbers_of(slow_except, "syscalls.slow_except")] |= _CHOICE["SYSCALLS_MAY_WAIT"]
    for number in numbers_of(watch, "syscalls.watch"):
        chosen[number] |= _CHOICE["SYSCALLS_WATCH"]
        for place in STRINGS.get(NAMES[number], ()):
            chosen[number] |= _CHOICE["SYSCALLS_TEXT"] << place
    return chosen
