/* Where processes run (samples at a frequency), where they wait and who wakes them, and how long they queue for a CPU.
 *
 * Three hooks are hot: the CPU clock, sched_switch and sched_waking run for every thread of the machine. For what is not
 * watched they end after one or two look-ups. Per watched thread there is one entry in `threads`, made once and changed
 * in place: it is its thread's own, and the scheduler orders switch-out, wake-up and switch-in of one thread.
 *
 * Stacks at switch-out are kept under a hash of their addresses, not under an id of a stack-trace map: a thread may
 * sleep for hours, and its id would have to stay while the tables are taken and emptied. The hash means the same for
 * ever, so user space remembers what it has seen once.
 *
 * Only sched_waking is used, not sched_wakeup: it runs where the waker runs. It can run before the switch-out of the
 * thread that it wakes: then the thread was ready from the switch-out on.
 *
 * A stack costs ten times what the rest of a switch does, and must be taken before it is known how long the wait will
 * be. So a thread that switches all the time has its stack taken STACK_GAP_NS apart on average, after a burst of
 * BURST; its waits are short by nature. A long wait that began without is told as such. Where a thread is preempted
 * says nothing that samples do not say, so that is left out unless it is asked for.
 *
 * BCC dialect. Flags given by the loader: PERIOD_NS, OFF_MIN_NS, STACK_GAP_NS, PREEMPTED_STACKS, MAX_STACKS, MAX_THREADS, ARG_* (where sched_switch has
 * its arguments; ARG_STATE -1: nowhere), RING_PAGES, WATCH_ALL, WATCH_PORTS, OFFSET_*.
 */
#include <uapi/linux/ptrace.h>
#include "cpu.h"
#define KERNEL_FRAMES       64
#define USER_FRAMES         127
#define EVENT_PAYLOAD_BYTES (sizeof(struct cpu_sample_head) + (KERNEL_FRAMES + USER_FRAMES) * sizeof(u64))
#define EVENT_SLOTS         2
#include "emit.h"
#include "histogram.h"
#include "stack.h"
#include "swap.h"
#include "watch.h"

enum {
	SLOT_SAMPLE = 0, /* an interrupt, also inside the other programs */
	SLOT_EXEC = 1,
	FRAME_BYTES = sizeof(u64),
	QUEUE_SLOTS = sizeof(((struct cpu_queue *)0)->slots) / sizeof(u64),
	MAX_PROCESSES = 8192,
	MAX_PAIRS = 16384,
	NS_PER_US = 1000,
	BURST = 64, /* stacks of one thread that may be taken at once */
	NO_STACK = 0,
	NOT_TAKEN = 1, /* in place of a stack's hash */
	FIRST_HASH = 2,
};

/* include/linux/sched.h, the same since 4.14. */
enum {
	TASK_UNINTERRUPTIBLE_BIT = 0x2,
	TASK_STOPPED_BITS = 0x4 | 0x8,
	TASK_DEAD_BIT = 0x80,
	TASK_STATES = 0xff,
};

/* Blind spots, in the order of the producer's `unseen`. */
enum { UNSEEN_THREADS = 0 };

struct thread {
	u64 out_ns;    /* since when it is not running; 0: it runs */
	u64 waking_ns; /* when it was woken last; 0: not since it ran */
	u64 stack;     /* where it went out: hash, or NOT_TAKEN */
	u64 due_ns;    /* when its next stack would be taken, were they taken evenly */
	u64 start;     /* of its process */
	u64 waker_start;
	u32 pid;
	u32 waker_pid;
	u32 state;
	u32 pad;
	char waker_comm[16];
};

BPF_TABLE("hash", u32, struct thread, threads, MAX_THREADS);
BPF_PERCPU_ARRAY(ticks, struct cpu_ticks, 1);
BPF_PERCPU_ARRAY(scratch, struct cpu_stack, 1);
SWAPPED("hash", u64, struct cpu_stack, stacks, MAX_STACKS);
SWAPPED("hash", struct cpu_off_key, struct cpu_off_total, offs, MAX_STACKS);
SWAPPED("hash", struct cpu_wake_key, struct cpu_wake_total, wakes, MAX_PAIRS);
SWAPPED("hash", struct cpu_queue_key, struct cpu_queue, queues, MAX_PROCESSES);

/* Kernel and user addresses, one behind the other. Says how many there are of each, at `frames`. */
static inline u64 take_stack(void *ctx, u64 *addresses, u16 *kernel_frames, u16 *user_frames)
{
	long bytes = bpf_get_stack(ctx, addresses, KERNEL_FRAMES * FRAME_BYTES, 0);
	u64 kernel = bytes > 0 ? bytes / FRAME_BYTES : 0, user;

	FORGET(kernel);
	if (kernel > KERNEL_FRAMES)
		kernel = KERNEL_FRAMES;
	bytes = bpf_get_stack(ctx, addresses + kernel, USER_FRAMES * FRAME_BYTES, BPF_F_USER_STACK);
	user = bytes > 0 ? bytes / FRAME_BYTES : 0;
	FORGET(user);
	if (user > USER_FRAMES)
		user = USER_FRAMES;
	*kernel_frames = kernel;
	*user_frames = user;
	return kernel + user;
}

static inline int is_truncated(u16 kernel_frames, u16 user_frames)
{
	return kernel_frames == KERNEL_FRAMES || user_frames == USER_FRAMES;
}

int cpu_sample(void *ctx)
{
	int zero = 0;
	u64 frames;
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct cpu_ticks *tick = ticks.lookup(&zero);
	struct cpu_sample_head *head;
	struct event *event;

	if (!tick)
		return 0;
	tick->taken++;
	if (!pid) {
		tick->idle++;
		return 0;
	}
	if (!watched(pid)) {
		tick->unwatched++;
		return 0;
	}
	event = event_begin(SLOT_SAMPLE, CPU_SAMPLE);
	if (!event)
		return 0;
	head = (void *)event->payload;
	frames = take_stack(ctx, (void *)(head + 1), &head->kernel_frames, &head->user_frames);
	head->period_ns = PERIOD_NS;
	head->reserved = 0;
	event->row.flags = is_truncated(head->kernel_frames, head->user_frames) ? STACK_TRUNCATED : 0;
	event_emit(event, sizeof(*head) + frames * FRAME_BYTES);
	return 0;
}

/* Of addresses: two different stacks have the same one time in 2^64. */
static inline u64 hash_of(const u64 *addresses, u64 frames)
{
	u64 hash = frames;

	for (int i = 0; i < KERNEL_FRAMES + USER_FRAMES; i++) {
		if (i >= frames)
			break;
		hash = (hash ^ addresses[i]) * 0x9e3779b97f4a7c15;
		hash ^= hash >> 29;
	}
	return hash < FIRST_HASH ? FIRST_HASH : hash;
}

/* Keep the current thread's stack for this interval: its hash. */
static inline u64 keep_stack(void *ctx)
{
	int zero = 0;
	u64 hash, frames;
	struct cpu_stack *stack = scratch.lookup(&zero);
	void *table = stacks.lookup(&zero);

	if (!stack)
		return NOT_TAKEN;
	frames = take_stack(ctx, stack->addresses, &stack->kernel_frames, &stack->user_frames);
	stack->truncated = is_truncated(stack->kernel_frames, stack->user_frames);
	hash = hash_of(stack->addresses, frames);
	/* What finds no room is told as a row with STACK_LOST. */
	if (table && !bpf_map_lookup_elem(table, &hash))
		bpf_map_update_elem(table, &hash, stack, BPF_NOEXIST);
	return hash;
}

/* Whether it is this thread's turn: a leaky bucket in terms of time (GCRA). */
static inline int may_take_stack(struct thread *thread, u64 now_ns)
{
	u64 earliest_ns = now_ns - (u64)(BURST - 1) * STACK_GAP_NS;

	if (thread->due_ns > now_ns)
		return 0;
	if (thread->due_ns < earliest_ns)
		thread->due_ns = earliest_ns;
	thread->due_ns += STACK_GAP_NS;
	return 1;
}

static inline void note_off(struct thread *thread, u64 total_ns, u64 queued_ns)
{
	int zero = 0;
	struct cpu_off_total none = {}, *total;
	struct cpu_off_key key = {
		.start_boottime_ns = thread->start,
		.pid = thread->pid,
		.state = thread->state,
		.stack = total_ns < OFF_MIN_NS ? NO_STACK : thread->stack,
	};

	total = find_or_add(offs.lookup(&zero), &key, &none);
	if (!total) {
		event_lost_in_map();
		return;
	}
	__sync_fetch_and_add(&total->waits, 1);
	__sync_fetch_and_add(&total->total_ns, total_ns);
	__sync_fetch_and_add(&total->queued_ns, queued_ns);
	if (total_ns > total->longest_ns)
		total->longest_ns = total_ns;
}

static inline void note_wake(struct thread *thread, u64 slept_ns)
{
	int zero = 0;
	struct cpu_wake_total none = {}, *total;
	struct cpu_wake_key key = {
		.start_boottime_ns = thread->start,
		.waker_start_boottime_ns = thread->waker_start,
		.pid = thread->pid,
		.waker_pid = thread->waker_pid,
	};

	__builtin_memcpy(none.comm, thread->waker_comm, sizeof(none.comm));
	total = find_or_add(wakes.lookup(&zero), &key, &none);
	if (!total) {
		event_lost_in_map();
		return;
	}
	__sync_fetch_and_add(&total->waits, 1);
	__sync_fetch_and_add(&total->total_ns, slept_ns);
	if (slept_ns > total->longest_ns)
		total->longest_ns = slept_ns;
}

static inline void note_queued(struct thread *thread, u64 queued_ns)
{
	int zero = 0;
	struct cpu_queue none = {}, *total;
	struct cpu_queue_key key = {.start_boottime_ns = thread->start, .pid = thread->pid};
	u32 slot = slot_of(queued_ns / NS_PER_US, 0, QUEUE_SLOTS);

	total = find_or_add(queues.lookup(&zero), &key, &none);
	if (!total) {
		event_lost_in_map();
		return;
	}
	__sync_fetch_and_add(&total->waits, 1);
	__sync_fetch_and_add(&total->total_ns, queued_ns);
	if (queued_ns > total->longest_ns)
		total->longest_ns = queued_ns;
	if (slot < QUEUE_SLOTS)
		__sync_fetch_and_add(&total->slots[slot], 1);
}

static inline u32 wait_of(u64 is_preempted, u64 state)
{
	if (is_preempted || !(state & TASK_STATES))
		return CPU_PREEMPTED;
	if (state & TASK_STOPPED_BITS)
		return CPU_STOPPED;
	return state & TASK_UNINTERRUPTIBLE_BIT ? CPU_UNINTERRUPTIBLE : CPU_SLEEPING;
}

/* The current thread, which leaves the CPU. Says when, if somebody watches; the clock is dear. */
static inline u64 switch_out(struct bpf_raw_tracepoint_args *ctx)
{
	int zero = 0;
	u64 ids = bpf_get_current_pid_tgid(), state = 0, now_ns;
	u32 pid = ids >> 32, tid = ids;
	struct thread *thread, fresh = {};
	struct cpu_ticks *tick;

	if (!pid)
		return 0;
#if ARG_STATE >= 0
	state = (u32)ctx->args[ARG_STATE];
#else
	READ(state, ctx->args[ARG_PREV], OFFSET_TASK_STATE);
#endif
	/* Its last: the watch may have forgotten the process already. */
	if (state & TASK_DEAD_BIT) {
		threads.delete(&tid);
		return 0;
	}
	if (!watched(pid))
		return 0;
	thread = threads.lookup(&tid);
	if (!thread) {
		fresh.pid = pid;
		fresh.start = start_of(ctx->args[ARG_PREV]);
		threads.update(&tid, &fresh);
		thread = threads.lookup(&tid);
	}
	if (!thread) {
		event_unseen(UNSEEN_THREADS);
		return 0;
	}
	tick = ticks.lookup(&zero);
	if (tick)
		tick->switches++;
	now_ns = bpf_ktime_get_ns();
	thread->state = wait_of((u8)ctx->args[ARG_PREEMPT], state);
	thread->stack = NOT_TAKEN;
	if ((PREEMPTED_STACKS || thread->state != CPU_PREEMPTED) && may_take_stack(thread, now_ns))
		thread->stack = keep_stack(ctx);
	thread->out_ns = now_ns;
	return now_ns;
}

/* The next thread, which is given the CPU: its wait is over. */
static inline void switch_in(u64 task, u64 now_ns)
{
	u32 tid = 0;
	u64 total_ns, ready_ns;
	struct thread *thread;

	READ(tid, task, OFFSET_TASK_PID);
	if (!tid)
		return;
	thread = threads.lookup(&tid);
	if (!thread || !thread->out_ns)
		return;
	if (!now_ns)
		now_ns = bpf_ktime_get_ns();
	total_ns = now_ns - thread->out_ns;
	ready_ns = thread->out_ns;
	if (thread->state != CPU_PREEMPTED && thread->waking_ns > ready_ns)
		ready_ns = thread->waking_ns < now_ns ? thread->waking_ns : now_ns;
	if (thread->state != CPU_NEW)
		note_off(thread, total_ns, now_ns - ready_ns);
	if (thread->state != CPU_NEW && thread->state != CPU_PREEMPTED && thread->waking_ns)
		note_wake(thread, ready_ns - thread->out_ns);
	note_queued(thread, now_ns - ready_ns);
	thread->out_ns = thread->waking_ns = 0;
}

int cpu_switch(struct bpf_raw_tracepoint_args *ctx)
{
	u64 now_ns = switch_out(ctx);

	switch_in(ctx->args[ARG_NEXT], now_ns);
	return 0;
}

/* A thread is being woken; the current one does it, or what interrupted it. */
int cpu_waking(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tid = 0;
	struct thread *thread;

	READ(tid, ctx->args[0], OFFSET_TASK_PID);
	thread = threads.lookup(&tid);
	if (!thread)
		return 0;
	thread->waking_ns = bpf_ktime_get_ns();
	thread->waker_pid = bpf_get_current_pid_tgid() >> 32;
	thread->waker_start = thread->waker_pid ? start_of(bpf_get_current_task()) : 0;
	bpf_get_current_comm(thread->waker_comm, sizeof(thread->waker_comm));
	return 0;
}

/* A new thread, for the first time ready to run. */
int cpu_wakeup_new(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0];
	u32 pid = 0, tid = 0;
	struct thread fresh = {.state = CPU_NEW};

	READ(pid, task, OFFSET_TASK_TGID);
	if (!watched(pid))
		return 0;
	READ(tid, task, OFFSET_TASK_PID);
	fresh.pid = pid;
	fresh.start = start_of(task);
	fresh.out_ns = fresh.waking_ns = bpf_ktime_get_ns();
	if (threads.update(&tid, &fresh))
		event_unseen(UNSEEN_THREADS);
	return 0;
}

/* A process begins another program: (task, old pid, binprm). A thread that does it takes the first thread's number. */
int cpu_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 ids = bpf_get_current_pid_tgid();
	u32 pid = ids >> 32, old = (u32)ctx->args[1];
	struct event *event;

	if (old != (u32)ids)
		threads.delete(&old);
	if (!watched(pid))
		return 0;
	event = event_begin(SLOT_EXEC, CPU_EXEC);
	if (event)
		event_emit(event, 0);
	return 0;
}
