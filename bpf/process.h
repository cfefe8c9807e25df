/* Payload of the events of bpf/process.c. Every row is about the process that began, changed or ended: struct event_row
 * has its pid, start and name, so all of one process's life is in one bucket, in order.
 *
 * Restricted grammar, see ebbflow/kernel/layout.py.
 */
#ifndef EBBFLOW_PROCESS_H
#define EBBFLOW_PROCESS_H

enum process_kind {
	PROCESS_FORK = 1,         /* a process began: fork, vfork, clone without CLONE_THREAD */
	PROCESS_EXEC = 2,         /* it became another program; head, then file name, interpreter, arguments */
	PROCESS_EXIT = 3,         /* its last thread ended; since_ns: when it began */
	PROCESS_OOM = 4,          /* chosen by the out-of-memory killer; its EXIT follows */
	PROCESS_INVENTORY = 5,    /* it ran already when watching it began; since_ns: when it began */
	PROCESS_THREAD_START = 6, /* only with process.threads; the thread is the row's tid */
	PROCESS_THREAD_END = 7,   /* likewise; since_ns: when the thread began */
};

enum process_flags {
	PROCESS_KERNEL_THREAD = 1,
	PROCESS_SHARES_MEMORY = 2,  /* FORK: with the parent until exec or exit (vfork, posix_spawn) */
	PROCESS_SCRIPT = 4,         /* EXEC: of a file that an interpreter runs */
	PROCESS_CUT_NAME = 8,       /* EXEC: file name or interpreter of 255 bytes, perhaps more */
	PROCESS_CUT_ARGUMENTS = 16, /* EXEC: arguments_total_bytes says how many there were */
	PROCESS_NO_ARGUMENTS = 32,  /* EXEC: their memory could not be read */
	PROCESS_UNWATCHED = 64,     /* EXEC: the new program is not watched; nothing more will be told */
	PROCESS_CORE = 128,         /* EXIT: a core was dumped */
	PROCESS_OOM_KILLED = 256,   /* EXIT */
	PROCESS_JOINED = 512,       /* INVENTORY: came into a watched cgroup while it ran */
	PROCESS_ZOMBIE = 1024,      /* INVENTORY: has ended, nobody has waited for it */
	PROCESS_MANY_THREADS =
		2048,             /* EXIT: CPU time leaves out threads beyond the 64th that ended at the same moment */
	PROCESS_UNTRACKED = 4096, /* EXIT: of its life nothing is known; executions, threads, exec_ns, sender are 0 */
};

struct process_fork {
	__u64 parent_start_boottime_ns; /* of the process that called fork */
	__u64 cgroup_id;                /* version 2, see process_place */
	__u64 legacy_cgroup_id;
	__u32 parent_pid;
	__u32 parent_tid;
	char parent_comm[16];
};

struct process_exec_head {
	__u64 parent_start_boottime_ns;
	__u64 cgroup_id;        /* version 2: inode number of its directory; the root's on hosts that do not use it */
	__u64 legacy_cgroup_id; /* version 1: the same in one hierarchy, which the producer chose; 0: there is none */
	__u64 exe_inode;        /* of the program that runs: for a script, of its interpreter */
	__u64 arguments_total_bytes;
	__u32 exe_device; /* in the kernel's own encoding: major << 20 | minor */
	__u32 parent_pid;
	__u32 old_tid; /* the thread that called; other threads are gone, and its number is the process's now */
	__u32 uid;     /* user and group are those of the first user namespace */
	__u32 gid;
	__u32 effective_uid;
	__u32 arguments; /* words, as the kernel counted them */
	__u32 filename_bytes;
	__u32 interpreter_bytes; /* 0: not a script */
	__u32 arguments_bytes;   /* that follow: NUL after each word; masked before they leave the producer */
	char old_comm[16];
	char parent_comm[16];
};

struct process_exit {
	__u64 exec_ns; /* CLOCK_MONOTONIC of the last exec; 0: none was seen */
	__u64 cpu_ns;  /* run time of all threads; leaves out what the last one ran since the clock tick */
	__u64 user_ns; /* the same as ticks of the clock count it */
	__u64 system_ns;
	__u64 peak_rss_bytes; /* of all programs it has been */
	__u64 cgroup_id;
	__u64 legacy_cgroup_id;
	__u64 parent_start_boottime_ns; /* who will be told: after a double fork not who called fork */
	__u64 sender_start_boottime_ns; /* who sent the signal that ended it; itself for a fault; 0: unknown */
	__u32 parent_pid;
	__u32 sender_pid;
	__s32 signal_code; /* si_code: SI_USER 0, SI_KERNEL 128, SEGV_MAPERR 1, ... */
	__u32 executions;
	__u32 threads; /* begun while it was watched, beside the first */
	__u8 exit_code;
	__u8 signal; /* 0: it ended by itself */
	__u16 reserved;
	char sender_comm[16];
};

struct process_oom {
	__u64 trigger_start_boottime_ns; /* who asked for the memory */
	__u64 total_vm_bytes;            /* the figures are 0 before Linux 6.10, which does not tell them */
	__u64 anonymous_rss_bytes;
	__u64 file_rss_bytes;
	__u64 shared_rss_bytes;
	__u64 page_tables_bytes;
	__u32 trigger_pid;
	__u32 trigger_tid;
	__u32 uid;
	__s32 oom_score_adj;
	char trigger_comm[16];
};

struct process_inventory {
	__u64 parent_start_boottime_ns;
	__u64 cgroup_id;
	__u64 legacy_cgroup_id;
	__u64 exe_inode;
	__u64 cpu_ns; /* so far, of all threads but those that run now */
	__u32 exe_device;
	__u32 parent_pid;
	__u32 uid;
	__u32 gid;
	__u32 effective_uid;
	__u32 threads; /* now, the first among them */
};

#endif
