"""The walk that python311.py gives offsets for, done by a BPF program at the moment of each sample."""

from __future__ import annotations

import sys
import time

import pytest

from ebbflow.symbols import python311
from ebbflow.symbols.python311 import PythonCode

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="looks at CPython 3.11"),
]

SAMPLES = 307
PROGRAM = """
def most():
    return sum(i * i for i in range(70000))
def less():
    return sum(i * i for i in range(20000))
def run():
    while True:
        most()
        less()
print("ready", flush=True)
run()
"""
WALK = rb"""
struct row { u64 frames; u64 code[128]; };
BPF_PERCPU_ARRAY(scratch, struct row, 1);
BPF_QUEUE(rows, struct row, 2048);
BPF_ARRAY(misses, u64, 1);

static inline u64 word(u64 at) {
	u64 value = 0;
	bpf_probe_read_user(&value, sizeof(value), (void *)at);
	return value;
}

int sample(void *ctx) {
	u64 id = bpf_get_current_pid_tgid();
	u32 zero = 0;
	if (id >> 32 != WATCHED)
		return 0;
	struct row *row = scratch.lookup(&zero);
	if (!row)
		return 0;
	u64 thread = word(word(RUNTIME + RUNTIME_INTERPRETERS_HEAD) + INTERPRETER_THREADS_HEAD);
	for (int i = 0; i < 16 && thread && word(thread + THREAD_NATIVE_ID) != (u32)id; i++)
		thread = word(thread + THREAD_NEXT);
	u64 frame = thread ? word(word(thread + THREAD_CFRAME) + CFRAME_CURRENT_FRAME) : 0;
	row->frames = 0;
	for (int i = 0; i < 128 && frame; i++) {
		row->code[i] = word(frame + FRAME_CODE);
		frame = word(frame + FRAME_PREVIOUS);
		row->frames = i + 1;
	}
	if (!row->frames || rows.push(row, 0))
		misses.increment(0);
	return 0;
}
"""
NAMES = (
    "RUNTIME_INTERPRETERS_HEAD", "INTERPRETER_THREADS_HEAD", "THREAD_NATIVE_ID", "THREAD_NEXT", "THREAD_CFRAME",
    "CFRAME_CURRENT_FRAME", "FRAME_CODE", "FRAME_PREVIOUS",
)  # fmt: skip


@pytest.fixture
def load():
    from bcc import BPF, PerfSWConfig, PerfType

    loaded = []

    def attach(flags):
        bpf = BPF(text=WALK, cflags=flags)
        loaded.append(bpf)
        bpf.attach_perf_event(
            ev_type=PerfType.SOFTWARE, ev_config=PerfSWConfig.CPU_CLOCK, fn_name=b"sample", sample_freq=199
        )
        return bpf

    yield attach
    for bpf in loaded:
        bpf.cleanup()


def test_every_sample_leads_to_named_frames_from_the_module_on(load, started):
    process = started(sys.executable, "-S", "-c", PROGRAM)
    code = PythonCode(process.pid)
    offsets = [f"-D{name}={getattr(python311, name)}" for name in NAMES]
    bpf = load([f"-DWATCHED={process.pid}", f"-DRUNTIME={code.runtime.address}ULL", *offsets])
    rows, until = [], time.monotonic() + 60
    while len(rows) < SAMPLES and time.monotonic() < until:
        rows += bpf[b"rows"].values()
        time.sleep(0.05)
    stacks = [[frame.function for frame in code.frames(list(row.code[: row.frames]))] for row in rows]
    assert len(stacks) >= SAMPLES
    assert {stack[-1] for stack in stacks} == {"<module>"}
    assert {name for stack in stacks for name in stack} <= {
        "<module>", "run", "most", "less", "most.<locals>.<genexpr>", "less.<locals>.<genexpr>",
    }  # fmt: skip
    assert sum("most" in stack for stack in stacks) > sum("less" in stack for stack in stacks)
    assert bpf[b"misses"][0].value == 0
