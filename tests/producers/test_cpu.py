"""The real program on the real kernel: processes that do known work, judged by their own clocks, by /proc, and by
profile, offcputime and runqlat on the same run. Every test watches only what it started.
"""

import re
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from cpu_seen import FLAGS, SHARES, WITHOUT_FRAME_POINTERS, Profile, Worker, build

from ebbflow.config import load
from ebbflow.producing.frames import ENDS_EARLY, TRUNCATED
from ebbflow.testing.producers import attached
from ebbflow.v1 import raw_pb2
from producers.cpu import CpuProducer

pytestmark = pytest.mark.bpf

# The issue asks for 2 points. A favoured process that works in blocks of 100 ms and more is sampled evenly: each block
# is at most a sample wrong, with a standard deviation of 0.41. 12 blocks in 4 s at 99 Hz make 0.36 points for a share,
# 3 blocks in 1 s at 499 Hz 0.14: two points are more than 5 standard deviations.
TOLERANCE = 0.02
PREEMPTED, SLEEPING, UNINTERRUPTIBLE, STOPPED = range(4)
SHORT, NOT_TAKEN = 16, 32
BURST = 64
ASLEEP = {"sleep_seventy": 0.7, "sleep_twenty": 0.2, "sleep_ten": 0.1}
SLEEPS, SHORT_SLEEPS, WAKES = 13, 101, 23
NS = 1_000_000_000


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return build(tmp_path_factory.mktemp("cpu") / "cpu_work")


@pytest.fixture
def watch():
    """Start a producer on a worker; closed in the end."""

    def start(worker, **settings):
        flags = {f"cpu.{name}": value for name, value in settings.items()}
        config = load(environ={}, flags={"capture.targets": [f"pid:{worker.pid}"], "capture.interval_s": 300, **flags})
        return stack.enter_context(attached(CpuProducer, config.config))

    with ExitStack() as stack:
        yield start


@pytest.fixture
def worker():
    """Start workers; ended in the end."""

    def start(*command, **options):
        made = Worker(*command, **options)
        stack.callback(made.dismiss)
        return made

    with ExitStack() as stack:
        yield start


def shares(spent):
    return {name: ns / sum(spent) for name, ns in zip(SHARES, spent, strict=True)}


@pytest.mark.parametrize(("kind", "frequency_hz"), [("burn", 99), ("burn_shortly", 499)])
def test_samples_show_where_a_program_spends_its_time(work, worker, watch, kind, frequency_hz):
    one = worker(work, kind, favoured=True)
    producer = watch(one, frequency_hz=frequency_hz)
    spent = one.go(producer)
    profile = Profile(producer)
    assert profile.sampled(SHARES) == pytest.approx(SHARES, abs=TOLERANCE)
    assert profile.sampled(SHARES) == pytest.approx(shares(spent), abs=TOLERANCE)
    # As many samples as the program's own CPU time holds periods, but for the time around its work.
    assert len(profile.samples) == pytest.approx(sum(spent) / NS * frequency_hz, rel=0.02)
    assert {int(seen.head["period_ns"]) for seen in profile.samples} == {NS // frequency_hz}
    whole = [seen for seen in profile.samples if seen.user[-1].function in {"__libc_start_call_main", "_start"}]
    assert len(whole) > 0.98 * len(profile.samples)


def test_run_row_tells_what_was_expected_taken_and_spent(work, worker, watch):
    one = worker(work, "burn_shortly", favoured=True)
    producer = watch(one, frequency_hz=99)
    one.go(producer)
    profile = Profile(producer, detach=True)
    ((row, run),) = profile.structs["run"]
    assert (int(row["pid"]), int(row["tid"]), int(row["start_boottime_ns"])) == (0, 0, 0)
    assert int(run["expected"]) == pytest.approx(
        int(run["cpus"]) * (int(row["time_ns"]) - int(row["since_ns"])) / int(run["period_ns"]), abs=1
    )
    assert int(run["taken"]) - int(run["idle"]) - int(run["unwatched"]) == len(profile.samples)
    # A tick or two a CPU may come before or after; idle CPUs of some virtual machines have none.
    assert int(run["taken"]) <= int(run["expected"]) + 2 * int(run["cpus"])
    assert (int(run["frequency_hz"]), int(run["producer_cpu_ns"]) > 0) == (99, True)
    assert profile.kinds["run"] == 1
    producer.aggregate()
    assert producer.held() == 0, "after the end is told there is no other one"


def test_waits_show_where_a_program_sleeps(work, worker, watch):
    one = worker(work, "rest")
    producer = watch(one)
    slept = one.go(producer)
    profile = Profile(producer)
    found = profile.waited(ASLEEP)
    # Preempted on its way to sleep, for longer than it wanted to, it never sleeps: rare, and only on a busy machine.
    missed = sum(SLEEPS - waits for waits, _ in found.values())
    assert set(found) == set(ASLEEP)
    assert 0 <= missed <= min(profile.count_waits(PREEMPTED), 2)
    total_ns = sum(ns for _, ns in found.values())
    measured = {name: ns / total_ns for name, (_, ns) in found.items()}
    truth = {name: ns / sum(slept) for name, ns in zip(ASLEEP, slept, strict=True)}
    assert measured == pytest.approx(truth, abs=TOLERANCE)
    # What the program measured has the system call's own time in it, too.
    assert total_ns == pytest.approx(sum(slept), rel=0.02 + 0.03 * missed)
    stack = next(seen for seen in profile.waits if seen.has("sleep_ten"))
    assert stack.kernel[0].function == "__schedule"
    assert {"hrtimer_nanosleep"} <= set(stack.functions)


def test_every_switch_of_a_thread_is_counted_as_the_kernel_does(work, worker, watch):
    one = worker(work, "rest_shortly")
    producer = watch(one)
    one.wait_asleep()
    voluntary, involuntary = one.switches()
    one.go(producer)
    profile = Profile(producer)
    voluntary_now, involuntary_now = one.switches()
    # The sleep before its work began before the program was attached; the one it is in now is not over.
    slept = voluntary_now - voluntary
    assert profile.count_waits(SLEEPING, UNINTERRUPTIBLE, STOPPED) == slept - 1 >= SHORT_SLEEPS
    assert profile.count_waits(PREEMPTED) == involuntary_now - involuntary
    assert profile.run("switches") == slept + involuntary_now - involuntary


def test_waits_shorter_than_the_limit_are_told_without_a_stack(work, worker, watch):
    one = worker(work, "rest_shortly")
    producer = watch(one, off_cpu_min_s=10.0)
    one.go(producer)
    profile = Profile(producer)
    assert {seen.flags for seen in profile.waits} == {SHORT}
    assert not any(seen.functions for seen in profile.waits)
    assert profile.count_waits(SLEEPING) >= SHORT_SLEEPS
    assert len(profile.waits) == len({int(seen.head["state"]) for seen in profile.waits})


def test_a_thread_that_keeps_switching_has_few_stacks_taken(work, worker, watch):
    one = worker(work, "rest_shortly")
    producer = watch(one, off_cpu_min_s=0, off_cpu_stacks_per_s=1)
    began_s = time.monotonic()
    one.go(producer)
    elapsed_s = time.monotonic() - began_s
    asleep = [seen for seen in Profile(producer).waits if int(seen.head["state"]) == SLEEPING]
    waits = {
        flag: sum(int(seen.head["waits"]) for seen in asleep if seen.flags & NOT_TAKEN == flag) for flag in (0, 32)
    }
    assert BURST <= waits[0] <= BURST + elapsed_s + 1
    assert waits[NOT_TAKEN] >= SHORT_SLEEPS - waits[0] > 0
    assert not any(seen.functions for seen in asleep if seen.flags & NOT_TAKEN)


def test_who_wakes_a_thread_is_told(work, worker, watch):
    one = worker(work, "be_woken")
    producer = watch(one)
    one.go(producer)
    profile = Profile(producer)
    by_itself = [wake for row, wake in profile.structs["wake"] if int(wake["waker_pid"]) == one.pid]
    assert sum(int(wake["waits"]) for wake in by_itself) >= WAKES
    assert {bytes(wake["waker_comm"]) for wake in by_itself} == {b"cpu_work"}
    assert {int(wake["waker_start_boottime_ns"]) for wake in by_itself} == {
        int(row["start_boottime_ns"]) for row, _ in profile.structs["wake"]
    }


def test_two_threads_on_one_cpu_queue_for_each_other(work, worker, watch):
    one = worker(work, "compete")
    producer = watch(one, preempted_stacks=True, off_cpu_min_s=0)
    one.go(producer)
    profile = Profile(producer)
    ((_, queue),) = profile.structs["queue"]
    # Each thread runs for 0.7 s while the other one waits: one second of queueing is less than there must be.
    assert int(queue["total_ns"]) > NS
    assert int(queue["slots"].sum()) == int(queue["waits"])
    assert int(queue["longest_ns"]) <= int(queue["total_ns"])
    # All but the first time a thread runs is a wait that is told with its stack, too.
    preempted = [seen for seen in profile.waits if int(seen.head["state"]) == PREEMPTED]
    assert all(int(seen.head["queued_ns"]) == int(seen.head["total_ns"]) for seen in preempted)
    in_work = sum(int(seen.head["waits"]) for seen in preempted if seen.has("seventy"))
    assert in_work > 0.5 * profile.count_waits(PREEMPTED) > 0
    assert int(queue["waits"]) == profile.count_waits(PREEMPTED, SLEEPING, UNINTERRUPTIBLE, STOPPED) + 2
    assert profile.run("switches") >= profile.count_waits(PREEMPTED, SLEEPING, UNINTERRUPTIBLE, STOPPED)


def test_deep_stacks_are_marked(work, worker, watch):
    one = worker(work, "recurse", favoured=True)
    producer = watch(one, frequency_hz=99)
    one.go(producer)
    profile = Profile(producer)
    deep = [seen for seen in profile.samples if seen.has("deep")]
    assert {seen.flags for seen in deep} == {TRUNCATED}
    assert {len(seen.user) for seen in deep} == {127}
    assert producer.stack_counts()["stacks_truncated"] >= len(deep) > 40
    assert producer.stack_counts()["stacks_ended_early"] <= len(profile.samples) - len(deep)


def test_stacks_without_frame_pointers_are_marked_and_their_share_is_told(tmp_path, worker, watch):
    one = worker(build(tmp_path / "cpu_work", WITHOUT_FRAME_POINTERS), "burn_shortly", favoured=True)
    producer = watch(one, frequency_hz=499)
    one.go(producer)
    profile = Profile(producer)
    early = [seen for seen in profile.samples if seen.flags & ENDS_EARLY]
    assert len(early) > 0.9 * len(profile.samples)
    assert producer.blind_spots()["stacks_ended_early"] >= len(early)
    # The leaf is right all the same.
    leaves = [seen.user[0].function for seen in profile.samples]
    assert {name: leaves.count(name) / len(leaves) for name in SHARES} == pytest.approx(SHARES, abs=TOLERANCE)


def test_frames_of_a_stripped_program_have_its_build_id_and_their_place_in_the_file(tmp_path, worker, watch):
    whole = build(tmp_path / "whole", [*FLAGS, "-Wl,--build-id"])
    stripped = tmp_path / "cpu_work"
    shutil.copy(whole, stripped)
    subprocess.run(["strip", stripped], check=True)
    one = worker(stripped, "burn_shortly", favoured=True)
    producer = watch(one, frequency_hz=499)
    one.go(producer)
    profile = Profile(producer)
    notes = subprocess.run(["readelf", "-n", whole], capture_output=True, text=True, check=True).stdout
    symbols = subprocess.run(["nm", "-S", whole], capture_output=True, text=True, check=True).stdout
    start, size = re.search(r"^(\w+) (\w+) t seventy$", symbols, re.MULTILINE).groups()
    leaves = [seen.user[0] for seen in profile.samples]
    inside = [int(start, 16) <= leaf.file_address < int(start, 16) + int(size, 16) for leaf in leaves]
    assert sum(inside) / len(inside) == pytest.approx(SHARES["seventy"], abs=TOLERANCE)
    assert not any(leaf.function for leaf, mine in zip(leaves, inside, strict=True) if mine)
    mappings = {(m.path, m.build_id) for envelope in profile.envelopes for m in envelope.mappings}
    assert (str(stripped), re.search(r"Build ID: (\w+)", notes)[1]) in mappings
    assert producer.blind_spots()["frames_without_symbol"] >= sum(inside)


def test_without_symbols_there_are_mappings_and_no_names(work, worker, watch):
    one = worker(work, "burn_shortly", favoured=True)
    producer = watch(one, frequency_hz=499, symbols=False)
    one.go(producer)
    profile = Profile(producer)
    frames = [frame for envelope in profile.envelopes for frame in envelope.frames]
    assert {frame.function for frame in frames} == {""}
    assert all(frame.mapping and frame.file_address for seen in profile.samples for frame in seen.user[:1])
    assert not any(seen.flags for seen in profile.samples)


def test_kernel_frames_are_named(work, worker, watch):
    if not int(Path("/proc/kallsyms").read_text("utf-8", "replace").split(maxsplit=1)[0], 16):
        pytest.skip("kallsyms hides addresses here (kernel.kptr_restrict)")
    one = worker(work, "read_zeros", favoured=True)
    producer = watch(one, frequency_hz=499)
    one.go(producer)
    profile = Profile(producer)
    in_kernel = [seen for seen in profile.samples if seen.kernel]
    assert len(in_kernel) > 0.8 * len(profile.samples)
    assert sum(seen.has("vfs_read") for seen in in_kernel) > 0.8 * len(in_kernel)
    assert {frame.kind for seen in in_kernel for frame in seen.kernel} == {raw_pb2.FRAME_KIND_KERNEL}


NODE = """
require('fs').writeSync(1, 'ready\\n');
let sink = 0;
function spin(ms) { const end = performance.now() + ms; while (performance.now() < end) for (let i = 0; i < 1e5; i++) sink += i % 7; }
function seventy() { spin(700); sink++; }
function twenty() { spin(200); sink++; }
function ten() { spin(100); sink++; }
process.stdin.once('data', () => {
  for (let i = 0; i < 4; i++) { seventy(); twenty(); ten(); }
  console.log(sink > 0 ? 1 : 0);
});
"""  # noqa: E501


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js (Debian's nodejs)")
def test_samples_of_node_are_named_by_its_perf_map(tmp_path, worker, watch):
    (tmp_path / "work.js").write_text(NODE)
    command = ["node", "--perf-basic-prof", "--interpreted-frames-native-stack", "work.js"]
    one = worker(*command, favoured=True, folder=tmp_path)  # V8 leaves a log where it runs
    producer = watch(one, frequency_hz=499)
    one.start()
    assert one.answer(producer) == "1\n"
    profile = Profile(producer)
    profile.stacks["sample"] = [seen for seen in profile.samples if any(seen.has(name) for name in SHARES)]
    assert len(profile.samples) > 0.9 * 4 * 499
    assert profile.sampled(SHARES) == pytest.approx(SHARES, abs=TOLERANCE)
    named = next(frame for seen in profile.samples for frame in seen.user if frame.function == "seventy")
    assert named.kind == raw_pb2.FRAME_KIND_JIT
    assert named.file.endswith("work.js")
    Path(f"/tmp/perf-{one.pid}.map").unlink()


def test_a_program_that_becomes_another_one_is_named_anew(work, worker, watch):
    one = worker("sh", "-c", f"echo ready; read _; exec {work} burn_shortly </dev/null")
    producer = watch(one, frequency_hz=499)
    one.start()
    deadline_s = time.monotonic() + 30
    while one.process.poll() is None:
        assert time.monotonic() < deadline_s
        producer.drain()
        time.sleep(0.05)
    profile = Profile(producer)
    assert profile.kinds["exec"] == 1
    assert profile.sampled(["seventy"])["seventy"] == pytest.approx(0.7, abs=0.05)
    assert sum(seen.has("main") for seen in profile.samples) > 0.95 * len(profile.samples)


def folded(text, functions):
    """Sums of a tool's folded stacks ("a;b;c 12"), by those of these functions that are in them."""
    lines = [line.rpartition(" ") for line in text.splitlines() if re.search(r" \d+$", line)]
    return {name: sum(int(n) for stack, _, n in lines if name in stack.split(";")) for name in functions}


def test_profile_sees_the_same(work, worker, watch):
    tool = shutil.which("profile-bpfcc")
    assert tool, "needs Debian's bpfcc-tools"
    one = worker(work, "burn", favoured=True)
    producer = watch(one, frequency_hz=99)
    witness = subprocess.Popen([tool, "-F", "99", "-p", str(one.pid), "-f", "99"], stdout=subprocess.PIPE, text=True)
    wait_attached(witness)
    one.go(producer)
    profile = Profile(producer)
    seen = folded(stop(witness), SHARES)
    total = sum(seen.values())
    # Two samplers that do not look at the same moments: twice the tolerance of one against the truth.
    assert profile.sampled(SHARES) == pytest.approx({name: n / total for name, n in seen.items()}, abs=2 * TOLERANCE)
    assert len(profile.samples) == pytest.approx(total, rel=0.06)


def wait_attached(tool):
    """Until a tool holds BPF programs or perf events: it says nothing when it begins."""
    deadline_s = time.monotonic() + 30
    descriptors = Path(f"/proc/{tool.pid}/fd")
    while tool.poll() is None and time.monotonic() < deadline_s:
        held = [str(fd.readlink()) for fd in descriptors.iterdir() if fd.is_symlink()]
        if any("perf_event" in name or "bpf_link" in name or "raw-tracepoint" in name for name in held):
            time.sleep(0.5)  # the rest of what it attaches
            return
        time.sleep(0.05)
    raise AssertionError("the tool did not attach")


def stop(tool):
    tool.send_signal(2)
    return tool.communicate(timeout=30)[0]


def test_offcputime_sees_the_same(work, worker, watch):
    tool = shutil.which("offcputime")
    assert tool, "needs Debian's libbpf-tools"
    one = worker(work, "rest")
    producer = watch(one)
    witness = subprocess.Popen([tool, "-p", str(one.pid), "99"], stdout=subprocess.PIPE, text=True)
    wait_attached(witness)
    one.go(producer)
    profile = Profile(producer)
    # Stacks of one function a line, leaf first, with the thread and its us behind them.
    stacks = re.split(r"\n\s*\n", stop(witness))
    seen = dict.fromkeys(ASLEEP, 0)
    for stack in stacks:
        for name in ASLEEP:
            if re.search(rf"\b{name}\b", stack):
                seen[name] += int(re.search(r"^\s*(\d+)\s*$", stack, re.MULTILINE)[1])
    mine = {name: ns / 1000 for name, (_, ns) in profile.waited(ASLEEP).items()}
    # Both have their clock read in the tracepoint, one behind the other.
    assert mine == pytest.approx(seen, rel=0.01)


def test_runqlat_counts_the_same(work, worker, watch):
    tool = shutil.which("runqlat")
    assert tool, "needs Debian's libbpf-tools"
    one = worker(work, "compete")
    producer = watch(one)
    witness = subprocess.Popen([tool, "-p", str(one.pid), "99", "1"], stdout=subprocess.PIPE, text=True)
    wait_attached(witness)
    one.go(producer)
    profile = Profile(producer)
    counts = re.findall(r"^\s*\d+ -> \d+\s*: (\d+)", stop(witness), re.MULTILINE)
    ((_, queue),) = profile.structs["queue"]
    # It also counts the wake-up that began before the thread was known: its sleep is older than the programs.
    assert int(queue["waits"]) == sum(map(int, counts)) - 1
