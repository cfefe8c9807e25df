/* Layout of what bpf/syscalls.c writes: the only definition, in C and in Python.
 *
 * Restricted grammar, see ebbflow/kernel/layout.py. Numbers of system calls are those of x86-64, by name in
 * ebbflow/kernel/syscall_names.py.
 */
#ifndef EBBFLOW_SYSCALLS_H
#define EBBFLOW_SYSCALLS_H

enum syscalls_kind {
	SYSCALLS_TOTAL = 1,   /* aggregate: one call of one process in one interval */
	SYSCALLS_ERRORS = 2,  /* aggregate: one errno of one call of one process in one interval */
	SYSCALLS_SLOW = 3,    /* a call that took longer than syscalls.slow_s */
	SYSCALLS_WATCHED = 4, /* a call that is named in syscalls.watch */
};

/* Of slow and watched calls. */
enum syscalls_flags {
	SYSCALLS_UNTIMED = 1,    /* began before it was watched: duration_ns is 0 */
	SYSCALLS_UNFINISHED = 2, /* never returned: its thread ended in it; result is 0 */
	SYSCALLS_LONG = 4,       /* a watched call that was slow, too */
	SYSCALLS_LATE_TEXT = 8,  /* text was read when the call ended: when it began, it was not in memory */
};

/* Slot i counts calls that took [2^(i+6), 2^(i+7)) ns: slot 0 all below 128 ns, the last all from 8.6 s on. */
struct syscalls_total {
	__u64 calls;    /* more than all slots together: some began before they were watched, or never returned */
	__u64 total_ns; /* from entry to return, waiting included */
	__u64 max_ns;
	__u32 errors; /* of the calls: those that returned -1 to -4095 */
	__s32 number;
	__u32 slots[28];
};

struct syscalls_errors {
	__u64 calls;
	__s32 number;
	__u32 error; /* errno; from 512 on the kernel's own, as ERESTARTSYS 512: interrupted, and begun again */
};

struct syscalls_slow {
	__u64 duration_ns;
	__u64 arguments[6]; /* as registers; what a call does not take is left over from earlier */
	__s64 result;       /* -errno on failure */
	__s32 number;
	__u32 reserved;
};

struct syscalls_watched {
	__u64 duration_ns;
	__u64 arguments[6];
	__s64 result;
	__s32 number;
	__u32 reserved;
	char text[3]
		 [64]; /* the first three arguments that are strings, cut to 63 bytes; empty: none, or not readable */
};

/* What stands in the program's maps. */
struct syscalls_key {
	__u64 start_boottime_ns;
	__u32 pid;
	__s32 number;
};

struct syscalls_counts {
	__u64 total_ns;
	__u64 max_ns;
	__u32 untimed; /* calls that are in no slot */
	__u32 errors;
	__u32 slots[28];
	char comm[16];
};

struct syscalls_error_key {
	__u64 start_boottime_ns;
	__u32 pid;
	__s32 number;
	__u32 error;
	__u32 reserved;
};

/* What is to be done with a call, by its number: a byte of `choices`. */
enum syscalls_choice {
	SYSCALLS_WATCH = 1,
	SYSCALLS_MAY_WAIT = 2, /* never a slow call */
	SYSCALLS_TEXT = 4,     /* its argument 0 is a string; the next bits: arguments 1 to 5 */
};

#endif
