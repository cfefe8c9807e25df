/* What every row of tcp, process, syscalls, cpu, memory and disk begins with: the only definition, in C and in Python.
 *
 * What follows a row is the struct that its feature's header names after the kind: kind TCP_CLOSE, struct tcp_close.
 * Restricted grammar, see ebbflow/kernel/layout.py.
 */
#ifndef EBBFLOW_EVENT_H
#define EBBFLOW_EVENT_H

enum event_cpu {
	EVENT_NO_CPU = 255, /* an aggregate: read from a map, not from the ring */
};

struct event_row {
	__u64 time_ns;           /* CLOCK_MONOTONIC */
	__u64 since_ns;          /* where what is told began: a wait, a call, an interval; time_ns for an instant */
	__u64 sequence;          /* per CPU, counts every event, lost ones too */
	__u64 start_boottime_ns; /* of the process: with pid it is the upid; 0: of no process */
	__u32 pid;               /* process (tgid); 0: of no process */
	__u32 tid;               /* thread; 0: of the process as a whole */
	__u32 captured;          /* bytes of payload that follow */
	__u8 cpu;                /* low 8 bits, or EVENT_NO_CPU */
	__u8 kind;
	__u16 flags;   /* by feature */
	char comm[16]; /* of the process's first thread; empty in aggregates */
};

#endif
