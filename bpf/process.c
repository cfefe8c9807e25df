/* The life of processes: fork, exec, exit, out-of-memory kills, and what ran before.
 *
 * Raw tracepoints, because the kernel hands the task over: its start time is what tells two processes of one pid apart.
 * Rows are about the child, the program's new shape, the victim; who did it is in the payload.
 *
 * `lives` remembers of every process that was told what only its end can use: when it became its last program, who sent
 * it a signal, how many threads it began. What is in there has been told once, so an inventory can be taken at any time.
 *
 * Arguments are read when the new program's stack has been laid out and nothing of it has run: they are what exec was
 * called with. The environment lies behind them and is never read.
 *
 * BCC dialect. Flags given by the loader: ARGUMENTS_BYTES, MAX_PROCESSES, PAGE_BYTES, THREADS, LEGACY_SUBSYSTEM (-1: no
 * cgroups of version 1), HAS_VICTIM_MEMORY, HAS_GROUP_DEAD, RING_PAGES, WATCH_ALL, WATCH_PORTS, OFFSET_*.
 */
#include <uapi/linux/ptrace.h>
#include "process.h"

enum { NAME_BYTES = 256 };

#define EVENT_PAYLOAD_BYTES (sizeof(struct process_exec_head) + 2 * NAME_BYTES + ARGUMENTS_BYTES)
#define EVENT_SLOTS         1
#include "emit.h"
#include "watch.h"

enum {
	FLAG_KERNEL_THREAD = 0x00200000, /* PF_KTHREAD */
	FLAG_GROUP_EXIT = 4,             /* SIGNAL_GROUP_EXIT: the process has one exit code, whoever ends last */
	EXIT_IS_ZOMBIE = 0x20,           /* EXIT_ZOMBIE */
	MAX_THREADS = 64,                /* that end at the same moment and are added up */
	CHUNK = 128,        /* processes that one tail call of the inventory passes; 33 calls are allowed */
	FOUND = 32,         /* those of them that are told by the next one */
	INFO_PRIVATE = 1,   /* SEND_SIG_PRIV: the kernel sends it */
	CODE_USER = 0,      /* SI_USER */
	CODE_KERNEL = 0x80, /* SI_KERNEL */
	CODE_TKILL = -6,    /* SI_TKILL */
	CODE_QUEUE = -1,    /* SI_QUEUE */
	SLOT = 0,
	TAIL_FIND = 0,
	TAIL_TELL = 1,
};

enum { UNSEEN_ARGUMENTS };

/* Signals that do not end a process that has not asked for them: CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH. */
#define HARMLESS_SIGNALS (1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23 | 1 << 28)

#include "process_task.h"
#include "process_lives.h"

static inline void tell_thread(u64 task, u8 kind)
{
#if THREADS
	struct event *event = event_begin_bare(SLOT, kind);

	if (!event)
		return;
	event_about(event, task);
	if (kind == PROCESS_THREAD_END)
		READ(event->row.since_ns, task, OFFSET_TASK_START_TIME);
	flag_kernel_thread(event, task);
	event_emit(event, 0);
#endif
}

static inline void thread_began(u64 child, u32 pid)
{
	struct life *life = life_of(pid, start_of(child));

	if (life)
		__sync_fetch_and_add(&life->threads, 1);
	tell_thread(child, PROCESS_THREAD_START);
}

/* sched_process_fork(parent, child): the child has its number and start, and has not run. */
int process_forked(struct bpf_raw_tracepoint_args *ctx)
{
	u64 parent = ctx->args[0], child = ctx->args[1], leader = leader_of(parent), mine = 0, its = 0;
	struct process_fork *fork;
	struct event *event;
	u32 pid = 0;

	READ(pid, parent, OFFSET_TASK_TGID);
	if (!watched(pid))
		return 0;
	if (leader_of(child) == leader) {
		thread_began(child, pid);
		return 0;
	}
	event = event_begin_bare(SLOT, PROCESS_FORK);
	if (!event)
		return 0;
	event_about(event, child);
	is_new(event->row.pid, event->row.start_boottime_ns);
	flag_kernel_thread(event, child);
	READ(mine, parent, OFFSET_TASK_MM);
	READ(its, child, OFFSET_TASK_MM);
	if (mine && mine == its)
		event->row.flags |= PROCESS_SHARES_MEMORY;
	fork = (void *)event->payload;
	fork->parent_pid = pid;
	fork->parent_start_boottime_ns = start_of(parent);
	READ(fork->parent_tid, parent, OFFSET_TASK_PID);
	name_of(leader, fork->parent_comm);
	place_of(child, &fork->cgroup_id, &fork->legacy_cgroup_id);
	event_emit(event, sizeof(*fork));
	return 0;
}

/* Copy a name to where the payload has come to; returns its length without the NUL. */
static inline u64 put_name(struct event *event, u64 at, u64 from)
{
	s64 length;

	FORGET(at);
	if (at > sizeof(struct process_exec_head) + NAME_BYTES)
		return 0;
	length = bpf_probe_read_kernel_str(event->payload + at, NAME_BYTES, (void *)from);
	if (length <= 1)
		return 0;
	if (length == NAME_BYTES)
		event->row.flags |= PROCESS_CUT_NAME;
	return (length - 1) & (NAME_BYTES - 1);
}

/* The same for the arguments, from the stack of the new program. */
static inline u64 put_arguments(struct event *event, u64 at, u64 mm, u64 *total)
{
	u64 start = 0, end = 0, size;

	READ(start, mm, OFFSET_MM_ARG_START);
	READ(end, mm, OFFSET_MM_ARG_END);
	size = *total = end > start ? end - start : 0;
	if (size > ARGUMENTS_BYTES) {
		event->row.flags |= PROCESS_CUT_ARGUMENTS;
		size = ARGUMENTS_BYTES;
	}
	FORGET(size);
	FORGET(at);
	if (size > ARGUMENTS_BYTES || at > sizeof(struct process_exec_head) + 2 * NAME_BYTES)
		return 0;
	if (bpf_probe_read_user(event->payload + at, size, (void *)start)) {
		event->row.flags |= PROCESS_NO_ARGUMENTS;
		event_unseen(UNSEEN_ARGUMENTS);
		return 0;
	}
	return size;
}

/* What was known of the process until now; the name that it had. */
static inline void executed(struct event *event, struct process_exec_head *head, struct life *life)
{
	if (!life)
		return;
	life->executions++;
	life->exec_ns = event->row.time_ns;
	__builtin_memcpy(head->old_comm, life->old_comm, sizeof(head->old_comm));
}

/* sched_process_exec(task, old pid, binary): the old program is gone, the new one has not run. */
int process_executed(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0], binary = ctx->args[2], start = start_of(task), parent, mm = 0, filename = 0,
	    interp = 0;
	u64 at = sizeof(struct process_exec_head);
	u32 pid = bpf_get_current_pid_tgid() >> 32, why = watched(pid);
	struct process_exec_head *head;
	struct event *event;

	if (!why && !life_of(pid, start))
		return 0;
	if (why)
		is_new(pid, start);
	event = event_begin(SLOT, PROCESS_EXEC);
	if (!event)
		return 0;
	head = (void *)event->payload;
	__builtin_memset(head, 0, sizeof(*head));
	executed(event, head, life_of(pid, start));
	if (!why) {
		event->row.flags |= PROCESS_UNWATCHED;
		forget(pid);
	}
	parent = parent_of(task);
	READ(head->parent_pid, parent, OFFSET_TASK_TGID);
	head->parent_start_boottime_ns = start_of(parent);
	name_of(parent, head->parent_comm);
	place_of(task, &head->cgroup_id, &head->legacy_cgroup_id);
	file_of(task, &head->exe_inode, &head->exe_device);
	put_users(task, &head->uid, &head->gid, &head->effective_uid);
	head->old_tid = ctx->args[1];
	READ(head->arguments, binary, OFFSET_BINARY_ARGC);
	READ(filename, binary, OFFSET_BINARY_FILENAME);
	READ(interp, binary, OFFSET_BINARY_INTERP);
	READ(mm, task, OFFSET_TASK_MM);
	head->filename_bytes = put_name(event, at, filename);
	at += head->filename_bytes;
	if (interp != filename) {
		event->row.flags |= PROCESS_SCRIPT;
		head->interpreter_bytes = put_name(event, at, interp);
		at += head->interpreter_bytes;
	}
	head->arguments_bytes = put_arguments(event, at, mm, &head->arguments_total_bytes);
	event_emit(event, at + head->arguments_bytes);
	return 0;
}

/* Run time of threads that have been released, and of those that have not: the last one, and the first if it ended
 * early. Threads that ended at the same moment may not have been released yet, so all are looked at.
 */
static inline void put_times(struct event *event, struct process_exit *exit, u64 signal)
{
	u64 head = signal + OFFSET_SIGNAL_THREADS, node = 0, user, system, run;

	READ(exit->user_ns, signal, OFFSET_SIGNAL_USER);
	READ(exit->system_ns, signal, OFFSET_SIGNAL_SYSTEM);
	READ(exit->cpu_ns, signal, OFFSET_SIGNAL_RUN);
	READ(node, head, 0);
	for (int i = 0; i < MAX_THREADS && node && node != head; i++) {
		u64 thread = node - OFFSET_TASK_THREAD_NODE;

		user = system = run = 0;
		READ(user, thread, OFFSET_TASK_USER);
		READ(system, thread, OFFSET_TASK_SYSTEM);
		READ(run, thread, OFFSET_TASK_RUN);
		exit->user_ns += user;
		exit->system_ns += system;
		exit->cpu_ns += run;
		READ(node, node, 0);
	}
	if (node != head)
		event->row.flags |= PROCESS_MANY_THREADS;
}

/* As wait(2) will say it. */
static inline void put_code(struct event *event, struct process_exit *exit, u64 task, u64 signal)
{
	u32 flags = 0, code = 0;

	READ(flags, signal, OFFSET_SIGNAL_FLAGS);
	if (flags & FLAG_GROUP_EXIT)
		READ(code, signal, OFFSET_SIGNAL_EXIT_CODE);
	else
		READ(code, leader_of(task), OFFSET_TASK_EXIT_CODE);
	exit->signal = code & 0x7f;
	exit->exit_code = code >> 8;
	if (code & 0x80)
		event->row.flags |= PROCESS_CORE;
}

static inline void put_life(struct event *event, struct process_exit *exit, struct life *life)
{
	if (!life) {
		event->row.flags |= PROCESS_UNTRACKED;
		return;
	}
	exit->exec_ns = life->exec_ns;
	exit->executions = life->executions;
	exit->threads = life->threads;
	if (life->oom)
		event->row.flags |= PROCESS_OOM_KILLED;
	if (!exit->signal || life->signal != exit->signal)
		return;
	exit->signal_code = life->signal_code;
	exit->sender_pid = life->sender_pid;
	exit->sender_start_boottime_ns = life->sender_start_boottime_ns;
	__builtin_memcpy(exit->sender_comm, life->sender_comm, sizeof(exit->sender_comm));
}

/* Whether no thread is left. Before the kernel said so, two threads that end at once may both find none: the one that
 * can forget the process is the last.
 */
static inline int is_last(struct bpf_raw_tracepoint_args *ctx, u64 signal)
{
#if HAS_GROUP_DEAD
	return (u8)ctx->args[1];
#else
	u32 live = 0;

	READ(live, signal, OFFSET_SIGNAL_LIVE);
	return !live;
#endif
}

/* sched_process_exit(task, group dead) */
int process_exited(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = bpf_get_current_task(), number = bpf_get_current_pid_tgid(), signal, parent, start, pages = 0;
	u32 pid = number >> 32, why = watched(pid);
	struct life *life = lives.lookup(&pid), known;
	struct process_exit *exit;
	struct event *event;

	if (!why && !life)
		return 0;
	start = start_of(task);
	life = life_of(pid, start);
	if (!why && !life)
		return 0;
	signal = signal_of(task);
	if ((u32)number != pid)
		tell_thread(task, PROCESS_THREAD_END);
	if (!is_last(ctx, signal))
		return 0;
	if (life) {
		known = *life;
		life = &known;
	}
	if (!forget(pid) && !HAS_GROUP_DEAD && (u32)number != pid)
		return 0;
	event = event_begin(SLOT, PROCESS_EXIT);
	if (!event)
		return 0;
	event->row.tid = pid;
	exit = (void *)event->payload;
	__builtin_memset(exit, 0, sizeof(*exit));
	READ(event->row.since_ns, leader_of(task), OFFSET_TASK_START_TIME);
	flag_kernel_thread(event, task);
	put_code(event, exit, task, signal);
	put_life(event, exit, life);
	put_times(event, exit, signal);
	READ(pages, signal, OFFSET_SIGNAL_MAXRSS);
	exit->peak_rss_bytes = pages * PAGE_BYTES;
	place_of(task, &exit->cgroup_id, &exit->legacy_cgroup_id);
	parent = parent_of(leader_of(task));
	READ(exit->parent_pid, parent, OFFSET_TASK_TGID);
	exit->parent_start_boottime_ns = start_of(parent);
	event_emit(event, sizeof(*exit));
	return 0;
}

static inline s32 code_of(u64 info)
{
	s32 code = CODE_USER;

	if (info == INFO_PRIVATE)
		return CODE_KERNEL;
	if (info)
		READ(code, info, OFFSET_INFO_CODE);
	return code;
}

/* Only these come from the process that runs now: a timer's may come in anybody's time. */
static inline int has_sender(s32 code)
{
	return code == CODE_USER || code == CODE_QUEUE || code == CODE_TKILL || (code > 0 && code < CODE_KERNEL);
}

/* signal_generate(signal, info, task, group, result): remembered, and told when it has ended the process. */
int process_signalled(struct bpf_raw_tracepoint_args *ctx)
{
	u64 number = ctx->args[0], task = ctx->args[2], sender;
	struct life *life;
	u32 pid = 0;

	if (number >= 32 || (HARMLESS_SIGNALS >> number & 1) || (u32)ctx->args[4])
		return 0;
	READ(pid, task, OFFSET_TASK_TGID);
	life = lives.lookup(&pid);
	if (!life || life->start_boottime_ns != start_of(task))
		return 0;
	life->signal = number;
	life->signal_code = code_of(ctx->args[1]);
	life->sender_pid = 0;
	life->sender_start_boottime_ns = 0;
	__builtin_memset(life->sender_comm, 0, sizeof(life->sender_comm));
	if (!has_sender(life->signal_code))
		return 0;
	sender = leader_of(bpf_get_current_task());
	life->sender_pid = bpf_get_current_pid_tgid() >> 32;
	life->sender_start_boottime_ns = start_of(sender);
	name_of(sender, life->sender_comm);
	return 0;
}

/* A process may be marked again by each of its threads. The classic tracepoint has the memory figures. */
TRACEPOINT_PROBE(oom, mark_victim)
{
	u64 trigger = bpf_get_current_task();
	u32 pid = args->pid;
	struct life *life = lives.lookup(&pid);
	struct process_oom *oom;
	struct event *event;

	if (!watched(pid) || !life || life->oom)
		return 0;
	event = event_begin_bare(SLOT, PROCESS_OOM);
	if (!event)
		return 0;
	life->oom = 1;
	event->row.pid = event->row.tid = pid;
	event->row.start_boottime_ns = life->start_boottime_ns;
	oom = (void *)event->payload;
	__builtin_memset(oom, 0, sizeof(*oom));
#if HAS_VICTIM_MEMORY
	TP_DATA_LOC_READ_STR(event->row.comm, comm, sizeof(event->row.comm));
	oom->total_vm_bytes = args->total_vm * 1024;
	oom->anonymous_rss_bytes = args->anon_rss * 1024;
	oom->file_rss_bytes = args->file_rss * 1024;
	oom->shared_rss_bytes = args->shmem_rss * 1024;
	oom->page_tables_bytes = args->pgtables * 1024;
	oom->uid = args->uid;
	oom->oom_score_adj = args->oom_score_adj;
#endif
	oom->trigger_start_boottime_ns = start_of(trigger);
	READ(oom->trigger_pid, trigger, OFFSET_TASK_TGID);
	READ(oom->trigger_tid, trigger, OFFSET_TASK_PID);
	name_of(leader_of(trigger), oom->trigger_comm);
	event_emit(event, sizeof(*oom));
	return 0;
}

#include "process_inventory.h"
