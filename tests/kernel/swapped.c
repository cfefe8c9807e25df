/* Counts getppid(2) of two processes in tables of both kinds, under many keys; stacks of the first one's too. */
#include <uapi/linux/ptrace.h>
#include "../../bpf/swap.h"

enum { NR_GETPPID = 110, SPREAD = 1024 };

struct counted_key {
	u32 pid;
	u32 some;
};

struct counted {
	u64 calls;
	u32 others;
	u32 reserved;
};

SWAPPED("hash", struct counted_key, struct counted, shared, 4 * SPREAD);
SWAPPED("percpu_hash", struct counted_key, struct counted, split, 4 * SPREAD);
SWAPPED("percpu_array", int, struct counted, slots, 4);
BPF_HASH(plain, struct counted_key, struct counted, 4 * SPREAD);
BPF_TABLE("lru_hash", u32, u64, forgetful_0, 16);
BPF_TABLE("lru_hash", u32, u64, forgetful_1, 16);
BPF_ARRAY_OF_MAPS(forgetful, "forgetful_0", 1);
BPF_ARRAY(lost, u64, 1);
BPF_STACK_TRACE(traces, 1024);
BPF_HASH(stacks, s32, u64, 1024);

int on_call(struct bpf_raw_tracepoint_args *ctx)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct counted_key key = {};
	struct counted *found, none = {};
	int zero = 0, slot = 1;

	if (ctx->args[1] != NR_GETPPID || (pid != FIRST_PID && pid != SECOND_PID))
		return 0;
	key.pid = pid;
	key.some = bpf_get_prandom_u32() % SPREAD;
	found = find_or_add(shared.lookup(&zero), &key, &none);
	if (found)
		__sync_fetch_and_add(&found->calls, 1);
	else
		lost.increment(zero);
	found = find_or_add(split.lookup(&zero), &key, &none);
	if (found)
		found->calls++;
	else
		lost.increment(zero);
	found = find_or_add(slots.lookup(&zero), &slot, &none);
	if (found)
		found->calls++;
	else
		lost.increment(zero);
	found = plain.lookup_or_try_init(&key, &none);
	if (found)
		__sync_fetch_and_add(&found->calls, 1);
	else
		lost.increment(zero);
	return 0;
}

int on_stack(struct bpf_raw_tracepoint_args *ctx)
{
	s32 id;

	if (ctx->args[1] != NR_GETPPID || bpf_get_current_pid_tgid() >> 32 != FIRST_PID)
		return 0;
	id = traces.get_stackid(ctx, BPF_F_USER_STACK);
	stacks.increment(id);
	return 0;
}
