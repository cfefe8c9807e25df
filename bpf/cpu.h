/* What bpf/cpu.c tells, by kind; every row begins with struct event_row (bpf/event.h).
 *
 * Behind a head stand u64 addresses, leaf first: kernel_frames of the kernel, then user_frames of the user. Of a caller
 * it is the address that is returned to. Flags: enum stack_flags (bpf/stack.h) and enum cpu_flags.
 */
#ifndef EBBFLOW_CPU_H
#define EBBFLOW_CPU_H

enum cpu_kind {
	CPU_SAMPLE = 1, /* a tick of the CPU clock found this thread running */
	CPU_OFF = 2,    /* aggregate: where threads of a process were not running, and why */
	CPU_WAKE = 3,   /* aggregate: who ended the sleep of a process's threads */
	CPU_QUEUE = 4,  /* aggregate: how long a process's threads were ready to run before they ran */
	CPU_RUN = 5,    /* of no process: what was taken in the interval since_ns to time_ns, and what it cost */
	CPU_EXEC = 6,   /* the process began another program: its addresses mean something else from here on */
};

enum cpu_flags {
	CPU_SHORT = 16,     /* CPU_OFF: waits shorter than cpu.off_cpu_min_s, summed up without their stack */
	CPU_NOT_TAKEN = 32, /* CPU_OFF: longer ones without: preempted (cpu.preempted_stacks), or switching too often */
};

/* Why a thread was not running. */
enum cpu_wait {
	CPU_PREEMPTED = 0,       /* it could have run: another one was given the CPU, or it yielded */
	CPU_SLEEPING = 1,        /* it waited for something, and signals could end that */
	CPU_UNINTERRUPTIBLE = 2, /* disk, locks of the kernel */
	CPU_STOPPED = 3,         /* by a signal or a tracer */
	CPU_NEW = 4,             /* never ran: in CPU_QUEUE only */
};

struct cpu_sample_head {
	__u64 period_ns; /* what one sample stands for */
	__u16 kernel_frames;
	__u16 user_frames;
	__u32 reserved;
};

/* A wait is told when it is over: from switch-out to switch-in. */
struct cpu_off_head {
	__u64 waits;
	__u64 total_ns;
	__u64 longest_ns;
	__u64 queued_ns; /* of total_ns: ready to run, but another thread had the CPU */
	__u16 kernel_frames;
	__u16 user_frames;
	__u8 state; /* enum cpu_wait */
	__u8 reserved[3];
};

struct cpu_wake {
	__u64 waits;    /* sleeps that this waker ended */
	__u64 total_ns; /* from switch-out to the wake-up */
	__u64 longest_ns;
	__u64 waker_start_boottime_ns;
	__u32 waker_pid; /* 0: an interrupt on a CPU that had nothing to do, as a timer's or a device's */
	__u32 reserved;
	char waker_comm[16]; /* of the thread; an interrupt goes by the name of what it interrupted */
};

/* Slot 0 counts less than 2 us, slot i [2^i, 2^(i+1)) us, the last one all from 67 s on. */
struct cpu_queue {
	__u64 waits;
	__u64 total_ns;
	__u64 longest_ns;
	__u64 slots[27];
};

struct cpu_run {
	__u64 period_ns;       /* between two samples of a CPU */
	__u64 expected;        /* samples of all CPUs in this interval, by the clock */
	__u64 taken;           /* ticks that came */
	__u64 idle;            /* of those: the CPU had nothing to do */
	__u64 unwatched;       /* of those: another process ran */
	__u64 producer_cpu_ns; /* CPU time of the whole producer process, all features */
	__u64 programs_cpu_ns; /* run time of this feature's programs; 0 unless kernel.bpf_stats_enabled is 1 */
	__u64 programs_runs;   /* how often they ran; likewise */
	__u64 switches;        /* of watched threads: switch-outs that were followed */
	__u64 stacks;          /* rows with a stack, and of those: */
	__u64 stacks_ended_early;
	__u64 stacks_truncated;
	__u64 stacks_lost; /* rows without the stack that they should have */
	__u64 frames;
	__u64 frames_without_symbol;
	__u32 frequency_hz;
	__u32 cpus; /* online */
};

/* Keys and values of the maps. */
struct cpu_off_key {
	__u64 start_boottime_ns;
	__u64 stack; /* its hash; 0: short waits, 1: not taken */
	__u32 pid;
	__u32 state;
};

struct cpu_off_total {
	__u64 waits;
	__u64 total_ns;
	__u64 longest_ns;
	__u64 queued_ns;
};

struct cpu_wake_key {
	__u64 start_boottime_ns;
	__u64 waker_start_boottime_ns;
	__u32 pid;
	__u32 waker_pid;
};

struct cpu_wake_total {
	__u64 waits;
	__u64 total_ns;
	__u64 longest_ns;
	char comm[16];
};

struct cpu_queue_key {
	__u64 start_boottime_ns;
	__u32 pid;
	__u32 reserved;
};

/* At most 64 of the kernel and 127 of the user: kernel.perf_event_max_stack is 127 unless somebody raised it. */
struct cpu_stack {
	__u16 kernel_frames;
	__u16 user_frames;
	__u32 truncated;
	__u64 addresses[191];
};

struct cpu_ticks {
	__u64 taken;
	__u64 idle;
	__u64 unwatched;
	__u64 switches;
};

#endif
