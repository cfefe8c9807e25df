/* System calls by process: how many, how long, which errors; slow and watched ones as events.
 *
 * Two raw tracepoints see every call on the machine, so every nanosecond counts. What is known of a thread (whether
 * it is watched, its process, the call it is in) stands in the kernel's task storage: it costs as much as one look-up,
 * needs no room of its own, and ends with the thread, whatever call it was in. Threads that are not watched have
 * none: they cost one look-up of their process at either end.
 *
 * The number of the call is taken at its entry: rt_sigreturn overwrites the saved one.
 *
 * BCC dialect. Flags given by the loader: RING_PAGES, WATCH_ALL, WATCH_PORTS, SLOW_NS, SLOW_WAITS, MAX_ENTRIES,
 * OFFSET_*.
 */
#include <uapi/linux/ptrace.h>
#define EVENT_PAYLOAD_BYTES sizeof(struct syscalls_watched)
#define EVENT_SLOTS         1
#include "syscalls.h"
#include "emit.h"
#include "histogram.h"
#include "swap.h"
#include "watch.h"

/* Blind spots, in the order of SyscallsProducer.unseen. */
enum { COMPAT_CALLS };

enum {
	NR_READ = 0,
	NR_RT_SIGRETURN = 15,
	NR_READV = 19,
	NR_CLONE = 56,
	NR_FORK = 57,
	NR_VFORK = 58,
	NR_EXECVE = 59,
	NR_EXECVEAT = 322,
	NR_CLONE3 = 435,
	CALLS = 512,
	TEXTS = 3,
	TEXT_BYTES = 64,
	SLOTS = 28,
	FIRST_POWER = 6,
	LAST_ERRNO = 4095,
	COMPAT_STATUS = 2, /* TS_COMPAT */
	MODE_TYPE = 0170000,
	MODE_PIPE = 0010000,
	MODE_CHARACTERS = 0020000,
	MODE_SOCKET = 0140000,
	RECHECK_NS = 100000000,
};

/* What is known of a watched thread. */
struct thread {
	u64 enter_ns; /* of the call it is in; 0: in none that was seen to begin */
	u64 start_boottime_ns;
	u64 checked_ns; /* when its process was last found to be watched */
	u32 pid;
	s32 number;
};

/* A watched call, as it began: memory and registers may be others when it ends. */
struct begun {
	u64 arguments[6];
	char text[TEXTS][TEXT_BYTES];
	u32 missing; /* bit i: text[i] could not be read yet */
};

/* The part of struct pt_regs from r10 on. */
struct call {
	u64 r10, r9, r8, ax, cx, dx, si, di, number;
};

BPF_TASK_STORAGE(threads, struct thread);
BPF_TASK_STORAGE(begins, struct begun);
BPF_ARRAY(choices, u8, CALLS);
SWAPPED("hash", struct syscalls_key, struct syscalls_counts, totals, MAX_ENTRIES);
SWAPPED("hash", struct syscalls_error_key, u64, errnos, MAX_ENTRIES);

static inline int is_compat(struct task_struct *task)
{
	u32 status;

	MEMBER(status, "u32", task, OFFSET_TASK_STATUS);
	return status & COMPAT_STATUS;
}

/* What is known of a thread. Most have no storage of any kind: that is seen without asking for ours. */
static inline struct thread *known(struct task_struct *task)
{
	u64 storage;

	MEMBER(storage, "u64", task, OFFSET_TASK_STORAGE);
	return storage ? threads.task_storage_get(task, 0, 0) : NULL;
}

/* The same of a thread that nothing was known of yet, when its process is watched. */
static inline struct thread *meet(struct task_struct *task)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct thread *thread;

	if (!watched(pid))
		return NULL;
	thread = threads.task_storage_get(task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!thread) {
		event_lost_in_map();
		return NULL;
	}
	thread->pid = pid;
	thread->start_boottime_ns = start_of((u64)task);
	thread->checked_ns = bpf_ktime_get_ns();
	return thread;
}

static inline u32 choice_of(s32 number)
{
	u32 index = number;
	u8 *choice = choices.lookup(&index);

	return choice ? *choice : 0;
}

static inline void read_arguments(u64 *arguments, u64 regs)
{
	struct call call = {};

	bpf_probe_read_kernel(&call, sizeof(call), (void *)(regs + OFFSET_REGS_R10));
	arguments[0] = call.di;
	arguments[1] = call.si;
	arguments[2] = call.dx;
	arguments[3] = call.r10;
	arguments[4] = call.r8;
	arguments[5] = call.r9;
}

/* Read the strings among the arguments, those in `wanted` by their place among strings; returns what was not there. */
static inline u32 read_texts(struct begun *begun, u32 choice, u32 wanted)
{
	u32 missing = 0, nth = 0;

#pragma unroll
	for (int i = 0; i < 6; i++) {
		if (!(choice & SYSCALLS_TEXT << i) || nth >= TEXTS)
			continue;
		if (wanted & 1 << nth && begun->arguments[i]) {
			char *text = begun->text[nth & 3];

			if (nth < TEXTS && bpf_probe_read_user_str(text, TEXT_BYTES, (void *)begun->arguments[i]) < 0)
				missing |= 1 << nth;
		}
		nth++;
	}
	return missing;
}

static inline void begin_watched(struct task_struct *task, u64 regs, u32 choice)
{
	struct begun *begun = begins.task_storage_get(task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!begun)
		return;
	__builtin_memset(begun, 0, sizeof(*begun));
	read_arguments(begun->arguments, regs);
	begun->missing = read_texts(begun, choice, ~0);
}

int syscalls_enter(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct thread *thread = known(task);
	s32 number = ctx->args[1];
	u32 choice;
	u64 now;

	if (!thread)
		thread = meet(task);
	if (!thread || is_compat(task))
		return 0;
	now = bpf_ktime_get_ns();
	if (now - thread->checked_ns > RECHECK_NS) {
		if (!watched(thread->pid)) {
			threads.task_storage_delete(task);
			return 0;
		}
		thread->checked_ns = now;
	}
	choice = choice_of(number);
	if (choice & SYSCALLS_WATCH)
		begin_watched(task, ctx->args[0], choice);
	thread->number = number;
	thread->enter_ns = now;
	return 0;
}

static inline void count_error(struct thread *thread, s32 number, u32 error)
{
	struct syscalls_error_key key = {
		.start_boottime_ns = thread->start_boottime_ns, .pid = thread->pid, .number = number, .error = error};
	u64 none = 0, *calls;
	int zero = 0;

	calls = find_or_add(errnos.lookup(&zero), &key, &none);
	if (calls)
		__sync_fetch_and_add(calls, 1);
	else
		event_lost_in_map();
}

static inline struct syscalls_counts *counts_of(struct thread *thread, s32 number)
{
	struct syscalls_key key = {
		.start_boottime_ns = thread->start_boottime_ns, .pid = thread->pid, .number = number};
	struct syscalls_counts *counts, none = {};
	int zero = 0;
	void *map = totals.lookup(&zero);

	counts = map ? bpf_map_lookup_elem(map, &key) : NULL;
	if (counts)
		return counts;
	bpf_probe_read_kernel(none.comm, sizeof(none.comm),
			      (void *)(leader_of(bpf_get_current_task()) + OFFSET_TASK_COMM));
	return find_or_add(map, &key, &none);
}

/* Add a call to its process's totals. Where two CPUs add at once, max_ns may keep the smaller of the two. */
static inline void count(struct thread *thread, s32 number, u64 duration_ns, int timed, u32 error)
{
	struct syscalls_counts *counts = counts_of(thread, number);

	if (!counts) {
		event_lost_in_map();
		return;
	}
	if (timed) {
		u32 slot = slot_of(duration_ns, FIRST_POWER, SLOTS);

		__sync_fetch_and_add(&counts->total_ns, duration_ns);
		if (slot < SLOTS)
			__sync_fetch_and_add(&counts->slots[slot], 1);
		if (duration_ns > counts->max_ns)
			counts->max_ns = duration_ns;
	} else {
		__sync_fetch_and_add(&counts->untimed, 1);
	}
	if (error) {
		__sync_fetch_and_add(&counts->errors, 1);
		count_error(thread, number, error);
	}
}

/* Whether a call was reading from what sends when it pleases: a pipe, a socket, a terminal. */
static inline int is_waiting_read(s32 number, u32 fd)
{
	u64 files = 0, table = 0, array = 0, file = 0, inode = 0;
	u32 open = 0;
	u16 mode = 0;

	if (number != NR_READ && number != NR_READV)
		return 0;
	READ(files, bpf_get_current_task(), OFFSET_TASK_FILES);
	READ(table, files, OFFSET_FILES_FDT);
	READ(open, table, OFFSET_FDT_MAX);
	if (fd >= open)
		return 0;
	READ(array, table, OFFSET_FDT_FD);
	READ(file, array, fd * sizeof(u64));
	READ(inode, file, OFFSET_FILE_INODE);
	READ(mode, inode, OFFSET_INODE_MODE);
	mode &= MODE_TYPE;
	return mode == MODE_PIPE || mode == MODE_SOCKET || mode == MODE_CHARACTERS;
}

static inline void tell(struct event *event, struct thread *thread, s32 number, s64 result, u64 flags)
{
	struct syscalls_watched *told = (void *)event->payload;

	event->row.flags = flags;
	told->duration_ns = 0;
	if (thread->enter_ns) {
		event->row.since_ns = thread->enter_ns;
		told->duration_ns = event->row.time_ns - thread->enter_ns;
	}
	told->result = result;
	told->number = number;
	told->reserved = 0;
}

static inline void tell_slow(struct thread *thread, s32 number, s64 result, u64 regs)
{
	struct event *event = event_begin(0, SYSCALLS_SLOW);
	struct syscalls_slow *told;

	if (!event)
		return;
	told = (void *)event->payload;
	read_arguments(told->arguments, regs);
	if (!SLOW_WAITS && is_waiting_read(number, told->arguments[0]))
		return;
	tell(event, thread, number, result, 0);
	event_emit(event, sizeof(*told));
}

static inline void tell_watched(struct task_struct *task, struct thread *thread, s32 number, s64 result, u64 regs,
				u32 choice, u64 flags)
{
	struct event *event = event_begin(0, SYSCALLS_WATCHED);
	struct begun *begun = NULL;
	struct syscalls_watched *told;

	if (!event)
		return;
	told = (void *)event->payload;
	__builtin_memset(told->text, 0, sizeof(told->text));
	if (thread->enter_ns)
		begun = begins.task_storage_get(task, 0, 0);
	if (begun) {
		if (begun->missing && regs) {
			flags |= SYSCALLS_LATE_TEXT;
			read_texts(begun, choice, begun->missing);
		}
		__builtin_memcpy(told->arguments, begun->arguments, sizeof(told->arguments));
		__builtin_memcpy(told->text, begun->text, sizeof(told->text));
	} else if (regs) {
		read_arguments(told->arguments, regs);
	}
	tell(event, thread, number, result, flags);
	event_emit(event, sizeof(*told));
}

/* A new process or thread returns from the call that made it, which is its parent's. */
static inline int is_birth(s32 number, s64 result)
{
	if (result)
		return 0;
	return number == NR_CLONE || number == NR_FORK || number == NR_VFORK || number == NR_CLONE3;
}

int syscalls_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct thread *thread = known(task);
	s64 result = ctx->args[1];
	u32 error, choice;
	u64 duration_ns = 0;
	int slow, timed;
	s32 number;

	if (!thread)
		thread = meet(task);
	if (!thread)
		return 0;
	if (is_compat(task)) {
		event_unseen(COMPAT_CALLS);
		return 0;
	}
	timed = thread->enter_ns != 0;
	if (timed) {
		number = thread->number;
		duration_ns = bpf_ktime_get_ns() - thread->enter_ns;
	} else {
		u64 saved = 0;

		READ(saved, ctx->args[0], OFFSET_REGS_NUMBER);
		number = saved;
		if (is_birth(number, result))
			return 0;
	}
	error = result < 0 && result >= -LAST_ERRNO && number != NR_RT_SIGRETURN ? -result : 0;
	count(thread, number, duration_ns, timed, error);
	choice = choice_of(number);
	slow = duration_ns > SLOW_NS && !(choice & SYSCALLS_MAY_WAIT);
	if (choice & SYSCALLS_WATCH)
		tell_watched(task, thread, number, result, ctx->args[0], choice,
			     (timed ? 0 : SYSCALLS_UNTIMED) | (slow ? SYSCALLS_LONG : 0));
	else if (slow)
		tell_slow(thread, number, result, ctx->args[0]);
	/* Another program may not be watched. */
	if (number == NR_EXECVE || number == NR_EXECVEAT)
		thread->checked_ns = 0;
	thread->enter_ns = 0;
	return 0;
}

/* A thread that ends in a call, by exit, exit_group or a signal: counted, but it took no time that anyone waited for. */
int syscalls_end(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct thread *thread = known(task);
	u32 choice;

	if (!thread || !thread->enter_ns)
		return 0;
	count(thread, thread->number, 0, 0, 0);
	choice = choice_of(thread->number);
	if (choice & SYSCALLS_WATCH)
		tell_watched(task, thread, thread->number, 0, 0, choice, SYSCALLS_UNFINISHED);
	thread->enter_ns = 0;
	return 0;
}
