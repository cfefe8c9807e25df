/* What bpf/memory.c tells, by kind; every row begins with struct event_row (bpf/event.h).
 *
 * Allocations are followed from their function's entry to its return: what is counted has succeeded. Bytes are those
 * asked for, without the allocator's own. One allocation in `sampling` is followed until it is freed; CALLS counts all.
 */
#ifndef EBBFLOW_MEMORY_H
#define EBBFLOW_MEMORY_H

enum memory_kind {
	MEMORY_STACK = 1,    /* aggregate: what one stack has allocated and freed; since the process is watched */
	MEMORY_CALLS = 2,    /* aggregate of an interval: calls of one function */
	MEMORY_FAULTS = 3,   /* aggregate of an interval: page faults of a process */
	MEMORY_RSS = 4,      /* aggregate of an interval: resident memory of a process, where it changed */
	MEMORY_OOM = 5,      /* the kernel chose a victim; the row is about the victim */
	MEMORY_REPLACED = 6, /* the process began another program: what it had allocated is gone */
	MEMORY_FOLLOWED = 7, /* allocations of the process are followed from now on */
};

enum memory_function {
	MEMORY_MALLOC = 1,
	MEMORY_CALLOC = 2,
	MEMORY_REALLOC = 3,
	MEMORY_ALIGNED = 4, /* posix_memalign, aligned_alloc, memalign */
	MEMORY_MMAP = 5,
	MEMORY_FREE = 6,
	MEMORY_MUNMAP = 7,
};

/* Followed allocations only: multiply by `sampling` for an estimate of all. After it: u64 addresses, leaf first. */
struct memory_stack_head {
	__u64 allocated_bytes; /* cumulative */
	__u64 allocated;       /* allocations, cumulative */
	__u64 freed_bytes;
	__u64 freed;
	__u32 sampling;
	__u32 frames; /* addresses that follow; see bpf/stack.h */
};

/* After it: u64 addresses, one in each file that the process executes from: the batch says which files these are. */
struct memory_followed_head {
	__u32 probes;
	__u32 frames; /* addresses that follow */
};

struct memory_calls {
	__u64 calls; /* that returned */
	__u64 bytes; /* asked for by those that succeeded; 0 for free and munmap */
	__u64 failed;
	__u8 function; /* enum memory_function */
	__u8 reserved[7];
};

struct memory_faults {
	__u64 reads; /* faults in user mode, by what was attempted */
	__u64 writes;
	__u64 instructions;
	__u64 protections; /* of all these: the page was there, the right was not (copy on write, mostly) */
};

/* Bytes, from the kernel's own counters, which it gathers in batches per CPU: small changes are told late. */
struct memory_rss {
	__u64 file_bytes;
	__u64 anonymous_bytes;
	__u64 swap_bytes;
	__u64 shared_bytes;
	__u64 peak_bytes; /* highest sum seen in the interval, without swap */
};

struct memory_oom {
	__u64 total_vm_bytes;
	__u64 anonymous_bytes;
	__u64 file_bytes;
	__u64 shared_bytes;
	__u32 uid;
	__s32 score_adjust;
	__u32 by_pid; /* whose allocation brought it about */
	char by_comm[16];
	__u32 reserved;
};

#endif
