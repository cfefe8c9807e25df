/* Allocations by uprobes on the allocator's functions, page faults, resident memory, and who the kernel killed for it.
 *
 * A call is followed from its entry to its return, one of a thread at a time: what an allocator does inside itself
 * (calloc by malloc, malloc by mmap) belongs to the outermost call. The probes are attached to single processes by
 * producers/memory.py, so none of the functions below asks whether its process is watched.
 *
 * At a function's entry its caller is not in the frame chain yet: the return address is on top of the stack, and is
 * kept beside the stack that the kernel walks.
 *
 * BCC dialect. Flags given by the loader: SAMPLING, MAX_ALLOCATIONS, MAX_STACKS, HAS_OOM_FIGURES, HAS_GROUP_DEAD,
 * WATCH_*, RING_PAGES, OFFSET_*.
 */
#include <uapi/linux/ptrace.h>
#include "memory.h"
#define EVENT_PAYLOAD_BYTES sizeof(struct memory_oom)
#define EVENT_SLOTS         1
#include "emit.h"
#include "swap.h"
#include "watch.h"

enum {
	MAP_ANONYMOUS_FLAG = 0x20,
	FAULT_PROTECTION = 1,
	FAULT_WRITE = 2,
	FAULT_INSTRUCTION = 16,
	RSS_MEMBERS = 4,
	MAX_PROCESSES = 8192,
	MAX_THREADS = 16384,
	KB = 1024,
	LONGEST_CALL_NS = 100000000,
};

struct upid {
	u64 start;
	u32 pid;
	u32 pad;
};

/* A call on its way, of one thread. */
struct call {
	u64 bytes;
	u64 old; /* realloc: what it was */
	u64 out; /* posix_memalign: where the address goes */
	u64 caller;
	u64 top; /* stack pointer at its entry: says whether a later call is inside it */
	u64 time_ns;
	s32 stack;
	u16 pad;
	u8 function;
	u8 sampled;
};

struct stack_key {
	struct upid process;
	u64 caller;
	s32 stack; /* negative: could not be kept */
	u32 pad;
};

struct stack_total {
	u64 allocated_bytes;
	u64 allocated;
	u64 freed_bytes;
	u64 freed;
};

struct allocation_key {
	u64 address;
	u32 pid;
	u32 pad;
};

struct allocation {
	u64 bytes;
	struct stack_key stack;
};

struct calls_key {
	struct upid process;
	u32 function;
	u32 pad;
};

struct calls_total {
	u64 calls;
	u64 bytes;
	u64 failed;
};

struct rss {
	u64 bytes[RSS_MEMBERS]; /* file, anonymous, swap, shared */
	u64 peak;
	u32 seen; /* bit per member */
	u32 pad;
};

BPF_TABLE("lru_hash", u32, struct call, inflight, MAX_THREADS);
BPF_HASH(allocations, struct allocation_key, struct allocation, MAX_ALLOCATIONS);
BPF_HASH(by_stack, struct stack_key, struct stack_total, MAX_STACKS);
BPF_STACK_TRACE(stacks, MAX_STACKS);
SWAPPED("percpu_hash", struct calls_key, struct calls_total, calls, MAX_PROCESSES);
SWAPPED("percpu_hash", struct upid, struct memory_faults, faults, MAX_PROCESSES);
BPF_HASH(resident, struct upid, struct rss, MAX_PROCESSES);
/* Processes whose memory is gone: they ended, or began another program. */
BPF_HASH(gone, struct upid, u8, MAX_PROCESSES);

static inline struct upid current_upid(void)
{
	struct upid upid = {.pid = bpf_get_current_pid_tgid() >> 32};

	upid.start = start_of(bpf_get_current_task());
	return upid;
}

/* Whether this very moment is inside a call of the allocator. The return of a call can be missed (probes are skipped
 * while another program runs on the CPU): what has begun long ago is no longer believed.
 */
static inline int is_inside(struct call *outer, struct pt_regs *ctx)
{
	return outer && PT_REGS_SP(ctx) < outer->top && bpf_ktime_get_ns() - outer->time_ns < LONGEST_CALL_NS;
}

static inline int enter(struct pt_regs *ctx, u8 function, u64 bytes, u64 old, u64 out)
{
	u32 thread = bpf_get_current_pid_tgid();
	struct call *outer = inflight.lookup(&thread);
	struct call call = {.bytes = bytes, .old = old, .out = out, .function = function, .stack = -1};

	if (is_inside(outer, ctx))
		return 0;
	call.top = PT_REGS_SP(ctx);
	call.time_ns = bpf_ktime_get_ns();
	call.sampled = SAMPLING == 1 || bpf_get_prandom_u32() % SAMPLING == 0;
	if (call.sampled) {
		call.stack = stacks.get_stackid(ctx, BPF_F_USER_STACK);
		bpf_probe_read_user(&call.caller, sizeof(call.caller), (void *)PT_REGS_SP(ctx));
	}
	if (inflight.update(&thread, &call))
		event_lost_in_map();
	return 0;
}

static inline void count_call(struct upid *process, u8 function, u64 bytes, int failed)
{
	struct calls_total none = {}, *total;
	struct calls_key key = {};
	int zero = 0;

	key.process = *process;
	key.function = function;
	total = find_or_add(calls.lookup(&zero), &key, &none);
	if (!total) {
		event_lost_in_map();
		return;
	}
	total->calls++;
	if (failed)
		total->failed++;
	else
		total->bytes += bytes;
}

static inline void follow(struct upid *process, struct call *call, u64 address)
{
	struct allocation_key key = {.address = address, .pid = process->pid};
	struct allocation allocation = {};
	struct stack_total none = {}, *total;

	allocation.bytes = call->bytes;
	allocation.stack.process = *process;
	allocation.stack.caller = call->caller;
	allocation.stack.stack = call->stack < 0 ? -1 : call->stack;
	total = by_stack.lookup_or_try_init(&allocation.stack, &none);
	if (!total || allocations.update(&key, &allocation)) {
		event_lost_in_map();
		return;
	}
	__sync_fetch_and_add(&total->allocated, 1);
	__sync_fetch_and_add(&total->allocated_bytes, call->bytes);
}

/* Says whether the address was followed. */
static inline int unfollow(u32 pid, u64 address)
{
	struct allocation_key key = {.address = address, .pid = pid};
	struct allocation *allocation = allocations.lookup(&key);
	struct stack_total *total;

	if (!allocation)
		return 0;
	total = by_stack.lookup(&allocation->stack);
	if (total) {
		__sync_fetch_and_add(&total->freed, 1);
		__sync_fetch_and_add(&total->freed_bytes, allocation->bytes);
	}
	allocations.delete(&key);
	return 1;
}

static inline int leave(struct pt_regs *ctx, u8 function)
{
	u64 result = PT_REGS_RC(ctx);
	u32 thread = bpf_get_current_pid_tgid();
	struct call *found = inflight.lookup(&thread), call;
	struct upid process;
	int failed;

	/* Of the call that is followed, not of one inside it: the return has taken the return address off the stack. */
	if (!found || found->function != function || PT_REGS_SP(ctx) != found->top + 8)
		return 0;
	call = *found;
	inflight.delete(&thread);
	process = current_upid();
	if (call.out) { /* the result is an error number */
		failed = !!(u32)result;
		result = 0;
		if (!failed)
			bpf_probe_read_user(&result, sizeof(result), (void *)call.out);
	} else {
		failed = function == MEMORY_MMAP ? result == (u64)-1 : !result;
	}
	if (function == MEMORY_REALLOC && call.old && (!failed || !call.bytes)) {
		call.sampled |= unfollow(process.pid, call.old);
		failed = 0;
	}
	count_call(&process, function, call.bytes, failed);
	if (call.sampled && !failed && result)
		follow(&process, &call, result);
	return 0;
}

/* What gives memory back does so at its entry: afterwards the address may be somebody else's. */
static inline int give_back(struct pt_regs *ctx, u8 function, u64 address)
{
	u32 thread = bpf_get_current_pid_tgid();
	struct upid process;

	if (!address || is_inside(inflight.lookup(&thread), ctx))
		return 0;
	process = current_upid();
	count_call(&process, function, 0, 0);
	unfollow(process.pid, address);
	return 0;
}

int memory_malloc(struct pt_regs *ctx)
{
	return enter(ctx, MEMORY_MALLOC, PT_REGS_PARM1(ctx), 0, 0);
}

int memory_malloc_return(struct pt_regs *ctx)
{
	return leave(ctx, MEMORY_MALLOC);
}

int memory_calloc(struct pt_regs *ctx)
{
	return enter(ctx, MEMORY_CALLOC, PT_REGS_PARM1(ctx) * PT_REGS_PARM2(ctx), 0, 0);
}

int memory_calloc_return(struct pt_regs *ctx)
{
	return leave(ctx, MEMORY_CALLOC);
}

int memory_realloc(struct pt_regs *ctx)
{
	return enter(ctx, MEMORY_REALLOC, PT_REGS_PARM2(ctx), PT_REGS_PARM1(ctx), 0);
}

int memory_realloc_return(struct pt_regs *ctx)
{
	return leave(ctx, MEMORY_REALLOC);
}

/* posix_memalign(where, alignment, bytes) */
int memory_posix_memalign(struct pt_regs *ctx)
{
	return enter(ctx, MEMORY_ALIGNED, PT_REGS_PARM3(ctx), 0, PT_REGS_PARM1(ctx));
}

/* aligned_alloc and memalign(alignment, bytes) */
int memory_aligned(struct pt_regs *ctx)
{
	return enter(ctx, MEMORY_ALIGNED, PT_REGS_PARM2(ctx), 0, 0);
}

int memory_aligned_return(struct pt_regs *ctx)
{
	return leave(ctx, MEMORY_ALIGNED);
}

/* mmap(address, bytes, protection, flags, ...): memory, not files */
int memory_mmap(struct pt_regs *ctx)
{
	if (!(PT_REGS_PARM4(ctx) & MAP_ANONYMOUS_FLAG))
		return 0;
	return enter(ctx, MEMORY_MMAP, PT_REGS_PARM2(ctx), 0, 0);
}

int memory_mmap_return(struct pt_regs *ctx)
{
	return leave(ctx, MEMORY_MMAP);
}

int memory_free(struct pt_regs *ctx)
{
	return give_back(ctx, MEMORY_FREE, PT_REGS_PARM1(ctx));
}

int memory_munmap(struct pt_regs *ctx)
{
	return give_back(ctx, MEMORY_MUNMAP, PT_REGS_PARM1(ctx));
}

TRACEPOINT_PROBE(exceptions, page_fault_user)
{
	struct memory_faults none = {}, *total;
	struct upid process;
	int zero = 0;

	if (!watched(bpf_get_current_pid_tgid() >> 32))
		return 0;
	process = current_upid();
	total = find_or_add(faults.lookup(&zero), &process, &none);
	if (!total) {
		event_lost_in_map();
		return 0;
	}
	if (args->error_code & FAULT_INSTRUCTION)
		total->instructions++;
	else if (args->error_code & FAULT_WRITE)
		total->writes++;
	else
		total->reads++;
	if (args->error_code & FAULT_PROTECTION)
		total->protections++;
	return 0;
}

TRACEPOINT_PROBE(kmem, rss_stat)
{
	struct rss none = {}, *rss;
	struct upid process;
	u32 member = args->member;
	u64 sum;

	if (!args->curr || member >= RSS_MEMBERS || !watched(bpf_get_current_pid_tgid() >> 32))
		return 0;
	process = current_upid();
	rss = resident.lookup_or_try_init(&process, &none);
	if (!rss) {
		event_lost_in_map();
		return 0;
	}
	rss->bytes[member & (RSS_MEMBERS - 1)] = args->size < 0 ? 0 : args->size;
	rss->seen |= 1 << member;
	sum = rss->bytes[0] + rss->bytes[1] + rss->bytes[3];
	if (sum > rss->peak)
		rss->peak = sum;
	return 0;
}

TRACEPOINT_PROBE(oom, mark_victim)
{
	struct event *event;
	struct memory_oom *oom;

	if (!watched(args->pid))
		return 0;
	event = event_begin_bare(0, MEMORY_OOM);
	if (!event)
		return 0;
	oom = (struct memory_oom *)event->payload;
	__builtin_memset(oom, 0, sizeof(*oom));
	event->row.pid = event->row.tid = args->pid;
	oom->by_pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(oom->by_comm, sizeof(oom->by_comm));
#if HAS_OOM_FIGURES
	oom->total_vm_bytes = args->total_vm * KB;
	oom->anonymous_bytes = args->anon_rss * KB;
	oom->file_bytes = args->file_rss * KB;
	oom->shared_bytes = args->shmem_rss * KB;
	oom->uid = args->uid;
	oom->score_adjust = args->oom_score_adj;
#endif
	event_emit(event, sizeof(*oom));
	return 0;
}

static inline void note_gone(void)
{
	struct upid process;
	u8 one = 1;

	if (!watched(bpf_get_current_pid_tgid() >> 32))
		return;
	process = current_upid();
	gone.update(&process, &one);
}

TRACEPOINT_PROBE(sched, sched_process_exec)
{
	struct event *event;

	if (!watched(bpf_get_current_pid_tgid() >> 32))
		return 0;
	note_gone();
	event = event_begin(0, MEMORY_REPLACED);
	if (event)
		event_emit(event, 0);
	return 0;
}

TRACEPOINT_PROBE(sched, sched_process_exit)
{
	u64 task = bpf_get_current_pid_tgid();

#if HAS_GROUP_DEAD
	if (args->group_dead)
		note_gone();
#else
	if (task >> 32 == (u32)task)
		note_gone();
#endif
	return 0;
}
