/* One function for every kind of probe, each with a counter of its own; PID is the process to count. */
#include <uapi/linux/ptrace.h>

/* Its header takes five times as long to compile as all of this; nothing here looks into it. */
struct bpf_perf_event_data;

enum { TRACEPOINT, FOUND, RAW, UPROBE, URETPROBE, USDT, USDT_ARGUMENT, SAMPLES, KINDS };
enum { NR_GETPPID = 110 };

BPF_ARRAY(hits, u64, 16);
BPF_RINGBUF_OUTPUT(ring, 8);

static __always_inline int count(u32 kind)
{
	u64 *hit = hits.lookup(&kind);

	if (hit && bpf_get_current_pid_tgid() >> 32 == PID)
		__sync_fetch_and_add(hit, 1);
	return 0;
}

TRACEPOINT_PROBE(syscalls, sys_enter_getppid)
{
	return count(FOUND);
}

int on_tracepoint(void *ctx)
{
	return count(TRACEPOINT);
}

int on_raw(struct bpf_raw_tracepoint_args *ctx)
{
	u64 number = ctx->args[1];

	if (number == NR_GETPPID && bpf_get_current_pid_tgid() >> 32 == PID)
		ring.ringbuf_output(&number, sizeof(number), BPF_RB_NO_WAKEUP);
	return number == NR_GETPPID ? count(RAW) : 0;
}

int on_call(struct pt_regs *ctx)
{
	return count(UPROBE);
}

int on_return(struct pt_regs *ctx)
{
	return count(URETPROBE);
}

int on_usdt(struct pt_regs *ctx)
{
	return count(USDT);
}

int on_sample(struct bpf_perf_event_data *ctx)
{
	return count(SAMPLES);
}

#ifdef WITH_ARGUMENT
int on_argument(struct pt_regs *ctx)
{
	u32 place = USDT_ARGUMENT;
	u64 *sum = hits.lookup(&place);
	int value = 0; /* of the argument's own size, or nothing is read */

	bpf_usdt_readarg(1, ctx, &value);
	if (sum)
		*sum += value;
	return 0;
}
#endif
