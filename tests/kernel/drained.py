"""A child of test_capabilities.py: attaches, drops its rights, and says as JSON what it can still do.

drained.py PID_OF_ANOTHER_USER KEEP...
"""

import ctypes
import json
import os
import sys
import threading
from pathlib import Path

from ebbflow.errors import EbbflowError
from ebbflow.kernel.capabilities import drop_all_but, mask_in, names_of, threads_with_more
from ebbflow.kernel.loader import Program
from ebbflow.kernel.ring import Ring

SOURCE = Path(__file__).with_name("probed.c")
LIBC = next(Path(line.split()[5]) for line in Path("/proc/self/maps").read_text().splitlines() if "/libc.so" in line)
CALLS = 23


def outcome(call):
    try:
        return str(call())
    except (EbbflowError, OSError) as error:
        return f"{type(error).__name__}: {error}"


def main(other, keep):
    program = Program(SOURCE, {"PID": os.getpid()})
    program.probes.attach_raw_tracepoint("sys_enter", "on_raw")
    program.load("on_call", 2)
    ring = Ring(program.map("ring").map_fd, 8 * 4096)
    stop = threading.Event()
    early = threading.Thread(target=stop.wait, daemon=True)
    early.start()
    remain = drop_all_but(keep)
    for _ in range(CALLS):
        os.getppid()
    told = {
        "effective": sorted(remain.effective),
        "permitted": sorted(remain.permitted),
        "bounding": sorted(remain.bounding),
        "threads_with_more": list(threads_with_more(keep)) == [early.native_id],
        "drained_bytes": len(ring.read(1 << 20).data),
        "hits": program.map("hits")[2].value,
        "written": outcome(lambda: program.map("hits").__setitem__(ctypes.c_int(9), ctypes.c_uint64(7))),
        "environ": outcome(lambda: first_variable(other)),
        "load": outcome(lambda: Program(SOURCE, {"PID": 1})),
        "attach": outcome(lambda: program.probes.attach_uprobe(LIBC, "getppid", "on_call").kind),
        "started": sorted(effective_of_a_child()),
    }
    stop.set()
    early.join()
    ring.close()
    program.close()
    json.dump(told, sys.stdout)


def first_variable(pid):
    return Path(f"/proc/{pid}/environ").read_bytes().partition(b"\0")[0].decode()


def effective_of_a_child():
    """What a program of root's gets from exec(2)."""
    read, write = os.pipe()
    pid = os.posix_spawn("/bin/cat", ["cat", "/proc/self/status"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)])
    os.close(write)
    text = os.fdopen(read).read()
    os.waitpid(pid, 0)
    return names_of(mask_in(text))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
