/* The smallest programs of each kind, for `ebbflow doctor`: what this kernel allows is tried, not guessed.
 *
 * Each counts the system calls, or samples, of one process: CHECK_PID. What needs something at compile time
 * (tracefs, a map type) stands under a flag of its own, so that its absence fails alone.
 */
#include <uapi/linux/ptrace.h>

/* Its header would take five times as long to compile as all of this; nothing here looks into it. */
struct bpf_perf_event_data;

BPF_ARRAY(hits, u64, 1);

#ifdef CHECK_RING_BUFFER
BPF_RINGBUF_OUTPUT(ring, 1);
#endif

static __always_inline int is_ours(void)
{
	return bpf_get_current_pid_tgid() >> 32 == CHECK_PID;
}

static __always_inline int count(void)
{
	int zero = 0;
	u64 *hit = hits.lookup(&zero);

	if (hit && is_ours())
		__sync_fetch_and_add(hit, 1);
	return 0;
}

int on_raw_tracepoint(struct bpf_raw_tracepoint_args *ctx)
{
	return count();
}

int on_probe(struct pt_regs *ctx)
{
	return count();
}

int on_sample(struct bpf_perf_event_data *ctx)
{
	return count();
}

#ifdef CHECK_TRACEPOINT
TRACEPOINT_PROBE(syscalls, sys_enter_getppid)
{
	return count();
}
#endif

#ifdef CHECK_RING_BUFFER
int to_ring(struct bpf_raw_tracepoint_args *ctx)
{
	u64 number = ctx->args[1];

	if (is_ours())
		ring.ringbuf_output(&number, sizeof(number), 0);
	return 0;
}
#endif
