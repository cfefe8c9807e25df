/* What bpf/process.c remembers of every process that was told, until it ends: what only its end can use. */
#ifndef EBBFLOW_PROCESS_LIVES_H
#define EBBFLOW_PROCESS_LIVES_H

struct life {
	u64 start_boottime_ns;
	u64 exec_ns;
	u64 sender_start_boottime_ns;
	u32 sender_pid;
	s32 signal_code;
	u32 executions;
	u32 threads;
	u32 signal;
	u32 oom;
	char old_comm[16];
	char sender_comm[16];
};

BPF_HASH(lives, u32, struct life, MAX_PROCESSES);
BPF_ARRAY(followed, s64, 1); /* how many are in `lives`: walking it would make the kernel skip other programs */

static inline struct life *life_of(u32 pid, u64 start)
{
	struct life *life = lives.lookup(&pid);

	return life && life->start_boottime_ns == start ? life : NULL;
}

static inline void count_followed(s64 change)
{
	int zero = 0;
	s64 *number = followed.lookup(&zero);

	if (number)
		__sync_fetch_and_add(number, change);
}

/* Whether it was there. */
static inline int forget(u32 pid)
{
	if (lives.delete(&pid))
		return 0;
	count_followed(-1);
	return 1;
}

/* Whether this one was not known yet, and is now. */
static inline int is_new(u32 pid, u64 start)
{
	struct life life = {.start_boottime_ns = start}, *old = lives.lookup(&pid);

	if (old && old->start_boottime_ns == start)
		return 0;
	if (lives.update(&pid, &life)) {
		event_lost_in_map();
		return 0;
	}
	if (!old)
		count_followed(1);
	return 1;
}

#endif
